"""Where the ticks of an axis stand and what they say; pure, shared by terminal and SVG charts."""

from __future__ import annotations

import math

_NICE = (1.0, 2.0, 5.0)


def nice_step(span: float, count: int) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that divides a span in `count` or fewer.

    >>> nice_step(100, 5), nice_step(1, 4)
    (20.0, 0.5)
    """
    rough = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    # Rounding must not turn an exact 2 into a 5.
    return next((nice for n in _NICE if (nice := n * power) >= rough * (1 - 1e-9)), 10.0 * power)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers within [low, high], about `count` of them and at most one more.

    >>> nice_ticks(0.0, 1.0, 2)
    [0.0, 0.5, 1.0]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return ticks of a logarithmic axis: powers of ten, with 2 and 5 between if few fit.

    `low` must be above 0.
    """
    if low <= 0 or high <= low:
        return [low] if low > 0 else []
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = [10.0**p for p in powers if low <= 10.0**p * (1 + 1e-9) and 10.0**p <= high]
    if len(within) < 2:
        within = [n * 10.0**p for p in powers for n in _NICE if low <= n * 10.0**p <= high]
    if len(within) < 2:
        return nice_ticks(low, high, count)
    every = -(-len(within) // max(1, count + 1))
    return within[::every]


def format_tick(value: float, step: float) -> str:
    """Return a tick's label with no more decimals than its step needs.

    >>> format_tick(0.30000000000000004, 0.1), format_tick(20000, 5000), format_tick(5e-06, 5e-06)
    ('0.3', '20k', '5e-6')
    """
    if value == 0 or abs(value) < step * 1e-6:
        return "0"
    size = abs(value)
    if size >= 1e6:
        return _short(value / 1e6, step / 1e6) + "M"
    if size >= 1e4:
        return _short(value / 1e3, step / 1e3) + "k"
    if size < 1e-3:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{digits.removesuffix('.0')}e{int(power)}"
    return _short(value, step)


def _short(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:.{min(decimals, 6)}f}"


def format_value(value: float) -> str:
    """Return a number to four significant digits, as read-outs show it.

    >>> format_value(1.5), format_value(0.00005), format_value(1842.3)
    ('1.500', '5.0e-5', '1842')
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf"
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.2f}M"
    if size >= 1000 or value == 0:
        return f"{value:.0f}"
    if size < 1e-3:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{digits}e{int(power)}"
    return f"{value:.{3 - min(2, max(0, math.floor(math.log10(size))))}f}"
