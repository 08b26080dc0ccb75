"""PEFT's adapter format, read: transposed matrices, other names, alpha instead of scale."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.adapter import AdapterSpec, adapter_parameters
from orpo_mlx.errors import AdapterError
from orpo_mlx.import_gate import (
    check_expected,
    check_finite,
    check_safetensors,
    read_json_object,
)

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
_PREFIX = "base_model.model."
_HALVES = {".lora_A.weight": ".lora_a", ".lora_B.weight": ".lora_b"}


def is_peft(folder: Path) -> bool:
    """Tell whether a folder holds an adapter as PEFT writes it."""
    return (folder / WEIGHTS_FILE).is_file()


def read_peft_spec(folder: Path) -> AdapterSpec:
    """Read how a PEFT adapter is to be attached; layers by their full names, from the weights.

    Raises:
        AdapterError: it is damaged, or uses something an mlx-lm adapter cannot express.
    """
    config = _read_config(folder)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not 1 <= rank <= 4096 or not _is_number(alpha):
        raise _bad(folder, f"r is {rank!r} and lora_alpha {alpha!r}; numbers are needed")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    names = _our_names(folder)
    layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
    dropout = config.get("lora_dropout") or 0.0
    return AdapterSpec(rank, scale, float(dropout), tuple(layers), num_layers=-1)


def load_peft_into(model: nn.Module, folder: Path) -> None:
    """Set the weights of an adapter attached as `read_peft_spec` says.

    PEFT keeps A as [R, I] and B as [O, R]; mlx-lm keeps both the other way round.

    Raises:
        AdapterError: tensors are missing, surplus, of another shape or not finite.
    """
    path = folder / WEIGHTS_FILE
    current = adapter_parameters(model)
    theirs = _our_names(folder)
    found = {ours: shape[::-1] for ours, (_, shape) in theirs.items()}
    check_expected(path, found, {name: tuple(a.shape) for name, a in current.items()})
    arrays: Any = mx.load(str(path))
    mx.eval(arrays)
    check_finite(path, arrays)
    weights = [
        (ours, arrays[name].T.astype(current[ours].dtype)) for ours, (name, _) in theirs.items()
    ]
    model.load_weights(weights, strict=False)
    mx.eval(model.trainable_parameters())


def _our_names(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Map our tensor names to PEFT's name and shape."""
    names = {}
    for name, (_, shape) in check_safetensors(folder / WEIGHTS_FILE, within=folder).items():
        half = next((half for half in _HALVES if name.endswith(half)), None)
        if half is None or not name.startswith(_PREFIX) or len(shape) != 2:
            raise _bad(folder, f"tensor {name} is not the lora_A or lora_B of a linear layer")
        names[name[len(_PREFIX) : -len(half)] + _HALVES[half]] = (name, shape)
    return names


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json_object(folder / CONFIG_FILE, AdapterError)
    if config.get("peft_type") != "LORA":
        raise _bad(folder, f"{CONFIG_FILE} does not describe a LoRA adapter")
    for key in ("use_dora", "alpha_pattern", "rank_pattern", "modules_to_save", "fan_in_fan_out"):
        if config.get(key):
            raise _bad(folder, f"{key} is set, which has no counterpart in an mlx-lm adapter here")
    if config.get("bias", "none") != "none":
        raise _bad(folder, f"bias is {config['bias']!r}; only none can be read")
    return config


def _is_number(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _bad(folder: Path, what: str) -> AdapterError:
    return AdapterError(
        f"{folder}: this PEFT adapter cannot be imported: {what}.",
        "Use a plain LoRA adapter saved by PEFT as safetensors, or one in mlx-lm's format.",
    )
