"""Prompts that were kept, to be asked of each checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orpo_mlx.chat.conversation import Conversation
from orpo_mlx.data.prompts import WrittenPrompt, read_prompt_file
from orpo_mlx.data.types import Message
from orpo_mlx.data.writing import json_line
from orpo_mlx.errors import DataError, reason_of
from orpo_mlx.storage.append import append_line
from orpo_mlx.storage.data_folder import data_folder
from orpo_mlx.storage.regular import read_regular
from orpo_mlx.text.formatting import counted


def saved_prompts_file() -> Path:
    """Return where kept prompts are, one a line."""
    return data_folder("chat") / "prompts.jsonl"


def keep_prompt(talk: Conversation) -> bool:
    """Add the turns that were answered last; False if they are there already.

    Raises:
        DataError: nothing was said yet, or it cannot be written.
    """
    if talk.last is None:
        raise DataError("There is no prompt yet.", "Say something first.")
    turns, path = talk.prompt(), saved_prompts_file()
    line = json_line({"prompt": talk.last.user if len(turns) == 1 else turns})
    try:
        if path.exists() and json.dumps(json.loads(line)) in _known(path):
            return False
        append_line(path, line)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({reason_of(error)}).",
            "Free some space, or set ORPO_MLX_HOME to another folder.",
        ) from None
    return True


def read_saved_prompts() -> list[WrittenPrompt]:
    """Return the kept prompts.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    path = saved_prompts_file()
    if not path.exists():
        raise DataError(f"{path}: no prompts are kept yet.", "Keep some in a chat: /keep.")
    prompts = read_prompt_file(str(path), "saved prompts")
    if not prompts:
        raise DataError(f"{path}: holds no prompt.", "Keep some in a chat: /keep.")
    return prompts


def prompt_title(turns: Sequence[Message], number: int, total: int) -> str:
    """Return a prompt as the heading of its answers."""
    earlier = len(turns) - 1
    after = f" (after {counted(earlier, 'turn')})" if earlier else ""
    return f"prompt {number} of {total}{after}  {turns[-1]['content']}"


def answers_by_side(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the answers to one prompt by what to call who gave them."""
    return {
        f"step {int(side)}" if side.isdigit() else side: answer["text"].strip()
        + ("" if answer["ended"] else " [cut]")
        for side, answer in answers.items()
    }


def _known(path: Path) -> set[str]:
    """Return the rows of a file in one form, however they were written."""
    known = set()
    for line in read_regular(path).splitlines():
        try:
            known.add(json.dumps(json.loads(line)))
        except (ValueError, RecursionError):
            continue  # of somebody's own hand; whoever asks the prompts says so
    return known
