"""Answers that carry a label each: good or bad, with no other answer to be compared with."""

from __future__ import annotations

from typing import Any

from orpo_mlx.data.layouts.context import CONTEXT_COLUMNS
from orpo_mlx.data.layouts.conversation import labelled_conversation
from orpo_mlx.data.layouts.convert import PROMPT_COLUMNS, TALK_COLUMNS, token_ids
from orpo_mlx.data.layouts.fields import first_column, missing, text_of
from orpo_mlx.data.layouts.scores import VERDICT_COLUMNS, verdict_of
from orpo_mlx.data.layouts.turns import answer, asked_turns, is_messages, is_talk, messages_of
from orpo_mlx.data.sources.source import Row
from orpo_mlx.data.types import Drop, Message, Pair, PreferencePair, TokenPair

ANSWER_COLUMNS = ("completion", "response", "answer", "output")
NO_LABEL = "label is neither good nor bad"


def has_labelled_chat(columns: set[str]) -> bool:
    """Tell whether columns hold an answer, what it answers, and a verdict; no two sides."""
    has_answer = not columns.isdisjoint(ANSWER_COLUMNS)
    is_asked = has_answer and not columns.isdisjoint((*PROMPT_COLUMNS, *TALK_COLUMNS))
    is_talk_alone = not columns.isdisjoint(TALK_COLUMNS) and columns.isdisjoint(PROMPT_COLUMNS)
    has_sides = any(name.startswith(("chosen", "rejected")) for name in columns)
    is_judged = not columns.isdisjoint(VERDICT_COLUMNS)
    return is_judged and not has_sides and (is_asked or is_talk_alone)


def has_labelled_text(columns: set[str]) -> bool:
    """Tell whether columns hold a prompt, an answer and a verdict."""
    return has_labelled_chat(columns) and "prompt" in columns


def is_labelled_text(columns: set[str], sample: dict[str, Any]) -> bool:
    """Tell whether a prompt and an answer are text that no chat template is for."""
    name = first_column(sample, ANSWER_COLUMNS)
    if not has_labelled_text(columns) or name is None or not columns.isdisjoint(CONTEXT_COLUMNS):
        return False
    prompt = sample.get("prompt")
    return not (is_messages(prompt) or is_messages(sample[name]) or is_talk(prompt))


def is_labelled_chat(columns: set[str], sample: dict[str, Any]) -> bool:
    """Tell whether labelled answers are turns, or answer a question."""
    is_tokenized = {"prompt_ids", "completion_ids"} <= columns
    text = is_labelled_text(columns, sample)
    return has_labelled_chat(columns) and not text and not is_tokenized


def labelled_text(row: Row) -> Pair | Drop:
    """Prompt and answer as plain strings, taken exactly as they are."""
    name = first_column(row.values, ANSWER_COLUMNS) or ANSWER_COLUMNS[0]
    label = missing(row, "prompt", name) or _label(row)
    if isinstance(label, Drop):
        return label
    prompt, text = text_of(row, "prompt"), text_of(row, name)
    for part, value in (("prompt", prompt), ("answer", text)):
        if not value.strip():
            return Drop(f"empty {part}")
    return PreferencePair(prompt, text, "", row.source, label=label)


def labelled_chat(row: Row) -> Pair | Drop:
    """A question or turns, and the answer: in a column of its own, or the last of the turns."""
    label, turns = _label(row), _talk(row)
    if isinstance(label, Drop):
        return label
    return turns if isinstance(turns, Drop) else labelled_conversation(row, turns, label)


def labelled_tokens(row: Row) -> Pair | Drop:
    """Token ids, taken exactly as they are."""
    label = missing(row, "prompt_ids", "completion_ids") or _label(row)
    if isinstance(label, Drop):
        return label
    prompt, ids = token_ids(row, "prompt_ids"), token_ids(row, "completion_ids")
    for part, value in (("prompt", prompt), ("answer", ids)):
        if not value:
            return Drop(f"empty {part}")
    return TokenPair(prompt, ids, [], row.source, label=label)


def _label(row: Row) -> bool | Drop:
    name = first_column(row.values, VERDICT_COLUMNS) or VERDICT_COLUMNS[0]
    if dropped := missing(row, name):
        return dropped
    verdict = verdict_of(row.values[name])
    # -1 is what a thumb down is where one up is 1.
    return verdict > 0 if verdict in (0, 1, -1) else Drop(NO_LABEL)


def _talk(row: Row) -> list[Message] | Drop:
    """Return all turns, the answer last."""
    name, asked = (first_column(row.values, n) for n in (ANSWER_COLUMNS, PROMPT_COLUMNS))
    talk = first_column(row.values, TALK_COLUMNS) if not asked else None
    if name is None:
        return missing(row, str(talk)) or messages_of(row, str(talk))
    prompt = talk or str(asked)
    if dropped := missing(row, prompt, name):
        return dropped
    is_turns = talk or is_messages(row.values[prompt])
    turns = messages_of(row, prompt) if is_turns else asked_turns(_question(row))
    if is_messages(row.values[name]):
        own = messages_of(row, name)
        return own if turns and own[: len(turns)] == turns else [*turns, *own]
    return [*turns, *answer(text_of(row, name))]


def _question(row: Row) -> str:
    """Return the question; an instruction may have the text to work on beside it."""
    names = [name for name in PROMPT_COLUMNS if row.values.get(name) is not None]
    parts = [text_of(row, name) for name in names]
    return "\n\n".join(part for part in parts if part.strip())
