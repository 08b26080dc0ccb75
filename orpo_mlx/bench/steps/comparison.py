"""Steps measured in one round or two, beside the default of the same model and workload."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.steps.course import DEFAULT


@dataclass(frozen=True)
class Compared:
    """One way on one model and workload.

    Attributes:
        row: of its first round; only that may have a "problem".
        seconds: a pair: the median of its rounds' medians, the least and the most of all steps.
        steps: measured.
        time, memory: as multiples of the default's, one of each round; empty for the default.
    """

    row: Row
    seconds: tuple[float, float, float]
    steps: int
    time: tuple[float, ...] = ()
    memory: tuple[float, ...] = ()


def compare_rows(rows: Sequence[Row]) -> list[Compared]:
    """Return each way once, in the order of the first round."""
    steps = [row for row in rows if "way" in row]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in steps:
        groups.setdefault((row["model"], row["workload"], row["way"]), []).append(row)
    return [_compared(group, steps) for group in groups.values()]


def drift(rows: Iterable[Row]) -> tuple[float, int]:
    """Return how many times as long the same steps took in the second round, as the median of the
    cases that had one, and how many; 1 and 0 without any."""
    rounds: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if "seconds_per_pair" in row:
            key = (row["model"], row["workload"], row["way"])
            rounds.setdefault(key, []).append(row["seconds_per_pair"])
    ratios = [found[1] / found[0] for found in rounds.values() if len(found) > 1 and found[0]]
    return (statistics.median(ratios), len(ratios)) if ratios else (1.0, 0)


def _compared(group: Sequence[Row], steps: Sequence[Row]) -> Compared:
    measured = [row for row in group if "problem" not in row]
    if not measured:
        return Compared(group[0], (0.0, 0.0, 0.0), 0)
    middle = statistics.median(row["seconds_per_pair"] for row in measured)
    low, high = min(row["low"] for row in measured), max(row["high"] for row in measured)
    count = sum(row["steps"] for row in measured)
    pairs = [(row, base) for row in measured if (base := _base(row, steps)) is not None]
    return Compared(
        measured[0],
        (middle, low, high),
        count,
        tuple(row["seconds_per_pair"] / base["seconds_per_pair"] for row, base in pairs),
        tuple(row["peak_memory_bytes"] / base["peak_memory_bytes"] for row, base in pairs),
    )


def _base(row: Row, steps: Sequence[Row]) -> Row | None:
    """Return the default of the same round that another way is compared with, if there is one."""
    if row["way"] == DEFAULT:
        return None
    keys = ("model", "workload", "round")
    for one in steps:
        if one["way"] == DEFAULT and all(one[key] == row[key] for key in keys):
            is_whole = one.get("seconds_per_pair") and one["peak_memory_bytes"]
            return one if is_whole else None
    return None
