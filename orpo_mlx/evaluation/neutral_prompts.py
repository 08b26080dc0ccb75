"""Prompts and plain text that have nothing to do with a run's data: what drift is measured on.

Both were written for this project: 60 prompts of ten kinds in `neutral/prompts.jsonl`, the kinds in
turn, and twelve paragraphs of English in `neutral/plain.txt`. A user's own prompts take their place
where theirs are what must not be forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orpo_mlx.data.sources.files import require_file
from orpo_mlx.data.sources.rows import Problems, Row, kind_of
from orpo_mlx.data.sources.source import read_rows
from orpo_mlx.data.types import Message
from orpo_mlx.errors import DataError

_FOLDER = Path(__file__).parent / "neutral"
FEWEST = 5
"""Prompts below which a mean over them says nothing."""


@dataclass(frozen=True)
class NeutralPrompt:
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


def shipped_prompts() -> list[NeutralPrompt]:
    """Return the shipped prompts, their kinds in turn."""
    lines = (_FOLDER / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        NeutralPrompt([{"role": "user", "content": row["prompt"]}], row["kind"], f"prompt {i}")
        for i, row in enumerate(rows, start=1)
    ]


def plain_paragraphs() -> list[str]:
    """Return the shipped plain text, by paragraphs."""
    text = (_FOLDER / "plain.txt").read_text(encoding="utf-8")
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def read_prompts(name: str) -> list[NeutralPrompt]:
    """Read a user's prompts.

    Args:
        name: a text file with a prompt a line, or data of any kind whose rows have a `prompt`
            (text, or turns that end with the user's) and perhaps a `kind`.

    Raises:
        DataError: it cannot be read, a row has no such prompt, or there are too few.
    """
    if name.lower().endswith(".txt"):
        found = _read_lines(name)
    else:
        problems = Problems("Each row needs a prompt: text, or turns that end with the user's.")
        found = [p for row in read_rows(name) if (p := _prompt_of(row, problems)) is not None]
        problems.raise_any("rows")
    if len(found) < FEWEST:
        raise DataError(
            f"--drift-data {name}: {len(found)} prompts; at least {FEWEST} are needed.",
            "Add prompts, or leave out --drift-data to take the shipped ones.",
        )
    return found


def _read_lines(name: str) -> list[NeutralPrompt]:
    path = require_file(name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"--drift-data {name}: is not UTF-8 text.", "Save it as UTF-8.") from None
    return [
        NeutralPrompt([{"role": "user", "content": line.strip()}], "", f"{path.name}:{i}")
        for i, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _prompt_of(row: Row, problems: Problems) -> NeutralPrompt | None:
    value, kind = row.values.get("prompt"), str(row.values.get("kind") or "")
    if isinstance(value, str) and value.strip():
        return NeutralPrompt([{"role": "user", "content": value}], kind, row.source)
    if isinstance(value, list) and value and all(map(_is_turn, value)):
        turns: list[Message] = [{"role": t["role"], "content": t["content"]} for t in value]
        if turns[-1]["role"] == "user":
            return NeutralPrompt(turns, kind, row.source)
    said = "no text" if isinstance(value, str) else kind_of(value)
    problems.add(f"{row.source}: prompt is {said}; a prompt to answer is needed.")
    return None


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), str) for key in ("role", "content")
    )


def draw_prompts(prompts: Sequence[NeutralPrompt], count: int, seed: int) -> list[NeutralPrompt]:
    """Draw prompts by a seed, all if there are no more; their order stays."""
    if count >= len(prompts):
        return list(prompts)
    random = np.random.Generator(np.random.PCG64(seed))
    return [prompts[i] for i in np.sort(random.choice(len(prompts), count, replace=False))]
