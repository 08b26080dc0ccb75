"""A LoRA adapter as one GGUF file, for llama.cpp: written directly, no torch needed.

Tensor for tensor what llama.cpp's `convert_lora_to_gguf.py` makes of the PEFT export: names and
orders by `models/architectures.py`, the scale baked into B, alpha = rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from orpo_mlx.errors import ExportError
from orpo_mlx.export.checks import (
    DeltaDifference,
    ExportCheck,
    check_delta,
    check_finite,
    check_tensors,
    compare_factors,
)
from orpo_mlx.export.ownership import GGUF_MARK
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.serving import with_llama
from orpo_mlx.export.source import AdaptedLayer, AdapterSource
from orpo_mlx.export.written import Exported, Target, require_space, write_file
from orpo_mlx.text.commands import command_line

TYPES = {
    "float32": gguf.GGMLQuantizationType.F32,
    "float16": gguf.GGMLQuantizationType.F16,
    "bfloat16": gguf.GGMLQuantizationType.BF16,
}
_HALVES = (".lora_a", ".lora_b")


def export(source: AdapterSource, target: Target, say: ExportListener) -> Exported:
    """Write the adapter as a GGUF LoRA.

    Raises:
        AdapterError, ModelError: the adapter or its base cannot be used.
        ExportError: a GGUF LoRA cannot express it (the format that can is named), or it cannot be
            written; nothing was written.
        ExportCheckError: what was written is not the adapter; it was removed.
    """
    dtype = target.options.get("dtype", "float32")
    architecture = source.base.architecture
    say.step(0, 3, "reading the adapter")
    _refuse(source)
    wanted = gguf_tensors(source)
    require_space(target.path, sum(array.size for array in wanted.values()) * 4)

    def write(path: Path) -> None:
        say.step(1, 3, "writing")
        writer = gguf.GGUFWriter(path, architecture.gguf)
        writer.add_string(GGUF_MARK, "gguf-lora")
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(source.spec.rank))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, array in wanted.items():
            with np.errstate(over="ignore"):  # what overflows is found by the checks
                data = gguf.quants.quantize(np.ascontiguousarray(array), TYPES[dtype])
            writer.add_tensor(name, data, raw_dtype=TYPES[dtype])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def inspect(path: Path) -> list[ExportCheck]:
        say.step(2, 3, "checking what was written")
        return _inspect(path, source, dtype)

    files = write_file(target, write, inspect, say.verified)
    command = command_line("llama-cli", "-m", "BASE.gguf", "--lora", target.path)
    serve = [with_llama("BASE.gguf", target.path)]
    return Exported(target.path, files, command, serve, _notes(source))


def _notes(source: AdapterSource) -> list[str]:
    notes = [
        f"BASE.gguf is a GGUF of the base model ({source.base.original_id()[0]}) of architecture "
        f"{source.base.architecture.gguf}; it may be quantized."
    ]
    if source.base.is_quantized:
        notes.append(
            "The adapter was trained on a quantized base; on another one the answers differ by "
            "about what the quantization changed."
        )
    return notes


def _refuse(source: AdapterSource) -> None:
    """Refuse what a GGUF LoRA has no place for, before anything is written."""
    architecture = source.base.architecture
    if source.spec.dora:
        raise ExportError(
            f"{source.folder}: a DoRA adapter; GGUF has only LoRA. Nothing was written.",
            "Use --to fused, or --to peft, which take DoRA.",
        )
    for layer in source.layers:
        if architecture.gguf_name(layer.path) is None:
            raise ExportError(
                f"{layer.path}: has no counterpart known here in a GGUF of architecture "
                f"{architecture.gguf}; nothing was written. Known: "
                f"{', '.join(architecture.inner)}, embed_tokens, {architecture.head}.",
                "Use --to fused.",
            )
        if layer.kind == "embedding" and source.base.is_tied:
            raise ExportError(
                f"{layer.path}: this embedding is also the output layer of {source.base.name}, "
                "which a GGUF LoRA cannot express (llama.cpp ends at the first token). Nothing was "
                "written.",
                "Use --to fused.",
            )


def gguf_tensors(source: AdapterSource) -> dict[str, np.ndarray]:
    """Return the tensors of the GGUF LoRA by name, sorted by block, in float32.

    `lora_a` is [R, I] and `lora_b` [O, R] with the scale multiplied in, experts in front; an
    embedding's are [V, R] and [D, R].
    """
    tensors = {}
    for layer in source.layers:
        name = source.base.architecture.gguf_name(layer.path)
        a, b = _factors(layer, source)
        tensors |= {f"{name}.lora_a": a, f"{name}.lora_b": b}
    return tensors


def _factors(layer: AdaptedLayer, source: AdapterSource) -> tuple[np.ndarray, np.ndarray]:
    if layer.kind == "embedding":
        return layer.a, np.float32(source.spec.scale) * layer.b.T
    b, a = layer.factors(source.spec.scale)
    order = source.base.architecture.order(layer.path, source.base.text_config, b.shape[-2])
    b = b if order.rows is None else b[..., order.rows, :]
    a = a if order.columns is None else a[..., order.columns]
    return a, b


# Checks


def _inspect(path: Path, source: AdapterSource, dtype: str) -> list[ExportCheck]:
    """Open the file again, undo the orders, and rebuild every delta from it."""
    reader = gguf.GGUFReader(path)
    # Copied: the reader maps the file, which is about to be renamed.
    found = {
        tensor.name: np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        for tensor in reader.tensors
    }
    wanted = {name: array.shape for name, array in gguf_tensors(source).items()}
    shapes = {name: array.shape for name, array in found.items()}
    checks = [_check_keys(reader, source), check_tensors(shapes, wanted)]
    if checks[-1].passed:
        checks.append(check_finite(found.items()))
    if checks[-1].passed:
        checks.append(check_delta(_differences(found, source, reader), dtype))
    return checks


def _value(reader: gguf.GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return field.contents() if field else None


def _check_keys(reader: gguf.GGUFReader, source: AdapterSource) -> ExportCheck:
    wanted = {
        "general.architecture": source.base.architecture.gguf,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": float(source.spec.rank),
    }
    wrong = {key: _value(reader, key) for key in wanted if _value(reader, key) != wanted[key]}
    text = f"wrong: {wrong}" if wrong else f"an adapter for {wanted['general.architecture']}"
    return ExportCheck("keys", not wrong, float(len(wrong)), 0.0, text)


def _differences(
    found: dict[str, np.ndarray], source: AdapterSource, reader: gguf.GGUFReader
) -> Iterator[DeltaDifference]:
    base = source.base
    scale = _value(reader, "adapter.lora.alpha") / source.spec.rank
    for layer in source.layers:
        name = base.architecture.gguf_name(layer.path)
        a, b = (found[f"{name}{half}"] for half in _HALVES)
        if layer.kind == "embedding":
            theirs = a, b.T
        else:
            order = base.architecture.order(layer.path, base.text_config, b.shape[-2])
            theirs = _restored(b, order.rows, -2), _restored(a, order.columns, -1)
        ours = layer.factors(source.spec.scale)
        yield compare_factors(layer.path, ours, (scale * theirs[0], theirs[1]))


def _restored(array: np.ndarray, indices: np.ndarray | None, axis: int) -> np.ndarray:
    return array if indices is None else np.take(array, np.argsort(indices), axis=axis)
