"""A complete GGUF of the tuned model: the adapter added to a GGUF of the base model.

Tensor by tensor, so that memory holds one at a time. Tensors the adapter does not touch are copied
byte for byte; tokenizer and settings are those of the base file. No torch and no llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import gguf
import numpy as np

from orpo_mlx.errors import ExportError
from orpo_mlx.export.base_weights import BaseWeights
from orpo_mlx.export.checks import Check, check_tensors
from orpo_mlx.export.gguf_base import (
    BaseGguf,
    likeness,
    open_base_gguf,
    require_architecture,
    require_likeness,
)
from orpo_mlx.export.progress import Progress, command_line
from orpo_mlx.export.source import AdaptedLayer, AdapterSource
from orpo_mlx.export.written import (
    Exported,
    Target,
    check_checksums,
    require_space,
    write_file,
    write_folder,
)
from orpo_mlx.formatting import counted

Type = gguf.GGMLQuantizationType

TYPES = {"float32": Type.F32, "float16": Type.F16, "bfloat16": Type.BF16, "q8_0": Type.Q8_0}
ROUNDING = {Type.F32: 1e-6, Type.F16: 6e-4, Type.BF16: 4e-3, Type.Q8_0: 5e-3}
"""Largest rounding of a weight, as a share of the tensor's largest, by type: half a step."""
_DROWNED = 0.5
_ROWS_AT_ONCE = 1 << 12


def export(source: AdapterSource, target: Target, say: Progress) -> Exported:
    """Merge the adapter into a GGUF of its base.

    Raises:
        AdapterError, ModelError: the adapter, its base or the GGUF cannot be used.
        ExportError: they do not belong together, or the file cannot be written; nothing was.
        ExportCheckError: what was written is not the tuned model; it was removed.
    """
    wanted = target.options.get("base_gguf")
    if not wanted:
        raise ExportError(
            "--to gguf: into which GGUF is the adapter merged?",
            f"Give one of the base model ({source.base.original_id()[0]}): --base-gguf FILE or "
            "--base-gguf OWNER/NAME:FILE.gguf.",
        )
    say.step(0, 1, "reading the adapter")
    base = open_base_gguf(wanted, say)
    require_architecture(base, source.base)
    notes: list[str] = []
    changes = _plan(source, base, target.options.get("weights_dtype", "keep"))
    _require_same_model(changes, base, source, say, notes)
    require_space(target.path, _size(base, changes))
    rounding = _Rounding()
    files = write_file(
        target,
        lambda path: _write(path, base, changes, say),
        lambda path: _inspect(path, base, changes, rounding, say),
        say.verified,
    )
    notes = [*_notes(changes, base), *rounding.notes(), *notes]
    command = command_line("llama-cli", "-m", target.path)
    return Exported(target.path, files, command, notes)


def export_folder(
    source: AdapterSource, target: Target, name: str, more: dict[str, str], say: Progress
) -> Exported:
    """Merge as `export` does, into a folder of its own.

    Args:
        source: the adapter.
        target: the folder.
        name: of the GGUF in it.
        more: text of further files by name.
        say: told of both checks.
    """
    merged: list[Exported] = []

    def write(folder: Path) -> None:
        inner = replace(target, path=folder / name, is_file=True, force=False)
        merged.append(export(source, inner, say))
        for file, text in more.items():
            (folder / file).write_text(text, encoding="utf-8")

    files = write_folder(target, write, lambda folder: [check_checksums(folder)], say.verified)
    return replace(merged[0], path=target.path, files=files)


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
        weight = base.rows(self.name, rows) + self.delta(rows)
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


# Before anything is written


def _plan(source: AdapterSource, base: BaseGguf, dtype: str) -> dict[str, Change]:
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


def _require_same_model(
    changes: dict[str, Change],
    base: BaseGguf,
    source: AdapterSource,
    say: Progress,
    notes: list[str],
) -> None:
    """Compare weights of the file with the model's own, where that is on this machine."""
    if not any(source.base.settings_folder.glob("model*.safetensors")):
        notes.append(
            f"The weights of {source.base.name} are not on this machine, so it was not checked "
            "that the GGUF is of the same model."
        )
        return
    say.step(0, 1, "comparing the GGUF with the base model")
    weights, seen = BaseWeights(source.base), set()
    for name, change in changes.items():
        kind = name.rpartition("blk.")[2].partition(".")[2]
        if kind in seen:
            continue  # one of each kind shows a wrong model or order
        seen.add(kind)
        weight = weights.weight(change.layer.path)
        flat = weight if weight.ndim == 2 else weight[0]
        order = source.base.architecture.order(
            change.layer.path, source.base.text_config, len(flat)
        )
        require_likeness(likeness(base, name, flat, order), base, name, source.base)


# Writing


def _size(base: BaseGguf, changes: dict[str, Change]) -> int:
    """Return the bytes of the file to be written, a little more than it will have."""
    tensors = sum(int(tensor.n_bytes) for tensor in base.tensors.values())
    header = base.path.stat().st_size - tensors
    kept = sum(int(base.tensors[n].n_bytes) for n in base.tensors if n not in changes)
    return header + kept + sum(_bytes(change, base) for change in changes.values())


def _bytes(change: Change, base: BaseGguf) -> int:
    return int(np.prod(gguf.quant_shape_to_byte_shape(base.shape(change.name), change.type)))


