"""Pairs to look at: as text, as they stood in the file, and token by token."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from orpo_mlx.data.layouts.turns import whole_text
from orpo_mlx.data.pipeline import Fate
from orpo_mlx.data.tokens.encoder import Encoder
from orpo_mlx.data.types import Message, TokenPair

FIRST = 20
"""Pairs that are always shown."""


class ShownToken(NamedTuple):
    """A token as it is written.

    Attributes:
        text: its characters; of a character of several tokens, the last one has it all.
        special: whether it is a control token.
    """

    id: int
    text: str
    special: bool


class TokenWriter:
    """Writes ids as text, token by token, so that all of them together are the whole text."""

    def __init__(self, encoder: Encoder) -> None:
        self._tokenizer = encoder.tokenizer
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        self._special = {
            number for number, token in added.items() if getattr(token, "special", False)
        } | encoder.stop_ids

    def write(self, ids: Iterable[int]) -> list[ShownToken]:
        """Return the tokens with their text."""
        shown: list[ShownToken] = []
        waiting: list[int] = []
        for number in ids:
            waiting.append(number)
            text = self._text(waiting)
            # Half a character is written as this mark; no character has more than four bytes.
            is_whole = not text.endswith("\ufffd") or len(waiting) == 4
            shown.append(ShownToken(number, text if is_whole else "", number in self._special))
            if is_whole:
                waiting = []
        if waiting:
            shown[-1] = shown[-1]._replace(text=self._text(waiting))
        return shown

    def _text(self, ids: list[int]) -> str:
        # After a letter, where a space before a word is not taken for the start of a text.
        anchor, before = self._anchor
        return str(self._tokenizer.decode([*anchor, *ids]))[len(before) :]

    @cached_property
    def _anchor(self) -> tuple[list[int], str]:
        ids = list(self._tokenizer.encode("a", add_special_tokens=False))
        return ids, str(self._tokenizer.decode(ids))


@dataclass(frozen=True)
class Example:
    """One row and what it becomes.

    Attributes:
        where: file and line.
        prompt, chosen, rejected: as readable text; "" for a row that was dropped before.
        raw: the row as it was read.
        tokens: ids by part, None for a row that is not trained on.
        reason: why it is dropped, "" if it is not.
        label: of an answer by itself, which is `chosen`; None for a pair.
    """

    where: str
    prompt: str
    chosen: str
    rejected: str
    raw: dict[str, Any]
    tokens: dict[str, array] | None
    reason: str = ""
    label: bool | None = None


class Examples:
    """Keeps the first pairs and the first row of whatever is found, nothing else."""

    def __init__(self) -> None:
        self._first: list[Example] = []
        self._marked: dict[str, Example] = {}

    def take(self, fate: Fate, marks: Iterable[str]) -> None:
        """Keep a row if it is among the first pairs, or the first with one of its marks."""
        is_first = not fate.dropped and len(self._first) < FIRST
        news = [mark for mark in marks if mark not in self._marked]
        if not is_first and not news:
            return
        example = _example(fate)
        if is_first:
            self._first.append(example)
        for mark in news:
            self._marked[mark] = example

    def all(self) -> list[Example]:
        """Return the first pairs, then the others, each row once."""
        found = {example.where: example for example in (*self._first, *self._marked.values())}
        return list(found.values())


def _example(fate: Fate) -> Example:
    texts = dict.fromkeys(("prompt", "chosen", "rejected"), "")
    if fate.pair is not None and not isinstance(fate.pair, TokenPair):
        texts = {name: readable(getattr(fate.pair, name)) for name in texts}
    tokens = None
    if fate.tokens is not None:
        parts = ("prompt", "chosen", "rejected")
        tokens = {name: array("q", getattr(fate.tokens, name)) for name in parts}
    return Example(
        fate.row.source, **texts, raw=fate.row.values, tokens=tokens, reason=fate.dropped,
        label=None if fate.pair is None else fate.pair.label,
    )  # fmt: skip


def readable(text: Any) -> str:
    """Return plain text as it is, messages with their roles; a single answer without."""
    if isinstance(text, str):
        return text
    if len(text) == 1 and text[0]["role"] == "assistant":
        return _said(text[0])
    return "\n".join(f"{turn['role']}: {_said(turn)}" for turn in text)


def _said(turn: Message) -> str:
    """Return the text of a turn, and the calls of tools as JSON."""
    calls = [json.dumps(call, ensure_ascii=False) for call in turn.get("tool_calls", ())]
    return "\n".join(filter(None, (whole_text(turn), *calls)))
