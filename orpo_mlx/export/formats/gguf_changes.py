"""What an adapter does to the tensors of a GGUF: which, in which order of rows, in which type."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import gguf
import numpy as np

from orpo_mlx.errors import ExportError
from orpo_mlx.export.checks import ExportCheck
from orpo_mlx.export.formats.gguf_base import BaseGguf
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.source import AdaptedLayer, AdapterSource
from orpo_mlx.text.formatting import counted

Type = gguf.GGMLQuantizationType

TYPES = {"float32": Type.F32, "float16": Type.F16, "bfloat16": Type.BF16, "q8_0": Type.Q8_0}
ROUNDING = {Type.F32: 1e-6, Type.F16: 6e-4, Type.BF16: 4e-3, Type.Q8_0: 5e-3}
"""Largest rounding of a weight, as a share of the tensor's largest, by type: half a step."""
_ROWS_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class Change:
    """What the adapter does to one tensor of the file.

    Attributes:
        name: of the tensor.
        type: it is written in.
        b, a: factors in the file's order, scale multiplied in; B [O, R], A [R, I], experts in
            front.
        m: DoRA's magnitude [O] in the file's order, else None.
    """

    name: str
    layer: AdaptedLayer
    type: Type
    b: np.ndarray
    a: np.ndarray
    m: np.ndarray | None

    def delta(self, rows: slice) -> np.ndarray:
        """Return scale x B x A of some rows, the dimension of experts joined with the rows."""
        if self.b.ndim == 2:
            return self.b[rows] @ self.a
        outputs = self.b.shape[1]
        expert, start = divmod(rows.start, outputs)  # `row_slices` never crosses experts
        return self.b[expert, start : start + rows.stop - rows.start] @ self.a[expert]

    def merged(self, base: BaseGguf, rows: slice) -> np.ndarray:
        """Return the tuned weight of some rows in float32, exactly."""
        return self.tuned(base.rows(self.name, rows), rows)

    def tuned(self, weight: np.ndarray, rows: slice) -> np.ndarray:
        """Return what the adapter makes of the base's weight of some rows, in the file's order."""
        weight = weight + self.delta(rows)
        if self.m is None:
            return weight
        return weight * (self.m[rows] / np.linalg.norm(weight, axis=1))[:, None]

    def row_slices(self) -> Iterator[slice]:
        """Yield slices over all rows, each within one expert."""
        outputs = self.b.shape[-2]
        experts = 1 if self.b.ndim == 2 else len(self.b)
        for first in range(0, experts * outputs, outputs):
            for start in range(first, first + outputs, _ROWS_AT_ONCE):
                yield slice(start, min(start + _ROWS_AT_ONCE, first + outputs))


def plan_changes(source: AdapterSource, base: BaseGguf, dtype: str) -> dict[str, Change]:
    """Return what happens to which tensor.

    Raises:
        ExportError: a layer has no tensor in the file, or one of another shape.
    """
    changes = {}
    for layer in source.layers:
        for name in _tensor_names(source, base, layer):
            change = _change(source, base, layer, name, dtype)
            changes[name] = change
    return changes


def _tensor_names(source: AdapterSource, base: BaseGguf, layer: AdaptedLayer) -> list[str]:
    name = source.base.architecture.gguf_name(layer.path)
    if name is None or name not in base.tensors:
        raise ExportError(
            f"{base.path}: has no tensor for {layer.path}"
            f"{f' (it would be {name})' if name else ''}; nothing was written.",
            "Take a GGUF as llama.cpp's converter makes it by default (without --fuse-qkv).",
        )
    # mlx-lm applies a tied embedding's adapter on both ends; some files keep the output apart.
    is_both = layer.kind == "embedding" and source.base.is_tied
    return [name, "output.weight"] if is_both and "output.weight" in base.tensors else [name]


def _change(
    source: AdapterSource, base: BaseGguf, layer: AdaptedLayer, name: str, dtype: str
) -> Change:
    b, a = layer.factors(source.spec.scale)
    shape = (*b.shape[:-1], a.shape[-1])
    if base.shape(name) != shape:
        raise ExportError(
            f"{base.path}: {name} is {list(base.shape(name))}; the adapter of {layer.path} is for "
            f"{list(shape)}. Nothing was written.",
            f"Give a GGUF of {source.base.original_id()[0]} with --base-gguf.",
        )
    order = source.base.architecture.order(layer.path, source.base.text_config, b.shape[-2])
    m = layer.m
    if order.rows is not None:
        b, m = b[..., order.rows, :], None if m is None else m[order.rows]
    if order.columns is not None:
        a = a[..., order.columns]
    return Change(name, layer, _written_type(base, name, dtype), b, a, m)


def _written_type(base: BaseGguf, name: str, dtype: str) -> Type:
    """Return the type asked for, or the base's, Q8_0 in place of coarser ones."""
    own = base.tensors[name].tensor_type
    kept = own if own in ROUNDING else Type.Q8_0
    wanted = kept if dtype == "keep" else TYPES[dtype]
    fits = wanted != Type.Q8_0 or base.shape(name)[-1] % 32 == 0
    return wanted if fits else Type.F16


def size_of(base: BaseGguf, changes: dict[str, Change]) -> int:
    """Return the bytes of the file to be written, a little more than it will have."""
    tensors = sum(int(tensor.n_bytes) for tensor in base.tensors.values())
    header = base.path.stat().st_size - tensors
    kept = sum(int(base.tensors[n].n_bytes) for n in base.tensors if n not in changes)
    return header + kept + sum(bytes_of(change, base) for change in changes.values())


def bytes_of(change: Change, base: BaseGguf) -> int:
    return int(np.prod(gguf.quant_shape_to_byte_shape(base.shape(change.name), change.type)))


# Checks


def check_changes(
    found: BaseGguf,
    base: BaseGguf,
    changes: dict[str, Change],
    say: ExportListener,
) -> ExportCheck:
    """Compare the tuned tensors with base + scale x B x A; the worst, against its type's step."""
    worst, where = 0.0, ""
    for done, (name, change) in enumerate(changes.items(), start=1):
        ratio = _largest_error(found, base, change)
        if ratio > worst:
            worst, where = ratio, name
        say.step(done, len(changes), "checking")
    text = (
        f"{counted(len(changes), 'tuned tensor')}: base + scale x B x A to within "
        f"{worst:.2g} of the rounding their types allow{f' ({where})' if where else ''}"
    )
    advice = "" if worst < math.inf else "Write them wider: --weights-dtype bfloat16 or float32."
    return ExportCheck("delta", worst <= 1.0, worst, 1.0, text, advice)


def _largest_error(found: BaseGguf, base: BaseGguf, change: Change) -> float:
    """Return the largest error of a tuned tensor in steps of its type; infinity for NaN."""
    difference, largest = 0.0, 0.0
    for rows in change.row_slices():
        exact, written = change.merged(base, rows), found.rows(change.name, rows)
        error = written - exact
        if not np.isfinite(error).all():
            return math.inf
        difference = max(difference, float(np.abs(error).max()))
        largest = max(largest, float(np.abs(exact).max()))
    return difference / largest / ROUNDING[change.type] if largest else difference
