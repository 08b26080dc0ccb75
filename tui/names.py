"""Short names of models and data, for tables and titles."""

from __future__ import annotations

from pathlib import Path

from rich.cells import cell_len, set_cell_size

from tui.cells import CharsetName

BUILT_IN = "built-in demo"


def short_name(place: str) -> str:
    """Return a path's or a Hub id's last part; what comes with the program goes by its own name.

    >>> short_name("mlx-community/Qwen3-0.6B-4bit"), short_name("/x/orpo_mlx/demo/train.jsonl")
    ('Qwen3-0.6B-4bit', 'built-in demo')
    """
    path = Path(place)
    # By its parts, not by its place: a run may be older than this installation.
    return BUILT_IN if path.parts[-3:-1] == ("orpo_mlx", "demo") else path.name


def place_text(place: str) -> str:
    """Return a path or Hub id as it stands, or that it came with the program."""
    name = short_name(place)
    return name if name == BUILT_IN else place


def shortened(name: str, cells: int, charset: CharsetName = "braille") -> str:
    """Return a name cut to so many cells, its end replaced by a sign for that.

    >>> shortened("a-long-name", 8), shortened("a-long-name", 8, "ascii"), shortened("short", 8)
    ('a-long-…', 'a-lon...', 'short')
    """
    if cell_len(name) <= cells:
        return name
    sign = "..." if charset == "ascii" else "…"
    return set_cell_size(name, max(1, cells - len(sign))).rstrip() + sign
