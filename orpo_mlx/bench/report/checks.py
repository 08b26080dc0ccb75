"""Checks with a number each."""

from __future__ import annotations

from collections.abc import Sequence

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.report.cells import Lines, folded, mark, table, value_text
from orpo_mlx.bench.suite import row_name


def iter_checks(rows: Sequence[Row], _: Row) -> Lines:
    """Checks with a number: those that failed in sight, all folded."""
    if not rows:
        return
    failed = [row for row in rows if row["passed"] is False]
    yield f"{len(rows) - len(failed)} of {len(rows)} passed."
    yield ""
    cells = [[row_name(row), value_text(row), row.get("text", ""), mark(row)] for row in rows]
    head = ("check", "value (limit)", "what it is", "right")
    if len(rows) <= _SHOWN:
        yield from table(head, cells)
        return
    if failed:
        yield from table(head, [cell for cell in cells if cell[-1] == mark(failed[0])])
        yield ""
    yield from folded(f"All {len(rows)}", table(head, cells))


_SHOWN = 6
"""Rows that need not be folded."""
