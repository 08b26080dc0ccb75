"""How long prompts and answers are, what a limit would do to them, and what length gives away."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

PARTS = ("prompt", "chosen", "rejected", "total")
PERCENTILES = {"p5": 5, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
BINS = 12
_POWERS = [128 << i for i in range(11)]
"""Limits that are shown, as far as there are pairs."""


class LengthTable:
    """Tokens of the prompt and both answers of each pair, before anything is cut."""

    def __init__(self) -> None:
        self._columns = {name: array("i") for name in PARTS[:3]}
        self._least = array("i")

    def add(self, prompt: int, chosen: int, rejected: int, least: int = 0) -> None:
        """Take in one pair; `least` is the shortest limit that keeps it, 0: that of its answers."""
        for column, value in zip(self._columns.values(), (prompt, chosen, rejected), strict=True):
            column.append(value)
        self._least.append(least or max(chosen, rejected) + 1)

    def __len__(self) -> int:
        return len(self._columns["prompt"])

    def column(self, part: str) -> np.ndarray:
        """Return the lengths of one of `PARTS`; total is the prompt and the longer answer."""
        if part == "total":
            return self.column("prompt") + self.answers
        return np.array(self._columns[part], dtype=np.int64)

    @property
    def answers(self) -> np.ndarray:
        """Tokens of the longer answer of each pair."""
        return np.maximum(self.column("chosen"), self.column("rejected"))

    def summary(self) -> dict[str, dict[str, Any]] | None:
        """Return percentiles, mean and histogram of each part; None without pairs.

        A percentile is a length that occurs: the shortest that at least so many do not exceed.
        Labelled answers have no rejected side.
        """
        if not len(self):
            return None
        columns = {part: self.column(part) for part in PARTS}
        return {part: _summary(column) for part, column in columns.items() if column.any()}

    def under_limits(self, limits: Iterable[int]) -> list[dict[str, int]]:
        """Return, for each longest prompt + response, how many pairs would be cut or dropped."""
        total, least = self.column("total"), np.array(self._least, dtype=np.int64)
        rows = []
        for limit in limits:
            dropped = (total > limit) & (least > limit)
            cut = (total > limit) & ~dropped
            rows.append(
                {"max_seq_length": limit, "cut": int(cut.sum()), "dropped": int(dropped.sum())}
            )
        return rows

    def bias(self) -> LengthBias | None:
        """Return what the lengths of the answers say about the preference; None without pairs."""
        if not len(self):
            return None
        chosen, rejected = self.column("chosen"), self.column("rejected")
        longer, equal = float((chosen > rejected).mean()), float((chosen == rejected).mean())
        factors = chosen / np.maximum(rejected, 1)
        return LengthBias(longer, equal, float(np.median(factors)))


@dataclass(frozen=True)
class LengthBias:
    """Whether the preferred answer is the longer one.

    Attributes:
        chosen_longer, equal: shares of the pairs.
        factor: median of chosen / rejected in tokens.
    """

    chosen_longer: float
    equal: float
    factor: float

    @property
    def accuracy(self) -> float:
        """Share of pairs that a rule ordering by length alone gets right; a tie is a coin."""
        longer = self.chosen_longer + self.equal / 2
        return max(longer, 1 - longer)


def usual_limits(longest: int, limit: int) -> list[int]:
    """Return the lengths to show: powers of two up to the longest pair, and the one in use."""
    powers = itertools.takewhile(lambda size: size < 2 * longest, _POWERS)
    return sorted({limit, *powers})


def least_matters(lengths: tuple[int, int, int], frame: int, limit: int) -> bool:
    """Return whether a limit to show may leave no room for the frame of a prompt beside answers.

    Args:
        lengths: tokens of prompt, chosen and rejected.
        frame: tokens of the template around a prompt, at most.
        limit: in use.
    """
    answers = max(lengths[1:])
    end = min(lengths[0], frame) + answers
    return any(answers < size < end for size in (limit, *_POWERS))


def _summary(values: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: int(np.percentile(values, q, method="inverted_cdf"))
        for name, q in PERCENTILES.items()
    }
    edges = _edges(int(values.min()), found["p99"], found["max"])
    counts, _ = np.histogram(values, bins=edges)
    found["mean"] = float(values.mean())
    found["histogram"] = {"edges": edges, "counts": counts.tolist()}
    return found


def _edges(least: int, most: int, longest: int) -> list[int]:
    """Return round edges of equal bins for nearly all lengths; the last bin holds the rest."""
    width = _round_up(max(1, -(-(most - least) // BINS)))
    edges = list(range(least // width * width, most + 1, width))
    edges.append(edges[-1] + width)
    if longest >= edges[-1]:
        edges.append(longest + 1)
    return edges


def _round_up(value: int) -> int:
    """Return the next number of the form 1, 2, 5, 10, 20, 50, ..."""
    unit = 1
    while True:
        for step in (1, 2, 5):
            if step * unit >= value:
                return step * unit
        unit *= 10
