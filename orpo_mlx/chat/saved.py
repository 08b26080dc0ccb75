"""A conversation in a file: Markdown to read, JSON to work with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from orpo_mlx.chat.conversation import SIDES, Conversation, Exchange
from orpo_mlx.config.file import expanded
from orpo_mlx.errors import DataError, reason_of
from orpo_mlx.storage.atomic import write_atomically

_KINDS = (".md", ".json")


def save_conversation(
    talk: Conversation, name: str, about: dict[str, Any], may_replace: set[Path]
) -> Path:
    """Write a conversation.

    Args:
        talk: at least one turn.
        name: of the file; its end says how it is written.
        about: what answered.
        may_replace: files it was written into before; others are not replaced.

    Raises:
        DataError: there is nothing to save, something is there, or it cannot be written.
    """
    path = expanded(name).absolute()
    if not talk.exchanges:
        raise DataError("There is nothing to save yet.", "Say something first.")
    if path.suffix.lower() not in _KINDS:
        raise DataError(
            f"{path.name}: a conversation is written as {' or '.join(_KINDS)}.",
            f"Name it {path.name}.md.",
        )
    is_json = path.suffix.lower() == ".json"
    text = _as_json(talk, about) if is_json else _as_markdown(talk, about)
    try:
        if os.path.lexists(path) and path not in may_replace:
            raise DataError(f"{path}: exists.", "Give another name.")
        write_atomically(path, text.encode())
    except (OSError, ValueError) as error:  # a name may hold what no file system takes
        raise DataError(
            f"{path}: cannot be written ({reason_of(error)}).", "Check the folder and its space."
        ) from None
    return path


def _as_json(talk: Conversation, about: dict[str, Any]) -> str:
    exchanges = [
        {
            "user": exchange.user,
            "answers": {side: exchange.answers.get(side) for side in _answered(exchange)},
            "preferred": exchange.preferred,
            "correction": exchange.correction or None,
            "drawn": exchange.drawn,
        }
        for exchange in talk.exchanges
    ]
    content = {**about, "system": talk.system or None, "exchanges": exchanges}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _as_markdown(talk: Conversation, about: dict[str, Any]) -> str:
    parts = [f"# {about.get('run') or about.get('model')}"]
    if talk.system:
        parts += ["**System**", talk.system]
    for exchange in talk.exchanges:
        parts += ["**User**", exchange.user]
        for side in _answered(exchange):
            better = " (better)" if exchange.preferred == side else ""
            parts += [f"**{side.capitalize()}**{better}", exchange.answers[side]]
        if exchange.correction:
            parts += ["**Corrected**", exchange.correction]
    return "\n\n".join(parts) + "\n"


def _answered(exchange: Exchange) -> list[Any]:
    return [side for side in SIDES if side in exchange.answers]
