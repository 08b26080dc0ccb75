"""Numbers and other people's text, made readable and harmless to a terminal."""

from __future__ import annotations

import re
import textwrap

from orpo_mlx.text.redaction import redacted


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


def format_moment(seconds: float) -> str:
    """Return a short time, below a second in milliseconds: 0.4 ms, 12 ms, 1.2 s."""
    if seconds >= 0.9995:
        return format_duration(seconds)
    milliseconds = seconds * 1e3
    return f"{milliseconds:.1f} ms" if 0 < milliseconds < 9.95 else f"{milliseconds:.0f} ms"


_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they reorder a line
    "\ud800-\udfff]"  # no encoding has them
)


def visible(text: str) -> str:
    """Return the text with control characters written out, so that none reaches a terminal."""
    return written_out(text).expandtabs(4)


def written_out(text: str) -> str:
    """Return the text with control characters but tab and line feed as their escapes.

    Those that JSON and TOML leave as they are become escapes of theirs: the value stays the same.
    Access tokens are masked.
    """
    return _CONTROLS.sub(_escape, redacted(text))


def without_controls(text: str) -> str:
    """Return what is shown in the same number of columns, control characters left out."""
    text = redacted(text)
    return text if text.isprintable() else re.sub(r"[\t\n]", "", _CONTROLS.sub("", text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return ascii(found[0])[1:-1] if code < 32 else f"\\u{code:04x}"


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


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: 1 pair, 2 pairs."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
