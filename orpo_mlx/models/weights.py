"""Weights from outside, brought in: right names and shapes, every value finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from orpo_mlx.errors import AdapterError, OrpoError
from orpo_mlx.storage.safetensors import (
    ADAPTER_DTYPES,
    MAX_ADAPTER_BYTES,
    MODEL_DTYPES,
    Shape,
    check_expected,
    check_safetensors,
)


def load_checked(
    path: Path,
    expected: Mapping[str, Shape],
    within: Path,
    max_bytes: int | None = MAX_ADAPTER_BYTES,
    *,
    any_dtype: bool = False,
) -> dict[str, mx.array]:
    """Load a file that must hold exactly the expected tensors, all finite.

    Args:
        path: a safetensors file of adapter weights or optimizer state.
        expected: names and shapes; no tensor may be missing or left over.
        within: the folder the file must lie in.
        max_bytes: the largest size allowed.
        any_dtype: allow integers too, as in an optimizer's step count.

    Returns:
        The arrays by name, evaluated, in the file's number format.

    Raises:
        AdapterError: the file is unsound, a name or shape differs, or a value is NaN or infinite.
    """
    dtypes = MODEL_DTYPES if any_dtype else ADAPTER_DTYPES
    tensors = check_safetensors(path, within, max_bytes, dtypes=dtypes)
    check_expected(path, {name: shape for name, (_, shape) in tensors.items()}, expected)
    import mlx.core as mx

    arrays: Any = mx.load(str(path))
    # Read now: a lazy array would show the bytes of whatever file has this name later.
    mx.eval(arrays)
    check_finite(path, arrays)
    return {name: arrays[name] for name in expected}


def check_finite(
    path: Path, arrays: Mapping[str, mx.array], error: type[OrpoError] = AdapterError
) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        AdapterError (or `error`): naming the first such tensor and how many of its values are not
            finite.
    """
    import mlx.core as mx

    sound = {name: mx.isfinite(array).all() for name, array in arrays.items()}
    mx.eval(sound)
    bad = [name for name, finite in sound.items() if not finite.item()]
    if bad:
        array = arrays[bad[0]]
        count = mx.logical_not(mx.isfinite(array)).sum().item()
        raise error(
            f"{path}: tensor {bad[0]} holds {count} values that are NaN or infinite, of "
            f"{array.size} ({len(bad)} of {len(arrays)} tensors are affected).",
            "These weights come from a run that broke down: use an earlier checkpoint."
            if error is AdapterError
            else "Download the model again, or take another one: no training can begin from these.",
        )
