"""What a line of text is made of where its pieces are styled one by one."""

from __future__ import annotations

Piece = tuple[str, str]
"""(component class without its prefix, text)."""

TextLine = tuple[Piece, ...]
