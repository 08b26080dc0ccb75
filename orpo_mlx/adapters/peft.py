"""PEFT's adapter format, read: transposed matrices, other names, alpha instead of scale.

For `--init-adapter`, which puts the weights on a model, and for `orpo-mlx adapter import`, which
writes them in mlx-lm's format. Both pass the import gate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.adapters.lora import AdapterSpec, adapter_parameters
from orpo_mlx.adapters.reward_head import has_head, holds_head, load_head_into
from orpo_mlx.errors import AdapterError
from orpo_mlx.models.architectures import mlx_name
from orpo_mlx.models.weights import check_finite
from orpo_mlx.storage.safetensors import Shape, check_expected, check_safetensors, read_json_object
from orpo_mlx.version import __version__

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."
_PARTS = {
    ".lora_A.weight": "lora_a",
    ".lora_B.weight": "lora_b",
    ".lora_magnitude_vector": "m",
}
ToMlx = Callable[[str], tuple[str, int | None]]
"""Hugging Face module to the layer in MLX and the number of the expert, if it is one."""


class _Tensor(NamedTuple):
    """One of mlx-lm's tensors: PEFT's names of it (one per expert if stacked), and its shape."""

    theirs: tuple[str, ...]
    shape: Shape
    is_stacked: bool


def is_peft(folder: Path) -> bool:
    """Tell whether a folder holds an adapter as PEFT writes it."""
    return (folder / WEIGHTS_FILE).is_file()


def read_peft_spec(folder: Path, to_mlx: ToMlx = mlx_name) -> AdapterSpec:
    """Read how a PEFT adapter is to be attached; layers by their full names, from the weights.

    Raises:
        AdapterError: it is damaged, or uses something an mlx-lm adapter cannot express.
    """
    config = _read_config(folder)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    dropout = config.get("lora_dropout") or 0.0
    if not isinstance(rank, int) or not 1 <= rank <= 4096 or not _is_number(alpha):
        raise _bad(folder, f"r is {rank!r} and lora_alpha {alpha!r}; numbers are needed")
    if not _is_number(dropout) or not 0 <= dropout < 1:
        raise _bad(folder, f"lora_dropout is {dropout!r:.40}; a number below 1 is needed")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    names = _our_tensors(folder, to_mlx)
    layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
    dora = bool(config.get("use_dora"))
    if dora != any(name.endswith(".m") for name in names):
        raise _bad(folder, f"use_dora is {dora}, which the tensors do not agree with")
    return AdapterSpec(rank, scale, float(dropout), tuple(layers), -1, dora, folder / CONFIG_FILE)


def load_peft_into(model: nn.Module, folder: Path) -> None:
    """Set the weights of an adapter attached as `read_peft_spec` says.

    Raises:
        AdapterError: tensors are missing, surplus, of another shape or not finite.
    """
    current = adapter_parameters(model)
    expected = {name: tuple(array.shape) for name, array in current.items()}
    arrays = read_peft_arrays(folder, expected)
    weights = [(name, array.astype(current[name].dtype)) for name, array in arrays.items()]
    model.load_weights(weights, strict=False)
    if has_head(model) and holds_head(folder):
        load_head_into(model, folder)
    mx.eval(model.trainable_parameters())


def read_peft_arrays(
    folder: Path, expected: Mapping[str, Shape] | None, to_mlx: ToMlx = mlx_name
) -> dict[str, mx.array]:
    """Read the weights under mlx-lm's names and in its orientation.

    PEFT keeps A as [R, I] and B as [O, R]; mlx-lm keeps both the other way round, but those of
    experts as PEFT does, all experts of a block in one tensor.

    Args:
        folder: the adapter.
        expected: mlx-lm's names and shapes; None if the model is not known.
        to_mlx: what MLX calls a module.

    Raises:
        AdapterError: tensors are missing, surplus, of another shape or not finite.
    """
    path = folder / WEIGHTS_FILE
    tensors = _our_tensors(folder, to_mlx)
    if expected is not None:
        tensors = _with_full_names(tensors, expected)
        check_expected(path, {name: found.shape for name, found in tensors.items()}, expected)
    arrays: Any = mx.load(str(path))
    mx.eval(arrays)
    check_finite(path, arrays)
    return {
        ours: mx.stack([arrays[name] for name in found.theirs])
        if found.is_stacked
        else arrays[found.theirs[0]].T
        for ours, found in tensors.items()
    }


def _with_full_names(tensors: dict[str, _Tensor], expected: Iterable[str]) -> dict[str, _Tensor]:
    """Put a wrapper's prefix ("language_model.") before names, where that is what is expected."""
    by_end = {}
    for name in expected:
        by_end |= {name: name, name.removeprefix("language_model."): name}
    return {by_end.get(name, name): found for name, found in tensors.items()}


