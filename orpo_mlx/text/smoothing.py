"""Smoothed curves; shared by terminal and SVG charts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def smooth(values: Floats, weight: float) -> Floats:
    """Return the debiased exponential moving average; NaN stays NaN and is passed over.

    Args:
        values: in order.
        weight: of the past, 0 (none) to below 1.
    """
    if weight <= 0 or not len(values):
        return values.copy()
    result = np.full(len(values), np.nan)
    finite = np.flatnonzero(np.isfinite(values))
    result[finite] = _average(values[finite], weight)
    return result


def _average(values: Floats, weight: float) -> Floats:
    # In blocks short enough that weight**-k stays a float: no loop per point.
    size = max(1, int(200 / -math.log(weight)))
    result = np.empty(len(values))
    carried = 0.0
    for start in range(0, len(values), size):
        block = values[start : start + size]
        powers = weight ** np.arange(1, len(block) + 1)
        sums = powers * (carried + np.cumsum((1 - weight) * block / powers))
        result[start : start + size] = sums
        carried = sums[-1]
    return result / (1 - weight ** np.arange(1, len(values) + 1))
