"""In short: what is wrong, and what matters most."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.report.cells import Lines
from orpo_mlx.bench.steps.comparison import Compared, compare_rows, drift
from orpo_mlx.bench.steps.course import PLAIN
from orpo_mlx.bench.steps.peer import NAME as PEER
from orpo_mlx.bench.suite import failures
from orpo_mlx.text.formatting import counted, format_bytes


def iter_summary(result: Row) -> Lines:
    """Yield lines, what is wrong first."""
    parts = {part["name"]: part for part in result["parts"]}
    if wrong := failures(result):
        yield f"**Not right: {'; '.join(wrong)}.**"
    yield _counted_checks(result)
    for row in _rows(parts, "resume"):
        word = "the same adapter in every byte" if row["passed"] else "**another adapter**"
        yield f"{row['name']}: {word}."
    yield from _products_summary(_rows(parts, "products"))
    yield from _attention_summary(_rows(parts, "attention"))
    steps = compare_rows(_rows(parts, "steps"))
    for way in (PLAIN, PEER):
        yield from _factors(way, [one for one in steps if one.row["way"] == way])
    yield from _estimates([one.row for one in steps])
    yield from _drift(_rows(parts, "steps"))
    missed = [part for part in result["parts"] if part["status"] not in ("done", "failed")]
    if missed:
        named = "; ".join(f"{part['title']} ({part['reason']})" for part in missed)
        yield f"Not measured to the end: {named}."


def _counted_checks(result: Row) -> str:
    judged = {
        part["name"]: [row["passed"] for row in part["rows"] if row.get("passed") is not None]
        for part in result["parts"]
    }
    every = [passed for found in judged.values() for passed in found]
    named = ", ".join(f"{name} {len(found)}" for name, found in judged.items() if found)
    return f"{sum(every)} of {counted(len(every), 'check')} passed ({named})."


def _rows(parts: dict[str, Row], name: str) -> list[Row]:
    return parts[name]["rows"] if name in parts else []


def _products_summary(rows: Sequence[Row]) -> Lines:
    for row in rows:
        if row.get("kind") == "exactness" and row["variable"] == "1":
            how = "exact" if row["is_exact"] else "rounded to TF32"
            yield (
                f"With `--float32 fast` products of float32 are {how} (relative error "
                f"{row['error']:.0e}); trainings compute exact ones unless asked."
            )


def _attention_summary(rows: Sequence[Row]) -> Lines:
    measured = [row for row in rows if "causal" in row]
    if measured:
        largest = max(measured, key=lambda row: row["queries"] * row["keys"])
        yield (
            f"Attention forward and backward, {largest['queries']} queries over "
            f"{largest['keys']} keys: {format_bytes(largest['causal']['bytes'])} with "
            f'mask="causal", {format_bytes(largest["array"]["bytes"])} with an array as mask.'
        )


def _factors(way: str, found: Sequence[Compared]) -> Lines:
    measured = [one for one in found if one.time]
    if measured:
        yield (
            f"{way} takes {_range(statistics.median(one.time) for one in measured)} the time and "
            f"{_range(statistics.median(one.memory) for one in measured)} the memory of the "
            f"default ({counted(len(measured), 'comparison')})."
        )


def _estimates(steps: Sequence[Row]) -> Lines:
    shares = [
        row["peak_memory_bytes"] / row["estimated_bytes"]
        for row in steps if row.get("estimated_bytes")
    ]  # fmt: skip
    if shares:
        low, high = (round(100 * share) for share in (min(shares), max(shares)))
        word = "" if high <= 100 else ": **the estimate was too low**"
        yield f"Memory peaks were {low} to {high} % of what had been estimated{word}."


def _drift(steps: Sequence[Row]) -> Lines:
    ratio, count = drift(steps)
    if count:
        yield (
            f"Measured again in reverse order, {counted(count, 'case')} took {ratio:.2f}x the "
            "time (median): smaller differences than that mean nothing."
        )


def _range(values: Iterable[float]) -> str:
    found = sorted(values)
    low, high = (f"{value:.2g}x" for value in (found[0], found[-1]))
    return low if low == high else f"{low} to {high}"
