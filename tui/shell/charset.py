"""The sets of characters a terminal can draw with, by name."""

from __future__ import annotations

from typing import Literal, get_args

CharsetName = Literal["braille", "blocks", "ascii"]
CHARSET_NAMES: tuple[CharsetName, ...] = get_args(CharsetName)
