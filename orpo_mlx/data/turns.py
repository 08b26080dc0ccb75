"""Chat turns out of rows: roles and contents in either naming, and transcripts in one string."""

from __future__ import annotations

import re
from typing import Any

from orpo_mlx.data.fields import missing, parsed, text_of, wrong_type
from orpo_mlx.data.pairs import Drop, Message, PreferencePair
from orpo_mlx.data.sources import Row
from orpo_mlx.errors import DataError

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "developer": "system",
    "model": "assistant",
    "chatgpt": "assistant",
}
TRANSCRIPT_TURN = re.compile(r"\n\n(Human|Assistant):")


class ToolCalls(Exception):
    """A turn calls tools; its text alone is not the turn."""


def messages_of(row: Row, field: str) -> list[Message]:
    """Read a list of turns, or one turn standing alone; JSON text of either counts.

    Raises:
        DataError: values of a wrong type or unknown roles.
        ToolCalls: a turn calls tools.
    """
    value = parsed(row.values[field])
    if isinstance(value, dict):
        return [_message(row, field, value)]
    if not isinstance(value, list):
        raise wrong_type(row, field, value, "a list of messages")
    return [_message(row, f"{field}[{i}]", item) for i, item in enumerate(value)]


def is_messages(value: Any) -> bool:
    """Tell whether a value is turns rather than text; JSON text of turns is turns."""
    if isinstance(value, list | dict):
        return True
    value = parsed(value)
    items = [value] if isinstance(value, dict) else value
    return (
        isinstance(items, list)
        and bool(items)
        and all(isinstance(item, dict) and not item.keys().isdisjoint(_KEYS) for item in items)
    )


_KEYS = {"role", "from"}


def _message(row: Row, field: str, item: Any) -> Message:
    if not isinstance(item, dict):
        raise wrong_type(row, field, item, "a message with role and content")
    role_key, content_key = ("from", "value") if "from" in item else ("role", "content")
    role = item.get(role_key)
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(
            f"{row.source}: {field}.{role_key} is {role!r:.60}; known roles: {', '.join(ROLES)}.",
            "Rename the role to one of the known ones.",
        )
    if item.get("tool_calls"):
        raise ToolCalls
    content = _content(row, f"{field}.{content_key}", item.get(content_key))
    return {"role": ROLES[role], "content": content}


def _content(row: Row, field: str, value: Any) -> str:
    """Read text, or a list of text parts, which are joined."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong_type(row, field, value, "text")
    for i, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            found = f"a part of type {kind!r:.40}" if kind != "text" else "a text part without text"
            raise DataError(
                f"{row.source}: {field}[{i}] is {found}; needed: text (parts of type 'text').",
                "Remove rows with images, sound or other parts.",
            )
    return "".join(part["text"] for part in value)


def user(text: str) -> Message:
    """Return a user turn."""
    return {"role": "user", "content": text}


def answer(text: str) -> list[Message]:
    """Return an answer as turns."""
    return [{"role": "assistant", "content": text}]


def transcript_turns(text: str) -> list[Message] | None:
    """Read a dialogue with "Human:" and "Assistant:" before its turns; None if text is before."""
    before, *parts = TRANSCRIPT_TURN.split("\n\n" + text.lstrip())
    if before.strip():
        return None
    return [
        {"role": "user" if speaker == "Human" else "assistant", "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]


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
    if not prompt or not prompt[-1]["content"].strip():
        return Drop("empty prompt")
    if prompt[-1]["role"] == "assistant":
        return Drop("prompt ends with an assistant turn")
    answers = chosen[-1]["content"], rejected[-1]["content"]
    if reason := unusable(*answers):
        return reason
    tools = tools_of(row)
    prompt = with_system(row, prompt)
    return PreferencePair(prompt, chosen[-1:], rejected[-1:], row.source, notes, tools)


def unusable(chosen: str, rejected: str) -> Drop | None:
    """Return the reason to drop two answers of which one says nothing, or that are the same."""
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not text.strip():
            return Drop(f"empty {name}")
    return Drop("identical text") if chosen.strip() == rejected.strip() else None


def with_system(row: Row, prompt: list[Message]) -> list[Message]:
    """Put a non-empty system column before turns that have no system turn of their own."""
    if missing(row, "system") or prompt[0]["role"] == "system":
        return prompt
    system = text_of(row, "system")
    return [{"role": "system", "content": system}, *prompt] if system.strip() else prompt


def tools_of(row: Row) -> list[dict[str, Any]] | None:
    """Read what the prompt offers as tools: a list of objects, or JSON text of one."""
    if row.values.get("tools") is None:
        return None
    value = parsed(row.values["tools"])
    if isinstance(value, str) and not value.strip():
        return None
    items = [parsed(item) for item in value] if isinstance(value, list) else None
    if items is None or not all(isinstance(item, dict) for item in items):
        raise wrong_type(row, "tools", row.values["tools"], "a list of objects that name tools")
    return items or None
