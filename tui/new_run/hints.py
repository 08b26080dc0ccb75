"""What someone new should know of a step before anything is chosen there; pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_WIDEST = 96
"""Longer lines are hard to read."""

MODELS_HERE = (
    "A training makes a small adapter for a model; the model's own files stay as they are. It is "
    "chosen first because the rest depends on it: how texts are cut into tokens, what memory does.",
    "Weights: how its numbers are kept; 4 bit needs about a quarter of the memory of bf16.\n"
    "Fit: whether this machine's memory suffices; estimated anew when settings change.",
    "Listed are the built-in model, those the Hub's cache and LM Studio keep, and those in the "
    "folder where the app was started. More: F2 searches the Hub, ^o opens a folder, and an id "
    "such as mlx-community/Qwen3-0.6B-4bit may be typed.",
)

MODELS_ON_HUB = (
    "The Hub (huggingface.co) is where models are published. Words such as qwen3 4bit find those "
    "in MLX format, the most used first; each row tells whether it would fit here.",
    "Searching downloads nothing. A model is fetched when its training starts or when steps are "
    "measured, and is then kept for every program that uses the Hub.",
)

DATA_HERE = (
    "A training learns from pairs: a prompt, an answer you want more of (chosen) and one you want "
    "less of (rejected). A JSON Lines file has one pair in each line:",
    '  {"prompt": "Capital of Peru?", "chosen": "Lima.", "rejected": "No idea."}',
    "Files: .jsonl, .json, .csv, also as .gz, and .parquet, or a folder of them. Chats and other "
    "usual layouts are recognized; where names of columns are unclear, F3 says which is which.",
    "From the Hub: type an id (owner/name) or words to search for, or see known datasets with F2. "
    "Nothing is downloaded before you choose.",
    "What you choose is read at once: you see its pairs, and what would hurt the training.",
)


def fitting_lines(paragraphs: Sequence[str], width: int, rows: int) -> list[str]:
    """Return as many leading paragraphs as there is room for, each after an empty line.

    Args:
        paragraphs: the most important first; one that begins with blanks is an example, which
            belongs to the one before and is never broken.
        width: columns.
        rows: lines there are.

    >>> fitting_lines(["What it is.", "  an example", "More."], 20, 4)
    ['', 'What it is.', '  an example']
    """
    lines: list[str] = []
    for text in paragraphs:
        is_example = text.startswith(" ")
        more = [text] if is_example else ["", *_wrapped(text, max(20, min(width, _WIDEST)))]
        if len(lines) + len(more) > rows or (is_example and len(text) > width):
            break
        lines += more
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    parts = [textwrap.wrap(line, width, break_on_hyphens=False) for line in text.split("\n")]
    return [line for part in parts for line in part]