def _our_tensors(folder: Path, to_mlx: ToMlx) -> dict[str, _Tensor]:
    """Map mlx-lm's tensor names to PEFT's names and to the shape in mlx-lm."""
    singles: dict[str, _Tensor] = {}
    experts: dict[str, dict[int, tuple[str, Shape]]] = {}
    for name, (_, shape) in check_safetensors(folder / WEIGHTS_FILE, within=folder).items():
        ending = next((ending for ending in _PARTS if name.endswith(ending)), "")
        is_sound = name.startswith(PREFIX) and len(shape) == (1 if _PARTS.get(ending) == "m" else 2)
        if not ending or not is_sound:
            raise _bad(folder, f"tensor {name} is not the lora_A or lora_B of a linear layer")
        path, number = to_mlx(name[len(PREFIX) : -len(ending)])
        ours = f"{path}.{_PARTS[ending]}"
        if number is None:
            singles[ours] = _Tensor((name,), shape[::-1], False)
        else:
            experts.setdefault(ours, {})[number] = (name, shape)
    return {**singles, **{ours: _stacked(folder, ours, found) for ours, found in experts.items()}}


def _stacked(folder: Path, ours: str, found: dict[int, tuple[str, Shape]]) -> _Tensor:
    missing = next((number for number in range(len(found)) if number not in found), None)
    if missing is not None:
        raise _bad(folder, f"{ours}: expert {missing} of {max(found) + 1} is missing")
    names, shapes = zip(*(found[number] for number in range(len(found))), strict=True)
    if len(set(shapes)) > 1:
        raise _bad(folder, f"{ours}: its experts have different shapes, {sorted(set(shapes))}")
    return _Tensor(names, (len(found), *shapes[0]), True)


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json_object(folder / CONFIG_FILE, AdapterError)
    if config.get("peft_type") != "LORA":
        raise _bad(folder, f"{CONFIG_FILE} does not describe a LoRA adapter")
    for key in ("alpha_pattern", "rank_pattern", "modules_to_save", "fan_in_fan_out"):
        if config.get(key):
            raise _bad(folder, f"{key} is set, which has no counterpart in an mlx-lm adapter here")
    if config.get("bias", "none") != "none":
        raise _bad(folder, f"bias is {config['bias']!r}; only none can be read")
    return config


def _is_number(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= 1e6  # NaN, infinity and what no float holds are above, too


def _bad(folder: Path, what: str) -> AdapterError:
    return AdapterError(
        f"{folder}: this PEFT adapter cannot be imported: {what}.",
        "Use a LoRA adapter saved by PEFT as safetensors, or one in mlx-lm's format.",
    )


# Written again


def mlx_config(folder: Path, spec: AdapterSpec, base_model: str | None) -> str:
    """Return adapter_config.json as mlx-lm reads it, for the layers of a PEFT adapter."""
    named = read_json_object(folder / CONFIG_FILE, AdapterError).get("base_model_name_or_path")
    config = {
        "fine_tune_type": "dora" if spec.dora else "lora",
        # The keys are full names, which mlx-lm finds in every block.
        "num_layers": -1,
        "lora_parameters": {
            "rank": spec.rank,
            "scale": spec.scale,
            "dropout": spec.dropout,
            "keys": list(spec.target_modules),
        },
        "base_model": base_model or named,
        "orpo_mlx_version": __version__,
    }
    return json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"
