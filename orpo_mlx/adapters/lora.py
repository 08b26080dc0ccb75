"""LoRA on, off and counted: mlx-lm's layers, our start and our dropout.

The layers are mlx-lm's own, so plain, quantized and mixture-of-experts layers work and mlx-lm loads
what is saved. Two things differ. The start is drawn from a seed and leaves MLX's random state as it
was. Dropout takes its mask from a key that is handed in; see dropout.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from orpo_mlx.adapters.dropout import KeyedDropout
from orpo_mlx.adapters.reward_head import HEAD_WEIGHT
from orpo_mlx.adapters.targets import (
    ALL,
    adapted_blocks,
    choose_layers,
    count_blocks,
    in_model_order,
    mlx_lm_keys,
    setting_words,
)
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import adapter_scale
from orpo_mlx.errors import ConfigError


@dataclass(frozen=True)
class AdapterSpec:
    """Which layers get an adapter, and of what kind.

    Attributes:
        rank: R, width of the two adapter matrices.
        scale: factor on the adapter's output, as mlx-lm means it (alpha / rank).
        dropout: share of the adapter's inputs set to zero while training.
        target_modules: layer names ("q_proj", "self_attn.q_proj", "lm_head" or a full path), or
            ("all",) = every linear layer of the adapted blocks.
        num_layers: the last N blocks; -1 = all.
        dora: also learn a magnitude per output row.
        read_from: the file that says all this; None for settings of a user, to whom they are named.
    """

    rank: int = 8
    scale: float = 2.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = (ALL,)
    num_layers: int = -1
    dora: bool = False
    read_from: Path | None = field(default=None, compare=False)


def build_adapter_spec(config: TrainConfig, model: nn.Module) -> AdapterSpec:
    """Read the adapter's settings for one model.

    The default number of blocks means "the last 16, or all if there are fewer"; any other number
    larger than the model is left as it is, and `attach_adapter` refuses it.
    """
    num_layers = config.num_layers
    if num_layers == TrainConfig.model_fields["num_layers"].default:
        num_layers = min(num_layers, count_blocks(model))
    return AdapterSpec(
        rank=config.rank,
        scale=adapter_scale(config),
        dropout=config.dropout,
        target_modules=tuple(config.target_modules),
        num_layers=num_layers,
        dora=config.dora,
    )


# On


def attach_adapter(model: nn.Module, spec: AdapterSpec, seed: int) -> list[str]:
    """Freeze the model and put a fresh adapter on its layers; answers do not change yet.

    Args:
        model: without adapter; changed in place and left in evaluation mode.
        spec: which layers and what kind.
        seed: of the start of `lora_a`; `lora_b` starts at 0. MLX's random state is untouched.

    Returns:
        The full names of the adapted layers.

    Raises:
        ConfigError: a target matches no layer, `num_layers` does not fit, or DoRA cannot be used.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    names = choose_layers(model, spec.target_modules, spec.num_layers, spec.read_from)
    if spec.dora:
        _check_dora(model, names, setting_words("dora", spec.read_from))
    count = len(adapted_blocks(model, spec.num_layers, spec.read_from))
    keys = mlx_lm_keys(model, names, count)
    model.freeze()
    parameters = {"rank": spec.rank, "scale": spec.scale, "dropout": spec.dropout, "keys": keys}
    with _seeded(seed):
        linear_to_lora_layers(model, count, parameters, use_dora=spec.dora)
        # Drawn lazily, the values would be computed in the first training step.
        mx.eval(model.trainable_parameters())
    if spec.dropout > 0:
        for _, layer in adapter_layers(model):
            layer.dropout = KeyedDropout(spec.dropout)
    model.eval()
    return names


