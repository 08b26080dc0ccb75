"""Chat turns out of rows: roles and contents in either naming, and transcripts in one string."""

from __future__ import annotations

import re
from typing import Any, cast

from orpo_mlx.data.layouts.fields import parsed, without_nulls, wrong_type
from orpo_mlx.data.sources.source import Row
from orpo_mlx.data.types import TURN_DETAILS, Message
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
    "observation": "tool",
    "tool_response": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
_CALLING_ROLES = ("function_call", "tool_call")
"""A turn that is nothing but a call, as JSON text."""
TURN_KEYS = {"role", "from"}
TRANSCRIPT_TURN = re.compile(r"\n\n(Human|Assistant):")


def messages_of(row: Row, field: str) -> list[Message]:
    """Read a list of turns, or one turn standing alone; JSON text of either counts.

    Raises:
        DataError: values of a wrong type or unknown roles.
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
        and all(isinstance(item, dict) and not item.keys().isdisjoint(TURN_KEYS) for item in items)
    )


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
    calls = _tool_calls(row, field, item, item.get(content_key) if role in _CALLING_ROLES else None)
    said = "" if calls and (role in _CALLING_ROLES or item.get(content_key) is None) else None
    if said is None:
        said = _content(row, f"{field}.{content_key}", item.get(content_key))
    turn: dict[str, Any] = {"role": ROLES[role], "content": said}
    details = {key: item.get(key) for key in TURN_DETAILS}
    turn |= {key: text for key, text in details.items() if text and isinstance(text, str)}
    return cast(Message, {**turn, "tool_calls": calls} if calls else turn)


def _tool_calls(row: Row, field: str, item: dict[str, Any], call: Any) -> list[dict[str, Any]]:
    """Read the calls of a turn; arguments written as JSON become what templates expect, objects."""
    value = parsed(call if call is not None else item.get("tool_calls"))
    items = [value] if isinstance(value, dict) else value or []
    if not isinstance(items, list) or not all(isinstance(parsed(one), dict) for one in items):
        raise wrong_type(row, f"{field}.tool_calls", value, "a list of calls")
    calls = []
    for one in without_nulls([parsed(one) for one in items]):
        function = one["function"] if isinstance(one.get("function"), dict) else one
        told = {**function, "arguments": parsed(function.get("arguments", {}))}
        calls.append({"type": "function", **(one if function is not one else {}), "function": told})
    return calls


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


def asked_turns(text: str) -> list[Message]:
    """Return a prompt as turns: one of the user, or those of a dialogue that awaits an answer."""
    turns = transcript_turns(text) or []
    if turns and turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
        if turns and turns[0]["role"] == turns[-1]["role"] == "user":
            return turns
    return [user(text)]


def is_talk(text: Any) -> bool:
    """Tell whether a text is a dialogue that awaits an answer, with "Human:" and "Assistant:"."""
    return isinstance(text, str) and asked_turns(text) != [user(text)]


def whole_text(turn: Message) -> str:
    """Return what a turn says, its thought before it where templates look for one."""
    thought = turn.get("reasoning_content") or turn.get("thinking")
    return f"<think>\n{thought}\n</think>\n\n{turn['content']}" if thought else turn["content"]


def transcript_turns(text: str) -> list[Message] | None:
    """Read a dialogue with "Human:" and "Assistant:" before its turns; None if text is before."""
    before, *parts = TRANSCRIPT_TURN.split("\n\n" + text.lstrip())
    if before.strip():
        return None
    return [
        {"role": "user" if speaker == "Human" else "assistant", "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]
