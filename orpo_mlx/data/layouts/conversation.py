"""Two conversations that differ in their last turn become a pair, with what stands beside them."""

from __future__ import annotations

from typing import Any

from orpo_mlx.data.layouts.context import context_notes, tools_of, with_context
from orpo_mlx.data.sources.source import Row
from orpo_mlx.data.types import Drop, Message, PreferencePair

IDENTICAL = "identical text"


def conversation_pair(
    row: Row, chosen: list[Message], rejected: list[Message], notes: tuple[str, ...] = ()
) -> PreferencePair | Drop:
    """Split two conversations before their last turn, which must be all that differs."""
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side:
            return Drop(f"empty {name}")
        if side[-1]["role"] != "assistant":
            return Drop("last turn not assistant")
    prompt = chosen[:-1]
    if prompt != rejected[:-1]:
        return Drop("prompts differ")
    if dropped := _not_asked(prompt):
        return dropped
    reason = unusable(_said(chosen), _said(rejected))
    if reason and (reason.reason != IDENTICAL or _details(chosen) == _details(rejected)):
        return reason
    tools, notes = tools_of(row), (*notes, *context_notes(row, prompt))
    prompt = with_context(row, prompt)
    return PreferencePair(prompt, chosen[-1:], rejected[-1:], row.source, notes, tools)


def labelled_conversation(row: Row, talk: list[Message], label: bool) -> PreferencePair | Drop:
    """Split a conversation before its last turn, which is the labelled answer."""
    if not talk or talk[-1]["role"] != "assistant":
        return Drop("last turn not assistant")
    prompt = talk[:-1]
    if dropped := _not_asked(prompt):
        return dropped
    if not _said(talk).strip():
        return Drop("empty answer")
    tools, notes = tools_of(row), context_notes(row, prompt)
    prompt = with_context(row, prompt)
    return PreferencePair(prompt, talk[-1:], [], row.source, notes, tools, label=label)


def _not_asked(prompt: list[Message]) -> Drop | None:
    """Return the reason to drop a prompt that nothing would answer."""
    if not prompt or not prompt[-1]["content"].strip():
        return Drop("empty prompt")
    if prompt[-1]["role"] == "assistant":
        return Drop("prompt ends with an assistant turn")
    return None


def _said(side: list[Message]) -> str:
    """Return the text of an answer; a call of tools says something too."""
    return side[-1]["content"] + str(side[-1].get("tool_calls", ""))


def _details(side: list[Message]) -> dict[str, Any]:
    return {key: value for key, value in side[-1].items() if key != "content"}


def unusable(chosen: str, rejected: str) -> Drop | None:
    """Return the reason to drop two answers of which one says nothing, or that are the same."""
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not text.strip():
            return Drop(f"empty {name}")
    return Drop(IDENTICAL) if chosen.strip() == rejected.strip() else None
