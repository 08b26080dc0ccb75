"""Prompts and plain text that have nothing to do with a run's data: what drift is measured on.

Both were written for this project: 60 prompts of ten kinds in `neutral/prompts.jsonl`, the kinds in
turn, and twelve paragraphs of English in `neutral/plain.txt`. A user's own prompts take their place
where theirs are what must not be forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orpo_mlx.data.prompts import WrittenPrompt, read_prompt_file
from orpo_mlx.errors import DataError

_FOLDER = Path(__file__).parent / "neutral"
FEWEST = 5
"""Prompts below which a mean over them says nothing."""


def shipped_prompts() -> list[WrittenPrompt]:
    """Return the shipped prompts, their kinds in turn."""
    lines = (_FOLDER / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        WrittenPrompt([{"role": "user", "content": row["prompt"]}], row["kind"], f"prompt {i}")
        for i, row in enumerate(rows, start=1)
    ]


def plain_paragraphs() -> list[str]:
    """Return the shipped plain text, by paragraphs."""
    text = (_FOLDER / "plain.txt").read_text(encoding="utf-8")
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def read_prompts(name: str) -> list[WrittenPrompt]:
    """Read a user's prompts.

    Args:
        name: a text file with a prompt a line, or data of any kind whose rows have a `prompt`
            (text, or turns that end with the user's) and perhaps a `kind`.

    Raises:
        DataError: it cannot be read, a row has no such prompt, or there are too few.
    """
    found = read_prompt_file(name, "--drift-data")
    if len(found) < FEWEST:
        raise DataError(
            f"--drift-data {name}: {len(found)} prompts; at least {FEWEST} are needed.",
            "Add prompts, or leave out --drift-data to take the shipped ones.",
        )
    return found


def draw_prompts(prompts: Sequence[WrittenPrompt], count: int, seed: int) -> list[WrittenPrompt]:
    """Draw prompts by a seed, all if there are no more; their order stays."""
    if count >= len(prompts):
        return list(prompts)
    random = np.random.Generator(np.random.PCG64(seed))
    return [prompts[i] for i in np.sort(random.choice(len(prompts), count, replace=False))]
