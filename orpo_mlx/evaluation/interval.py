"""Intervals for what is measured on a sample of pairs: the bootstrap over groups; NumPy alone.

Pairs of like prompts are not independent, so whole groups are drawn, as many as there are, with
replacement; the interval is from the 2.5th to the 97.5th percentile of the values of all draws. A
difference is taken within each draw, so it is paired: what makes a pair hard for both cancels out.

Where all groups say the same, draws do not differ and their interval has no width, which is no
knowledge. A share of which this is so, such as 0 or 1, has Wilson's interval, counting groups; so
has a difference of shares, to both sides where nothing has changed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

LEVEL = 0.95
DRAWS = 2000
_Z = 1.959963984540054
_CELLS = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A number and where it lies in 95 of 100 samples like this one."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return {value, low, high}."""
        return asdict(self)


@dataclass(frozen=True)
class Sums:
    """A ratio of two sums over pairs, such as nats per token.

    Attributes:
        over: [N] what is added up above.
        under: [N] what is added up below: 1 for a mean over pairs, tokens for one over tokens.
    """

    over: np.ndarray
    under: np.ndarray

    @property
    def value(self) -> float:
        """The ratio over all pairs."""
        return float(self.over.sum() / self.under.sum())

    def where(self, chosen: np.ndarray) -> Sums:
        """Return the same for some pairs; `chosen` [N] bool."""
        return Sums(self.over[chosen], self.under[chosen])


def mean_of(values: np.ndarray) -> Sums:
    """Return the mean over pairs as sums."""
    values = np.asarray(values, np.float64)
    return Sums(values, np.ones_like(values))


class Resampling:
    """Draws of groups with replacement, the same for everything that is measured on these pairs.

    Args:
        groups: [N] which group each pair belongs to, any integers.
        seed: of the draws.
        draws: how many.

    Raises:
        ValueError: there are no pairs.
    """

    def __init__(self, groups: np.ndarray, seed: int = 0, draws: int = DRAWS) -> None:
        names, self._group = np.unique(np.asarray(groups), return_inverse=True)
        self.groups, self.draws = len(names), draws
        if not self.groups:
            raise ValueError("no pairs to draw from")
        self._seed = seed

    def ratios(self, *sums: Sums) -> np.ndarray:
        """Return the value of each in each draw, [len(sums), draws]."""
        over = np.stack([self._by_group(one.over) for one in sums], axis=1)
        under = np.stack([self._by_group(one.under) for one in sums], axis=1)
        random = np.random.Generator(np.random.PCG64(self._seed))
        chances = np.full(self.groups, 1 / self.groups)
        at_once = max(1, _CELLS // self.groups)
        parts = []
        for start in range(0, self.draws, at_once):
            count = min(at_once, self.draws - start)
            times = random.multinomial(self.groups, chances, size=count).astype(np.float64)
            parts.append((times @ over) / (times @ under))
        return np.concatenate(parts).T

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self._group, weights=values, minlength=self.groups)

    def interval(self, sums: Sums, is_share: bool = False) -> Interval:
        """Return a value with its interval; a share that is the same in all draws has Wilson's."""
        found = _between(sums.value, self.ratios(sums)[0])
        if is_share and found.low == found.high:
            return wilson(found.value, self.groups)
        return found

    def difference(
        self, before: Sums, after: Sums, is_share: bool = False
    ) -> tuple[Interval, float]:
        """Return after less before with its paired interval, and its standard error.

        Args:
            before, after: of the same pairs.
            is_share: whether both are shares; one that is the same in all draws has Wilson's.
        """
        values = self.ratios(before, after)
        moved = values[1] - values[0]
        found = _between(after.value - before.value, moved)
        if is_share and found.low == found.high:
            found = _wilson_difference(found.value, self.groups)
        return found, float(moved.std())


def _between(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def _wilson_difference(value: float, count: int) -> Interval:
    """Return a difference of shares by which each of `count` groups has moved; 0: none has."""
    found = wilson(abs(value), count)
    if value == 0:
        return Interval(value, -found.high, found.high)
    if value > 0:
        return found
    return Interval(value, -found.high, -found.low)


def wilson(share: float, count: int) -> Interval:
    """Return a share of independent trials with Wilson's interval.

    Args:
        share: between 0 and 1.
        count: trials, at least 1.

    Example:
        8 of 10: 0.8, from 0.490 to 0.943.

    Source:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    z2 = _Z * _Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))
