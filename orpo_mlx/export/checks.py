"""What is checked in a file after it was written, and with what tolerance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PRECISION = {"float32": 1e-6, "float16": 4e-3, "bfloat16": 3e-2, "q8_0": 5e-2}
"""Largest difference of two deltas, as a share of the layer's largest entry, by number format:
a few roundings of each factor."""

_ROWS_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class ExportCheck:
    """One thing that was looked at in what was written.

    Attributes:
        name: what was compared.
        passed: whether it holds.
        value: the measured number, None where there is none.
        limit: the largest value that passes.
        text: what was found, for people.
        advice: what to do if it failed; "" if only a bug explains it.
    """

    name: str
    passed: bool
    value: float | None
    limit: float | None
    text: str
    advice: str = ""


def check_tensors(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> ExportCheck:
    """Compare names and shapes of tensors: {name: shape}."""
    missing = [name for name in wanted if name not in found]
    surplus = [name for name in found if name not in wanted]
    other = [n for n in wanted if n in found and tuple(found[n]) != tuple(wanted[n])]
    wrong = len(missing) + len(surplus) + len(other)
    text = f"{len(found)} tensors, names and shapes as they should be"
    if wrong:
        first = (missing or surplus or other)[0]
        text = (
            f"{len(missing)} tensors missing, {len(surplus)} surplus, {len(other)} of another "
            f"shape; the first is {first}"
        )
    return ExportCheck("tensors", not wrong, float(wrong), 0.0, text)


def check_finite(arrays: Iterable[tuple[str, Any]]) -> ExportCheck:
    """Look for NaN and infinity in (name, numpy array)."""
    import numpy as np

    bad = [name for name, array in arrays if not np.isfinite(array).all()]
    text = f"{len(bad)} tensors hold NaN or infinity: {bad[0]}" if bad else "all values are finite"
    advice = (
        "The number format is too narrow for these values: write --dtype float32 or bfloat16."
        if bad
        else ""
    )
    return ExportCheck("finite", not bad, float(len(bad)), 0.0, text, advice)


@dataclass(frozen=True)
class DeltaDifference:
    """How far two deltas of one layer are apart: largest difference and largest entry."""

    layer: str
    difference: float
    largest: float

    @property
    def relative(self) -> float:
        """The difference as a share of the largest entry."""
        return self.difference / self.largest if self.largest else self.difference


def compare_factors(layer: str, ours: tuple[Any, Any], theirs: tuple[Any, Any]) -> DeltaDifference:
    """Compare the products B x A of two pairs of factors, a few thousand rows at a time.

    Args:
        layer: its name, for the message.
        ours, theirs: (B, A) as numpy arrays, [O, R] and [R, I], or with a dimension of experts in
            front; scales are multiplied in already.
    """
    import numpy as np

    difference = largest = 0.0
    for (b1, a1), (b2, a2) in zip(_experts(*ours), _experts(*theirs), strict=True):
        for start in range(0, len(b1), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            one, other = b1[rows] @ a1, b2[rows] @ a2
            largest = max(largest, float(np.abs(one).max(initial=0.0)))
            difference = max(difference, float(np.abs(one - other).max(initial=0.0)))
    return DeltaDifference(layer, difference, largest)


def _experts(b: Any, a: Any) -> list[tuple[Any, Any]]:
    return [(b, a)] if b.ndim == 2 else list(zip(b, a, strict=True))


def check_delta(differences: Iterable[DeltaDifference], dtype: str) -> ExportCheck:
    """Judge the differences of all layers by what the number format allows."""
    worst = max(differences, key=lambda one: one.relative)
    limit = PRECISION[dtype]
    text = (
        f"scale x B x A of the file differs by at most {worst.difference:.2g}, "
        f"{worst.relative:.1e} of the layer's largest entry ({worst.layer}); {dtype} allows "
        f"{limit:.0e}"
        if worst.difference
        else "scale x B x A of the file is the adapter's in every layer; largest difference 0"
    )
    advice = "" if dtype == "float32" else "Write it in float32: --dtype float32."
    # NaN fails the comparison.
    return ExportCheck("delta", worst.relative <= limit, worst.relative, limit, text, advice)
