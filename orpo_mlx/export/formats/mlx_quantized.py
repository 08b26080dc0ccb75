"""The tuned model as a quantized MLX model, for LM Studio and mlx-lm.

With the base's own bits only the layers the adapter changes are quantized anew; all others are the
base's, bit for bit. With other bits all are.
Quantizing rounds, and a small adapter may be smaller than the rounding: that is measured and said.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from orpo_mlx.evaluation.divergence import mean_divergence
from orpo_mlx.export import card
from orpo_mlx.export.answers import tuned_answers, written_answers
from orpo_mlx.export.checks import ExportCheck, check_tensors
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.serving import with_mlx
from orpo_mlx.export.shards import copy_tokenizer, write_shards
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.tuned import tuned_weight
from orpo_mlx.export.written import (
    Exported,
    Target,
    check_checksums,
    require_space,
    write_folder,
)
from orpo_mlx.models.check import CONFIG
from orpo_mlx.models.load import LoadedModel, load_model
from orpo_mlx.text.commands import command_line

GROUP_SIZE = 64
_DROWNED = 0.5
_QUANTIZED_KEYS = ("quantization", "quantization_config")


def export(source: AdapterSource, target: Target, say: ExportListener) -> Exported:
    """Write a quantized MLX model; as `fused.export`."""
    bits = int(target.options["quantize"])
    say.step(0, 1, "reading the adapter")
    loaded = load_model(source.base.folder, lazy=True)
    config = _quantize(source, loaded, bits)  # nothing is computed before it is written
    require_space(target.path, _bytes(loaded.model))
    say.step(0, 1, "answering three prompts")
    base, tuned = tuned_answers(source, load_model(source.base.folder, lazy=True))
    parameters: Any = tree_flatten(loaded.model.parameters())
    base_id = source.base.original_id(target.options.get("base_id"))[0]

    if target.is_shared and "_name_or_path" in config:
        config["_name_or_path"] = base_id

    template = source.template

    def write(folder: Path) -> None:
        say.step(0, 1, "quantizing")
        write_shards(folder, parameters, _bytes(loaded.model))
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        copy_tokenizer(source.base.settings_folder, folder, template)
        card.write(folder, source, "fused", base_id, is_mlx=True)

    measured: list[float] = []

    def inspect(folder: Path) -> list[ExportCheck]:
        checks = [*_check_arrays(folder, dict(parameters)), check_checksums(folder)]
        if not all(check.passed for check in checks):
            return checks
        answers = written_answers(folder, loaded.tokenizer)
        measured[:] = [mean_divergence(tuned, answers), mean_divergence(tuned, base)]
        return [*checks, _check_answers(*measured)]

    files = write_folder(target, write, inspect, say.verified)
    command = command_line("mlx_lm.generate", "--model", target.path, "--prompt", "Hello")
    notes = [*_notes(*measured), *card.unnamed_base(base_id)]
    return Exported(target.path, files, command, [with_mlx(target.path)], notes)


def _bytes(model: nn.Module) -> int:
    arrays: Any = tree_flatten(model.parameters())
    return sum(array.nbytes for _, array in arrays)


def _quantize(source: AdapterSource, loaded: LoadedModel, bits: int) -> dict[str, Any]:
    """Fold the adapter in and quantize; returns config.json of the result."""
    from mlx_lm.utils import dequantize_model, quantize_model

    config = dict(loaded.config)
    own = config.get("quantization") or {}
    is_kept = own.get("bits") == bits
    if own and not is_kept:  # of other bits every layer is quantized anew
        dequantize_model(loaded.model)
        config = {key: value for key, value in config.items() if key not in _QUANTIZED_KEYS}
    modules: dict[str, Any] = dict(loaded.model.named_modules())
    changed = [
        (layer.path, _retuned(modules[layer.path], tuned_weight(modules[layer.path], layer, scale)))
        for scale in (source.spec.scale,)
        for layer in source.layers
    ]
    tree: Any = tree_unflatten(changed)
    loaded.model.update_modules(tree)
    if not is_kept:
        size = own.get("group_size") or GROUP_SIZE
        with contextlib.redirect_stdout(io.StringIO()):  # it prints, which would spoil --json
            _, config = quantize_model(loaded.model, config, size, bits)
    config.pop("quantization_config", None)
    return config


def _retuned(module: Any, weight: mx.array) -> Any:
    """Return the module with another weight, quantized as it was."""
    if "scales" not in module:
        module.weight = weight.astype(module.weight.dtype)
        return module
    mode = getattr(module, "mode", "affine")
    packed, scales, *biases = mx.quantize(
        weight.astype(module.scales.dtype if mode == "affine" else mx.float32),
        group_size=module.group_size,
        bits=module.bits,
        mode=mode,
    )
    module.weight, module.scales = packed, scales
    if biases:
        module.biases = biases[0]
    return module


def _check_arrays(folder: Path, wanted: dict[str, mx.array]) -> list[ExportCheck]:
    """Compare names, shapes and every packed value with what was made."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        found |= mx.load(str(path))  # type: ignore[arg-type]
    shapes = {name: array.shape for name, array in wanted.items()}
    checks = [check_tensors({name: array.shape for name, array in found.items()}, shapes)]
    if not checks[0].passed:
        return checks
    # NaN is not equal to itself, so it is found here, too.
    wrong = [n for n, array in wanted.items() if not mx.array_equal(found.pop(n), array).item()]
    text = f"{wrong[0]} is not what was made, or NaN" if wrong else "every value as it was made"
    return [*checks, ExportCheck("values", not wrong, float(len(wrong)), 0.0, text)]


def _check_answers(lost: float, effect: float) -> ExportCheck:
    """The model must be a model; how much of the adapter is left is for the notes to say."""
    text = f"three prompts: KL {lost:.2g} nats from base + adapter, {effect:.2g} from the base"
    return ExportCheck("answers", math.isfinite(lost), lost, None, text)


def _notes(lost: float, effect: float) -> list[str]:
    share = lost / effect if effect else 0.0
    text = f"Quantizing changes the answers by {share:.0%} of what the adapter does (KL)."
    if share > _DROWNED:
        text += " That drowns it: use --to fused without --quantize, or --to mlx."
    return [text]
