"""The tuned model as a folder: the adapter folded into the weights.

In the original Hugging Face layout, so that transformers, mlx-lm and llama.cpp's converter read it;
or with --quantize as an MLX model (mlx_quantized.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.errors import ExportError, ModelError
from orpo_mlx.export import card
from orpo_mlx.export.answers import compare_answers
from orpo_mlx.export.base import BaseModel
from orpo_mlx.export.checks import ExportCheck, check_tensors
from orpo_mlx.export.formats import mlx_quantized
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.serving import with_mlx
from orpo_mlx.export.shards import copy_tokenizer, write_shards
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.tuned import DTYPES, TunedWeights, own_dtype, tuned_weight
from orpo_mlx.export.written import (
    Exported,
    Target,
    check_checksums,
    require_space,
    write_folder,
)
from orpo_mlx.models.check import CONFIG
from orpo_mlx.models.load import load_model
from orpo_mlx.storage.safetensors import check_safetensors, read_json_object
from orpo_mlx.text.commands import command_line
from orpo_mlx.text.formatting import counted

ROUNDING = {"float32": 1e-6, "float16": 6e-4, "bfloat16": 4e-3}
"""Largest rounding of a weight, as a share of the tensor's largest."""
_QUANTIZED_KEYS = ("quantization", "quantization_config")


def export(source: AdapterSource, target: Target, say: ExportListener) -> Exported:
    """Write the tuned model.

    Raises:
        AdapterError, ModelError: the adapter or its base cannot be used.
        ExportError: the architecture is not in the table, the disk is too small, or it cannot be
            written; nothing was.
        ExportCheckError: what was written is not the tuned model; it was removed.
    """
    if "quantize" in target.options:
        return mlx_quantized.export(source, target, say)
    require_known(source)
    say.step(0, 1, "reading the adapter")
    loaded = load_model(source.base.folder, lazy=True)
    dtype = target.options.get("dtype") or own_dtype(loaded)
    weights = TunedWeights(source, loaded, dtype)
    shapes = weights.shapes()
    size = sum(int(np.prod(shape)) for shape in shapes.values()) * DTYPES[dtype].size
    require_space(target.path, size)
    base_id = source.base.original_id(target.options.get("base_id"))[0]
    notes = card.unnamed_base(base_id)
    settings = _settings_folder(source.base, target.options.get("original"), notes)
    template = source.template

    def write(folder: Path) -> None:
        write_shards(folder, _told(weights, len(shapes), say), size)
        write_settings(folder, settings, dtype, base_id if target.is_shared else None, template)
        card.write(folder, source, "fused", base_id)

    def inspect(folder: Path) -> list[ExportCheck]:
        say.step(0, 1, "checking")
        checks = _check_weights(folder, source, weights, shapes, dtype)
        if all(check.passed for check in checks):
            say.step(0, 1, "comparing answers")
            checks += compare_answers(folder, source, loaded, dtype, notes)
        return [*checks, check_checksums(folder)]

    files = write_folder(target, write, inspect, say.verified)
    command = command_line("mlx_lm.generate", "--model", target.path, "--prompt", "Hello")
    notes += _for_people(source, target)
    return Exported(target.path, files, command, _served(target.path), notes)


def require_known(source: AdapterSource) -> None:
    """Refuse an architecture whose original layout is not in the table.

    Raises:
        ExportError: listing those that are.
    """
    _ = source.base.architecture


def _told(weights: TunedWeights, total: int, say: ExportListener) -> Iterator[tuple[str, mx.array]]:
    for done, item in enumerate(weights, start=1):
        yield item
        say.step(done, total, "fusing")


def _served(path: Path) -> list[str]:
    return [with_mlx(path), command_line("vllm", "serve", path)]


def _for_people(source: AdapterSource, target: Target) -> list[str]:
    """Return what to know when the folder goes on to other programs."""
    options = source.base.architecture.converter_options
    words = command_line("python3", "convert_hf_to_gguf.py", target.path, *options)
    notes = [f"For a GGUF, with llama.cpp: {words}"]
    if any(source.base.config.get(part) for part in ("vision_config", "audio_config")):
        notes.append("It is the language model alone: mlx-lm leaves out images and sound.")
    return notes