def _check_dora(model: nn.Module, names: list[str], setting: str) -> None:
    """Refuse what mlx-lm's DoRA layer cannot do, before it fails in the middle of a step."""
    modules = dict(model.named_modules())
    for name in names:
        module: Any = modules[name]
        if type(module) not in (nn.Linear, nn.QuantizedLinear):
            raise ConfigError(
                f"{setting}: {name} is a {type(module).__name__}, for which there is no DoRA.",
                "Leave out --dora, or name dense layers with --target-modules.",
            )
        # DoRALinear computes the input width with 32 // bits.
        if 32 % getattr(module, "bits", 32):
            raise ConfigError(
                f"{setting}: {name} is quantized to {module.bits} bits; mlx-lm's DoRA works for "
                "2, 4 and 8.",
                "Leave out --dora, or take a model with 4 or 8 bits.",
            )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from a seed inside, and put MLX's random state back afterwards."""
    state: Any = mx.random.state
    high, low = state[0].tolist()
    mx.random.seed(seed)
    try:
        yield
    finally:
        # The state cannot be assigned since MLX 0.32.1; a seed of both halves restores it exactly.
        mx.random.seed((high << 32) | low)


def adapter_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Return the adapted layers with their full names, in the order of the model."""
    found = {name: module for name, module in model.named_modules() if "lora_a" in module}
    return [(name, found[name]) for name in in_model_order(found)]


def adapter_parameters(model: nn.Module) -> dict[str, mx.array]:
    """Return the adapter's arrays by name: `lora_a` [I, R], `lora_b` [R, O], DoRA's `m` [O]."""
    named: Any = tree_flatten(model.trainable_parameters())
    return {name: array for name, array in named if name != HEAD_WEIGHT}


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return (trainable, total) numbers of weights; a packed weight counts as what it stands for.

    The total includes adapter and reward head; scales and biases of a quantization do not count.
    """
    trained, arrays = (
        cast("list[tuple[str, mx.array]]", tree_flatten(tree))
        for tree in (model.trainable_parameters(), model.parameters())
    )
    trainable = sum(array.size for _, array in trained)
    total = sum(array.size for _, array in arrays)
    for module in model.modules():
        if "scales" in module and hasattr(module, "bits"):
            packed: Any = module
            total += packed.weight.size * 32 // packed.bits - packed.weight.size
            extra = [packed.get(name) for name in ("scales", "biases", "global_scale")]
            total -= sum(array.size for array in extra if array is not None)
    return trainable, total


def detach_adapter(model: nn.Module) -> None:
    """Take the adapter off for good: the layers it wraps are put back, and stay frozen."""
    model.update_modules(_tree([(name, layer.linear) for name, layer in adapter_layers(model)]))


class AdapterSwitch:
    """Switches a model's adapter off for a while; its layers are looked up once.

    Attributes:
        has_adapter: whether there is anything to switch.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        layers = adapter_layers(model)
        self.has_adapter = bool(layers)
        self._on = _tree(layers)
        # The adapted layers are replaced by the layers they wrap: a scale of 0 would not undo DoRA.
        self._off = _tree([(name, layer.linear) for name, layer in layers])

    @contextmanager
    def off(self) -> Iterator[None]:
        """Answer as the base model inside, exactly; the adapter is back afterwards."""
        self._model.update_modules(self._off)
        try:
            yield
        finally:
            self._model.update_modules(self._on)


class AdapterSet:
    """Adapters of one model, which wears one of them at a time or none; its weights stay."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kept: dict[str, list[tuple[str, Any]]] = {}

    def keep(self, name: str) -> None:
        """Take off the adapter that is attached, and keep it under a name."""
        self._kept[name] = adapter_layers(self._model)
        detach_adapter(self._model)

    def wear(self, name: str) -> None:
        """Answer with a kept adapter; a name under which none is kept is the base, exactly."""
        detach_adapter(self._model)
        self._model.update_modules(_tree(self._kept.get(name, [])))


def adapter_switched_off(model: nn.Module) -> AbstractContextManager[None]:
    """Answer as the base model inside, exactly; the adapter is back afterwards."""
    return AdapterSwitch(model).off()


def _tree(modules: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: Any = tree_unflatten(modules) if modules else {}
    return tree
