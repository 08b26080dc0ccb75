"""Numbers and other people's text, made readable and harmless to a terminal."""

from __future__ import annotations

import textwrap


def format_bytes(count: float) -> str:
    """Return a size in decimal units: 5.4 GB is 5.4e9 bytes."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * size:
            return (
                f"{count / size:.3g} {unit}"
                if count < 999.5 * size
                else f"{count / size:.0f} {unit}"
            )
    return f"{count:.0f} B"


def format_count(count: float) -> str:
    """Return a large number briefly: 1.24 B, 7.6 M, 12.3 k."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e4)):
        if count >= size:
            return f"{count / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{count:.0f}"


def format_duration(seconds: float) -> str:
    """Return a time as people say it: 8.5 s, 45 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def visible(text: str) -> str:
    """Return the text with control characters written out, so that none reaches a terminal."""
    return "".join(
        character if character in "\n\t" or not _is_control(character) else ascii(character)[1:-1]
        for character in text
    ).expandtabs(4)


def _is_control(character: str) -> bool:
    # C0, DEL, C1, direction overrides (they reorder a line), lone surrogates (no encoding).
    code = ord(character)
    return (
        code < 32
        or 127 <= code < 160
        or 0x202A <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
        or 0xD800 <= code <= 0xDFFF
    )


def excerpt(label: str, text: str, width: int, max_lines: int, keep_end: bool) -> list[str]:
    """Return a labelled block of wrapped text, cut to a few lines at one end."""
    room = max(20, width - 13)
    lines = [
        part
        for line in visible(text).strip("\n").split("\n")
        for part in textwrap.wrap(line, room) or [""]
    ]
    if len(lines) > max_lines:
        lines = ["...", *lines[1 - max_lines :]] if keep_end else [*lines[: max_lines - 1], "..."]
    labels = [label, *[""] * len(lines)]
    return [f"  {name:<9}| {line}".rstrip() for name, line in zip(labels, lines, strict=False)]


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: 1 pair, 2 pairs."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
