"""Short names of models and data, for tables and titles."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import unquote, urlparse

from rich.cells import cell_len, set_cell_size

from tui.shell.charset import CharsetName

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


def cut_start(text: str, width: int) -> str:
    """Return at most `width` cells of a name: its end tells it from others.

    >>> cut_start("mlx-community/Qwen3-0.6B-4bit", 18)
    '...Qwen3-0.6B-4bit'
    """
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 3:
        text = text[1:]
    return "..." + text


def cut_middle(text: str, width: int, charset: CharsetName = "braille") -> str:
    """Return a text of at most `width` columns whose middle gives way: both ends tell it apart.

    >>> cut_middle("uf-beta-0.1-seed-0", 12), cut_middle("uf-beta-0.1-seed-0", 12, "ascii")
    ('uf-be…seed-0', 'uf-b...eed-0')
    """
    if cell_len(text) <= width:
        return text
    sign = "..." if charset == "ascii" else "…"
    head = (width - len(sign)) // 2
    return text[:head] + sign + text[head + len(sign) - width :]


def plain_path(text: str) -> str:
    """Return a path as a file dragged into a terminal, or copied, may be written: its bare self.

    >>> plain_path("'/a b/c.csv' "), plain_path("file:///a%20b.csv"), plain_path(r"/a\\ b.csv")
    ('/a b/c.csv', '/a b.csv', '/a b.csv')
    """
    text = text.strip()
    if text.startswith("file://"):
        return unquote(urlparse(text).path)
    if text[:1] in ("'", '"') or ("\\" in text and not Path(text).exists()):
        try:
            words = shlex.split(text)
        except ValueError:  # a quote without its partner
            return text
        return words[0] if len(words) == 1 else text
    return text


def shortened(name: str, cells: int, charset: CharsetName = "braille") -> str:
    """Return a name cut to so many cells, its end replaced by a sign for that.

    >>> shortened("a-long-name", 8), shortened("a-long-name", 8, "ascii"), shortened("short", 8)
    ('a-long-…', 'a-lon...', 'short')
    """
    if cell_len(name) <= cells:
        return name
    sign = "..." if charset == "ascii" else "…"
    return set_cell_size(name, max(1, cells - len(sign))).rstrip() + sign
