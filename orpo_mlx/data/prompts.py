"""A user's own prompts: a text file with one a line, or rows with a `prompt`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orpo_mlx.data.sources.files import require_file
from orpo_mlx.data.sources.rows import Problems, Row, kind_of
from orpo_mlx.data.sources.source import read_rows
from orpo_mlx.data.types import Message
from orpo_mlx.errors import DataError


@dataclass(frozen=True)
class WrittenPrompt:
    """Something to answer.

    Attributes:
        turns: of a chat, the last from the user.
        kind: of request, "" if nobody said.
        source: where it stands.
    """

    turns: list[Message]
    kind: str
    source: str

    @property
    def text(self) -> str:
        """The last turn."""
        return self.turns[-1]["content"]


def read_prompt_file(name: str, option: str) -> list[WrittenPrompt]:
    """Read prompts.

    Args:
        name: a text file with a prompt a line, or data of any kind whose rows have a `prompt`
            (text, or turns that end with the user's) and perhaps a `kind`.
        option: that gave the name, for an error.

    Raises:
        DataError: it cannot be read, or a row has no such prompt.
    """
    if name.lower().endswith(".txt"):
        return _read_lines(name, option)
    problems = Problems("Each row needs a prompt: text, or turns that end with the user's.")
    found = [p for row in read_rows(name) if (p := _prompt_of(row, problems)) is not None]
    problems.raise_any("rows")
    return found


def _read_lines(name: str, option: str) -> list[WrittenPrompt]:
    path = require_file(name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{option} {name}: is not UTF-8 text.", "Save it as UTF-8.") from None
    return [
        WrittenPrompt([{"role": "user", "content": line.strip()}], "", f"{path.name}:{i}")
        for i, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _prompt_of(row: Row, problems: Problems) -> WrittenPrompt | None:
    value, kind = row.values.get("prompt"), str(row.values.get("kind") or "")
    if isinstance(value, str) and value.strip():
        return WrittenPrompt([{"role": "user", "content": value}], kind, row.source)
    if isinstance(value, list) and value and all(map(_is_turn, value)):
        turns: list[Message] = [{"role": t["role"], "content": t["content"]} for t in value]
        if turns[-1]["role"] == "user":
            return WrittenPrompt(turns, kind, row.source)
    said = "no text" if isinstance(value, str) else kind_of(value)
    problems.add(f"{row.source}: prompt is {said}; a prompt to answer is needed.")
    return None


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), str) for key in ("role", "content")
    )
