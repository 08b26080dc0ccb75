"""Columns beside the turns that belong to the prompt: system texts, earlier turns, texts, tools.

What stands among the turns already is not said twice.
"""

from __future__ import annotations

from typing import Any

from orpo_mlx.data.layouts.fields import parsed, without_nulls, wrong_type
from orpo_mlx.data.layouts.turns import TURN_KEYS, answer, messages_of, transcript_turns, user
from orpo_mlx.data.sources.source import Row, kind_of
from orpo_mlx.data.types import Message
from orpo_mlx.errors import DataError

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
EARLIER_COLUMNS = ("history", "context")
CONTEXT_COLUMNS = (*SYSTEM_COLUMNS, *EARLIER_COLUMNS, "tools")
SYSTEM_DIFFERS = "system column differs from the system turn"


def with_context(row: Row, prompt: list[Message]) -> list[Message]:
    """Put what a row says beside its turns before them.

    A system text becomes a system turn unless there is one; earlier turns (messages, or pairs of
    question and answer) become turns; a text goes before the first question.

    Raises:
        DataError: values of a wrong type.
    """
    own = prompt[:1] if prompt[0]["role"] == "system" else []
    turns = prompt[len(own) :]
    for name in EARLIER_COLUMNS:
        turns = _with_earlier(turns, _earlier(row, name))
    system = _system_text(row)
    if system and not own and not (turns and turns[0]["role"] == "system"):
        return [{"role": "system", "content": system}, *turns]
    return [*own, *turns]


def context_notes(row: Row, prompt: list[Message]) -> tuple[str, ...]:
    """Return what of the columns is not used since the turns say otherwise."""
    system = _system_text(row)
    differs = prompt[0]["role"] == "system" and system.strip() not in prompt[0]["content"]
    return (SYSTEM_DIFFERS,) if differs else ()


def without_column(row: Row, name: str) -> Row:
    """Return a row without the column that was taken as its prompt."""
    return Row({key: value for key, value in row.values.items() if key != name}, row.source)


def _system_text(row: Row) -> str:
    """Return the first system text that says something."""
    for name in SYSTEM_COLUMNS:
        value = row.values.get(name)
        if value is not None and not isinstance(value, str):
            raise wrong_type(row, name, value, "text")
        if value and value.strip():
            return value
    return ""


def _with_earlier(turns: list[Message], earlier: list[Message] | str) -> list[Message]:
    if not isinstance(earlier, str):
        return turns if turns[: len(earlier)] == earlier else [*earlier, *turns]
    if not earlier.strip() or any(earlier.strip() in turn["content"] for turn in turns):
        return turns
    if not turns:
        return [user(earlier)]
    at = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), 0)
    asked: Message = {**turns[at], "content": f"{earlier}\n\n{turns[at]['content']}"}
    return [*turns[:at], asked, *turns[at + 1 :]]


def _earlier(row: Row, name: str) -> list[Message] | str:
    """Return the turns or the text of a column; of texts in a list one text."""
    value = parsed(row.values.get(name))
    if not value:
        return []
    if isinstance(value, str):
        turns = transcript_turns(value) if "Assistant:" in value else None
        return turns or value
    items = value if isinstance(value, list) else [value]
    if all(isinstance(item, dict) and not TURN_KEYS.isdisjoint(item) for item in items):
        return messages_of(row, name)
    if all(isinstance(item, str) for item in items):
        return "\n\n".join(items)
    if not all(map(_is_exchange, items)):
        raise DataError(
            f"{row.source}: {name} is {kind_of(value)}; needed: messages, pairs of question and "
            "answer, or text.",
            "Rename the column if it is no part of the prompt, or correct the rows.",
        )
    return [turn for asked, said in items for turn in (user(asked), *answer(said))]


def _is_exchange(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)


def tools_of(row: Row) -> list[dict[str, Any]] | None:
    """Read what the prompt offers as tools: a list of objects, or JSON text of one."""
    if row.values.get("tools") is None:
        return None
    value = parsed(row.values["tools"])
    if isinstance(value, str) and not value.strip():
        return None
    items = [without_nulls(parsed(item)) for item in value] if isinstance(value, list) else None
    if items is None or not all(isinstance(item, dict) for item in items):
        raise wrong_type(row, "tools", row.values["tools"], "a list of objects that name tools")
    return items or None