def _write(path: Path, base: BaseGguf, changes: dict[str, Change], say: Progress) -> None:
    writer = gguf.GGUFWriter(path, str(base.value("general.architecture")))
    base.copy_keys(writer)
    alignment = base.value("general.alignment")
    if alignment:
        writer.data_alignment = int(alignment)
    for name, tensor in base.tensors.items():
        if name not in changes:
            data = tensor.data
            writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
            continue
        kind, shape = changes[name].type, base.shape(name)
        size = _bytes(changes[name], base)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, (name, tensor) in enumerate(base.tensors.items(), start=1):
        change = changes.get(name)
        writer.write_tensor_data(_encoded(change, base) if change else np.asarray(tensor.data))
        say.step(done, len(base.tensors), "merging")
    writer.close()


def _encoded(change: Change, base: BaseGguf) -> np.ndarray:
    """Return the bytes of a tuned tensor in its type."""
    shape = base.shape(change.name)
    width = gguf.quant_shape_to_byte_shape(shape, change.type)[-1]
    out = np.empty((int(np.prod(shape[:-1])), width), np.uint8)
    for rows in change.row_slices():
        encoded = gguf.quants.quantize(change.merged(base, rows), change.type)
        out[rows] = encoded.view(np.uint8).reshape(-1, width)
    return out


# Checks


@dataclass
class _Rounding:
    """How the rounding of the tuned tensors compares with what the adapter changes in them."""

    lost: float = 0.0
    effect: float = 0.0
    types: set[str] = field(default_factory=set)

    @property
    def share(self) -> float:
        """Norm of the rounding over norm of the change."""
        return (self.lost / self.effect) ** 0.5 if self.effect else 0.0

    def notes(self) -> list[str]:
        """Say it, and warn where the rounding is as large as the change."""
        types = ", ".join(sorted(self.types))
        text = f"Rounding to {types} is {self.share:.1%} of what the adapter changes."
        if self.share > _DROWNED:
            text += " That may drown it: choose --weights-dtype float16 or a finer base GGUF."
        return [text]


def _inspect(
    path: Path, base: BaseGguf, changes: dict[str, Change], rounding: _Rounding, say: Progress
) -> list[Check]:
    """Open the file again and hold every tensor against the base and the adapter."""
    found = BaseGguf(path)
    shapes = {name: found.shape(name) for name in found.tensors}
    checks = [check_tensors(shapes, {name: base.shape(name) for name in base.tensors})]
    if not checks[-1].passed:
        return checks
    kept = [name for name in base.tensors if name not in changes]
    differs = [n for n in kept if not _same_bytes(found, base, n)]
    text = f"{counted(len(kept), 'tensor')} the adapter does not touch: " + (
        f"{differs[0]} differs" if differs else "the base's, byte for byte"
    )
    checks.append(Check("untouched", not differs, float(len(differs)), 0.0, text))
    checks.append(_check_keys(found, base))
    checks.append(_check_changes(found, base, changes, rounding, say))
    return checks


def _check_keys(found: BaseGguf, base: BaseGguf) -> Check:
    """Settings, tokenizer and chat template are the base's, byte for byte."""
    ours, theirs = found.key_bytes(), base.key_bytes()
    wrong = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
    text = f"{counted(len(theirs), 'key')} of the header: " + (
        f"{wrong[0]} differs" if wrong else "the base's"
    )
    return Check("header", not wrong, float(len(wrong)), 0.0, text)


def _same_bytes(found: BaseGguf, base: BaseGguf, name: str) -> bool:
    one, other = found.tensors[name], base.tensors[name]
    return one.tensor_type == other.tensor_type and np.array_equal(
        one.data.reshape(-1).view(np.uint8), other.data.reshape(-1).view(np.uint8)
    )


def _check_changes(
    found: BaseGguf, base: BaseGguf, changes: dict[str, Change], rounding: _Rounding, say: Progress
) -> Check:
    """Compare the tuned tensors with base + scale x B x A; the worst, against its type's step."""
    worst, where = 0.0, ""
    for done, (name, change) in enumerate(changes.items(), start=1):
        ratio = _largest_error(found, base, change, rounding)
        if ratio > worst:
            worst, where = ratio, name
        say.step(done, len(changes), "checking")
    text = (
        f"{counted(len(changes), 'tuned tensor')}: base + scale x B x A to within "
        f"{worst:.2g} of the rounding their types allow{f' ({where})' if where else ''}"
    )
    advice = "" if worst < math.inf else "Write them wider: --weights-dtype bfloat16 or float32."
    return Check("delta", worst <= 1.0, worst, 1.0, text, advice)


def _largest_error(found: BaseGguf, base: BaseGguf, change: Change, rounding: _Rounding) -> float:
    """Return the largest error of a tuned tensor in steps of its type; infinity for NaN."""
    difference, largest = 0.0, 0.0
    for rows in change.row_slices():
        exact, written = change.merged(base, rows), found.rows(change.name, rows)
        error = written - exact
        if not np.isfinite(error).all():
            return math.inf
        difference = max(difference, float(np.abs(error).max()))
        largest = max(largest, float(np.abs(exact).max()))
        rounding.lost += float(np.square(error).sum())
        rounding.effect += float(np.square(exact - base.rows(change.name, rows)).sum())
    rounding.types.add(change.type.name)
    return difference / largest / ROUNDING[change.type] if largest else difference


def _notes(changes: dict[str, Change], base: BaseGguf) -> list[str]:
    coarse = sorted(
        {
            base.tensors[name].tensor_type.name
            for name, change in changes.items()
            if base.tensors[name].tensor_type != change.type
        }
    )
    if not coarse:
        return []
    written = sorted({change.type.name for change in changes.values()})
    return [
        f"The tensors the adapter changes were {', '.join(coarse)} and are written as "
        f"{', '.join(written)}; all others are as they were."
    ]