# Writing


def write_settings(
    folder: Path,
    settings: Path,
    dtype: str,
    base_id: str | None = None,
    template: str | None = None,
) -> None:
    """Write config.json without quantization, and copy the tokenizer's files as they are.

    Args:
        folder: being written.
        settings: where they are.
        dtype: of the weights.
        base_id: named in place of the path the model was loaded from once; None keeps that.
        template: the chat template it was trained with; None for the model's own.
    """
    config = read_json_object(settings / CONFIG, ModelError)
    if base_id is not None and "_name_or_path" in config:
        config["_name_or_path"] = base_id
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            for key in _QUANTIZED_KEYS:
                part.pop(key, None)
            for key in ("torch_dtype", "dtype"):
                if key in part:
                    part[key] = dtype
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    copy_tokenizer(settings, folder, template)


def _settings_folder(base: BaseModel, original: str | None, notes: list[str]) -> Path:
    """Return where config.json and the tokenizer come from: the original model if it is named."""
    if original:
        folder = BaseModel(original).settings_folder
        theirs = read_json_object(folder / CONFIG, ModelError).get("model_type")
        if theirs != base.config.get("model_type"):
            raise ExportError(
                f"--original {original}: its model_type is {theirs}, that of {base.name} is "
                f"{base.config.get('model_type')}.",
                f"Name the model {base.name} was made from.",
            )
        return folder
    if base.is_quantized:
        notes.append(
            "config.json and tokenizer are those of the MLX model; if llama.cpp's converter "
            "refuses them, export again with --original OWNER/NAME (the model it was made from)."
        )
    return base.settings_folder


# Checks


def _check_weights(
    folder: Path,
    source: AdapterSource,
    weights: TunedWeights,
    shapes: dict[str, tuple[int, ...]],
    dtype: str,
) -> list[ExportCheck]:
    """Open the files again: names and shapes, and every weight, tuned or not."""
    arrays: dict[str, Any] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        check_safetensors(path, within=folder)
        arrays |= mx.load(str(path))  # type: ignore[arg-type]
    checks = [check_tensors({n: a.shape for n, a in arrays.items()}, shapes)]
    if not checks[-1].passed:
        return checks
    # Taken out as they are compared: an array that was read stays in memory while it is held.
    differs = [
        name
        for name, array in weights.untouched()
        if not mx.array_equal(arrays.pop(name), array).item()
    ]
    count = len(shapes) - len(arrays)
    text = f"{counted(count, 'tensor')} the adapter does not touch: " + (
        f"{differs[0]} differs" if differs else "the base's"
    )
    checks.append(ExportCheck("untouched", not differs, float(len(differs)), 0.0, text))
    return [*checks, _check_tuned(arrays, weights, source.spec.scale, dtype)]


def _check_tuned(
    arrays: dict[str, Any], weights: TunedWeights, scale: float, dtype: str
) -> ExportCheck:
    """Compare the tuned weights with base + scale x B x A, in steps of the number format."""
    worst, where = 0.0, ""
    for path, layer in weights.layers.items():
        exact = tuned_weight(weights.modules[path], layer, scale)
        written = [arrays.pop(name).astype(mx.float32) for name in weights.names(path)]
        error = (mx.stack(written) if exact.ndim == 3 else written[0]) - exact
        largest = _float(mx.abs(exact).max())
        ratio = _float(mx.abs(error).max()) / ROUNDING[dtype] / (largest or 1.0)
        if not math.isfinite(ratio):
            worst, where = math.inf, path
            break
        if ratio > worst:
            worst, where = ratio, path
    text = (
        f"{counted(len(weights.layers), 'tuned layer')}: base + scale x B x A to within "
        f"{worst:.2g} of the rounding {dtype} allows{f' ({where})' if where else ''}"
    )
    advice = "" if dtype == "float32" else "Write it in float32: --dtype float32."
    return ExportCheck("delta", worst <= 1.0, worst, 1.0, text, advice)


def _float(array: mx.array) -> float:
    return float(array.item())  # type: ignore[arg-type]
