"""One thing that `orpo-mlx verify` looks at: what was measured, and what passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from orpo_mlx.errors import describe
from orpo_mlx.models.precision import EXACT_PRODUCT

EXACT = 1e-5
"""Largest relative difference of numbers that come from the same logits."""


@dataclass(frozen=True)
class Limits:
    """How far numbers may lie apart that differ by the order of additions alone.

    Attributes:
        scores: relative difference of log-probs and losses.
        gradient: relative difference of a parameter's gradient, by norm.
        why: the precision these limits are for.
    """

    scores: float
    gradient: float
    why: str


FULL_PRECISION = Limits(EXACT, EXACT, "float32")
HALF_PRECISION = Limits(2e-2, 1e-1, "half precision")
"""Half precision keeps 8 to 11 bits, so another order of additions gives another number."""


def limits_of(product_error: float, is_full_precision: bool) -> Limits:
    """Return the limits for a model on a device.

    Args:
        product_error: relative error of a float32 product, measured. Rounded factors act as half
            precision does, by the size of their error; limits stay within a factor of its own.
        is_full_precision: whether the model is in float32.
    """
    if not is_full_precision:
        return HALF_PRECISION
    if product_error <= EXACT_PRODUCT:
        return FULL_PRECISION
    why = f"float32 with products to {product_error:.0e}"
    return Limits(20 * product_error, 100 * product_error, why)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        value: what was measured; None where nothing could be.
        limit: the largest value that passes.
        note: what the number is, or why there is none.
    """

    name: str
    passed: bool
    value: float | None
    limit: float
    note: str = ""


def measured(name: str, limit: float, note: str, measure: Callable[[], float]) -> Check:
    """Compare a measurement with its limit; one that breaks off is a failed check."""
    try:
        value = float(measure())
    except Exception as error:  # whatever the model or the device objects to is the finding
        return Check(name, False, None, limit, describe(error))
    if not math.isfinite(value):
        return Check(name, False, None, limit, f"{note}: not a finite number")
    return Check(name, value <= limit, value, limit, note)
