"""A course of values on one line of text; pure."""

from __future__ import annotations

import numpy as np

from tui.run.columns import Floats
from tui.shell.charset import CharsetName

_STEPS = {"braille": "▁▂▃▄▅▆▇█", "blocks": "▁▂▃▄▅▆▇█", "ascii": "_.-~=*#"}


def trend(values: Floats, width: int, charset: CharsetName = "braille") -> str:
    """Return at most `width` characters whose height follows the values; "" without any."""
    finite = values[np.isfinite(values)]
    if not len(finite) or width <= 0:
        return ""
    edges = np.linspace(0, len(finite), min(width, len(finite)) + 1).astype(int)
    means = np.add.reduceat(finite, edges[:-1]) / np.diff(edges)
    steps = _STEPS[charset]
    low, high = float(means.min()), float(means.max())
    if high - low <= 1e-12 * max(1.0, abs(high)):
        return steps[len(steps) // 2] * len(means)
    heights = ((means - low) / (high - low) * (len(steps) - 1)).round().astype(int)
    return "".join(steps[height] for height in heights)


def gauge(share: float, width: int, charset: CharsetName = "braille") -> str:
    """Return a bar filled to a share between 0 and 1."""
    full, empty = ("#", ".") if charset == "ascii" else ("▰", "▱")
    filled = round(min(1.0, max(0.0, share)) * width)
    return full * filled + empty * (width - filled)
