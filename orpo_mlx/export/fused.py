"""The tuned model as a folder: the adapter folded into the weights.

In the original Hugging Face layout, so that transformers, mlx-lm and llama.cpp's converter read it;
or with --quantize as an MLX model (fused_mlx.py).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.errors import ExportError, ModelError
from orpo_mlx.export import card, fused_mlx
from orpo_mlx.export.base import BaseModel
from orpo_mlx.export.base_weights import plain_weight
from orpo_mlx.export.checks import Check, check_tensors
from orpo_mlx.export.progress import Progress, command_line
from orpo_mlx.export.prompts import compare_answers
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.tuned import DTYPES, TunedWeights, own_dtype, tuned_weight
from orpo_mlx.export.written import (
    Exported,
    Target,
    check_checksums,
    require_space,
    write_folder,
)
from orpo_mlx.formatting import counted
from orpo_mlx.import_gate import check_safetensors, read_json_object
from orpo_mlx.model_check import CONFIG
from orpo_mlx.models import load_model

SHARD_BYTES = 2 << 30
INDEX = "model.safetensors.index.json"
ROUNDING = {"float32": 1e-6, "float16": 6e-4, "bfloat16": 4e-3}
"""Largest rounding of a weight, as a share of the tensor's largest."""
_COPIED = (
    "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "chat_template*", "generation_config.json", "*.model", "*.tiktoken",
)  # fmt: skip
_QUANTIZED_KEYS = ("quantization", "quantization_config")


def export(source: AdapterSource, target: Target, say: Progress) -> Exported:
    """Write the tuned model.

    Raises:
        AdapterError, ModelError: the adapter or its base cannot be used.
        ExportError: the architecture is not in the table, the disk is too small, or it cannot be
            written; nothing was.
        ExportCheckError: what was written is not the tuned model; it was removed.
    """
    if "quantize" in target.options:
        return fused_mlx.export(source, target, say)
    require_known(source)
    say.step(0, 1, "reading the adapter")
    loaded = load_model(source.base.folder, lazy=True)
    dtype = target.options.get("dtype") or own_dtype(loaded)
    weights = TunedWeights(source, loaded, dtype)
    shapes = weights.shapes()
    size = sum(int(np.prod(shape)) for shape in shapes.values()) * DTYPES[dtype].size
    require_space(target.path, size)
    notes: list[str] = []
    settings = _settings_folder(source.base, target.options.get("original"), notes)

    def write(folder: Path) -> None:
        write_shards(folder, _told(weights, len(shapes), say), size)
        write_settings(folder, settings, dtype)
        base_id = source.base.original_id(target.options.get("base_id"))[0]
        card.write(folder, source, "fused", base_id)

    def inspect(folder: Path) -> list[Check]:
        say.step(0, 1, "checking")
        checks = _check_weights(folder, source, weights, shapes, dtype, notes)
        if all(check.passed for check in checks):
            say.step(0, 1, "comparing answers")
            checks += compare_answers(folder, source, loaded, dtype, notes)
        return [*checks, check_checksums(folder)]

    files = write_folder(target, write, inspect, say.verified)
    command = command_line("mlx_lm.generate", "--model", target.path, "--prompt", "Hello")
    return Exported(target.path, files, command, [*notes, *_for_people(source, target)])


def require_known(source: AdapterSource) -> None:
    """Refuse an architecture whose original layout is not in the table.

    Raises:
        ExportError: listing those that are.
    """
    _ = source.base.architecture


def _told(weights: TunedWeights, total: int, say: Progress) -> Iterator[tuple[str, mx.array]]:
    for done, item in enumerate(weights, start=1):
        yield item
        say.step(done, total, "fusing")


def _for_people(source: AdapterSource, target: Target) -> list[str]:
    """Return what to know when the folder goes on to other programs."""
    options = source.base.architecture.converter_options
    words = command_line("python", "convert_hf_to_gguf.py", target.path, *options)
    notes = [f"For a GGUF, with llama.cpp: {words}"]
    if any(source.base.config.get(part) for part in ("vision_config", "audio_config")):
        notes.append("It is the language model alone: mlx-lm leaves out images and sound.")
    return notes


# Writing


def write_shards(folder: Path, tensors: Iterable[tuple[str, mx.array]], size: int) -> None:
    """Write tensors as `model*.safetensors`, a few GB in memory at a time, with an index.

    Args:
        folder: being written.
        tensors: names and arrays; computed as they are written.
        size: bytes of all, for the number of files.
    """
    count = max(1, -(-size // SHARD_BYTES))
    shard: dict[str, mx.array] = {}
    places: dict[str, str] = {}
    written = filled = 0

    def flush() -> None:
        nonlocal written, filled
        written += 1
        number = f"-{written:05d}-of-{count:05d}" if count > 1 else ""
        name = f"model{number}.safetensors"
        mx.save_safetensors(str(folder / name), shard, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()
        mx.clear_cache()
        filled = 0

    for name, array in tensors:
        # The last file takes the rest: how many there are is in their names.
        if filled + array.nbytes > SHARD_BYTES and shard and written + 1 < count:
            flush()
        shard[name] = array
        filled += array.nbytes
    flush()
    if written > 1:
        _rename_shards(folder, places, written, count)
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _rename_shards(folder: Path, places: dict[str, str], written: int, planned: int) -> None:
    """Give the files the number of files there turned out to be."""
    if written == planned:
        return
    for name, old in places.items():
        new = old.replace(f"of-{planned:05d}", f"of-{written:05d}")
        if (folder / old).exists():
            (folder / old).rename(folder / new)
        places[name] = new


def write_settings(folder: Path, settings: Path, dtype: str) -> None:
    """Write config.json without quantization, and copy the tokenizer's files as they are."""
    config = read_json_object(settings / CONFIG, ModelError)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            for key in _QUANTIZED_KEYS:
                part.pop(key, None)
            for key in ("torch_dtype", "dtype"):
                if key in part:
                    part[key] = dtype
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    copy_tokenizer(settings, folder)


def copy_tokenizer(settings: Path, folder: Path) -> None:
    """Copy a tokenizer's files, template and generation settings, byte for byte."""
    for pattern in _COPIED:
        for file in settings.glob(pattern):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)


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
    notes: list[str],
) -> list[Check]:
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
    checks.append(Check("untouched", not differs, float(len(differs)), 0.0, text))
    return [*checks, _check_tuned(arrays, weights, source.spec.scale, dtype, notes)]


def _check_tuned(
    arrays: dict[str, Any], weights: TunedWeights, scale: float, dtype: str, notes: list[str]
) -> Check:
    """Compare the tuned weights with base + scale x B x A, in steps of the number format."""
    worst, where, lost, effect = 0.0, "", 0.0, 0.0
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
        lost += _float(mx.square(error).sum())
        effect += _float(mx.square(exact - plain_weight(weights.modules[path])).sum())
    else:
        share = (lost / effect) ** 0.5 if effect else 0.0
        notes.append(f"Rounding to {dtype} is {share:.1%} of what the adapter changes.")
    text = (
        f"{counted(len(weights.layers), 'tuned layer')}: base + scale x B x A to within "
        f"{worst:.2g} of the rounding {dtype} allows{f' ({where})' if where else ''}"
    )
    advice = "" if dtype == "float32" else "Write it in float32: --dtype float32."
    return Check("delta", worst <= 1.0, worst, 1.0, text, advice)


def _float(array: mx.array) -> float:
    return float(array.item())  # type: ignore[arg-type]
