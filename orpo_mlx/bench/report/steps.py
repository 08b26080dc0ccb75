"""The table of steps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.report.cells import Lines, table
from orpo_mlx.bench.report.checks import iter_checks
from orpo_mlx.bench.steps.comparison import Compared, compare_rows
from orpo_mlx.bench.steps.course import DEFAULT
from orpo_mlx.text.formatting import counted, format_bytes


def iter_steps_section(rows: Sequence[Row], about: Row) -> Lines:
    """Yield how the steps were measured, their table, and the check that all did the same."""
    is_gpu = about.get("device") == "GPU"
    unit = "s" if is_gpu else "CPU s"
    clock = "wall time" if is_gpu else "user CPU time of all threads"
    yield (
        f"- **{unit}/pair**: {clock} of a step by its pairs, the median, and in brackets the range "
        "over all steps; the first step of a process is left out."
    )
    yield (
        "- **workload**: random tokens with the lengths of HH-RLHF (hh), UltraFeedback (uf), "
        "questions with passages (rag); every step has the same pairs. LoRA of rank 8 on all "
        "linear layers."
    )
    yield (
        "- **way**: *default* is what `orpo-mlx train` does; *plain* computes both rows of a pair "
        "in full, with all logits. Each is a process of its own."
    )
    yield (
        "- **share**: what the work that no trainer can avoid takes at MLX's own rate for "
        "products, as a share of the time. **peak** and **of estimate**: of MLX's memory."
    )
    yield ""
    head = ("model", "workload", "way", "pairs", f"{unit}/pair", "steps", "peak", "of estimate",
            "share", "time / default's", "memory / default's")  # fmt: skip
    yield from table(head, map(_step_cells, compare_rows(rows)))
    yield ""
    yield from iter_checks([row for row in rows if row.get("kind") == "check"], about)


def _step_cells(one: Compared) -> list[str]:
    row = one.row
    how = [row["scoring"]] if row["way"] == DEFAULT and "scoring" in row else []
    if every := row.get("grad_checkpoint_every"):
        how.append(f"1 of {counted(every, 'block')} recomputed")
    if number := row.get("versions", {}).get(row["way"]):
        how.append(number)
    way = row["way"] + (f" ({', '.join(how)})" if how else "")
    first = [row["model"], row["workload"], way, str(row.get("pairs", ""))]
    if "problem" in row:
        return [*first, f"not measured: {row['problem']}", *[""] * 6]
    middle, low, high = one.seconds
    estimated, share = row.get("estimated_bytes"), row.get("share_of_rate")
    return [
        *first,
        f"{middle:.3g} ({low:.3g}-{high:.3g})",
        str(one.steps),
        format_bytes(row["peak_memory_bytes"]),
        f"{100 * row['peak_memory_bytes'] / estimated:.0f} %" if estimated else "",
        f"{100 * share:.0f} %" if share else "",
        _multiple(one.time),
        _multiple(one.memory),
    ]


def _multiple(ratios: Sequence[float]) -> str:
    """Return a multiple, with its range where rounds differ: 2.47x (2.41-2.53)."""
    if not ratios:
        return ""
    low, high = (f"{value:.2f}" for value in (min(ratios), max(ratios)))
    return f"{statistics.median(ratios):.2f}x" + (f" ({low}-{high})" if low != high else "")
