"""Tables and what stands in their cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from orpo_mlx.bench.process import Row

Lines = Iterator[str]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """Yield the lines of a table."""
    for row in (head, ["---"] * len(head), *rows):
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        yield "| " + " | ".join(cells) + " |"


def folded(title: str, lines: Lines) -> Lines:
    """Yield lines that a reader sees after a click on the title."""
    yield f"<details><summary>{title}</summary>"
    yield ""
    yield from lines
    yield ""
    yield "</details>"


def mark(row: Row) -> str:
    """Return whether a row is right, "" where that is not asked."""
    return {True: "ok", False: "**FAILED**"}.get(row.get("passed"), "")  # type: ignore[arg-type]


def time_text(seconds: float) -> str:
    """Return seconds with three digits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def number_text(row: Row, key: str) -> str:
    """Return a difference, "" if a row has none."""
    return f"{row[key]:.1e}".replace("0.0e+00", "0") if key in row else ""


def value_text(row: Row) -> str:
    """Return what a check measured, and its limit."""
    value = row.get("value")
    return "" if value is None else f"{value:.1e} ({row['limit']:g})".replace("0.0e+00", "0")
