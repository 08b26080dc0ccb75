"""Which layers of a model an adapter goes on, and the names mlx-lm knows them by."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlx.nn as nn

from orpo_mlx.errors import ConfigError
from orpo_mlx.text.spelling import did_you_mean

ALL = "all"
"""The target that means every linear layer of the adapted blocks."""
_OTHER_MODEL = "Name the model that this adapter was trained on."


def count_blocks(model: nn.Module) -> int:
    """Return the number of transformer blocks, L."""
    return len(_blocks(model))


def _blocks(model: Any) -> list[nn.Module]:
    return list(model.layers)


def setting_words(name: str, read_from: Path | None) -> str:
    """Return what a message calls a setting: the flag, or the file that it was read from."""
    return f"{read_from}: {name}" if read_from else f"--{name.replace('_', '-')}"


def adapted_blocks(
    model: nn.Module, num_layers: int, read_from: Path | None = None
) -> dict[str, nn.Module]:
    """Return the last `num_layers` blocks by full name.

    Raises:
        ConfigError: there are fewer blocks, or the number is 0, which mlx-lm takes for all.
    """
    blocks = _blocks(model)
    count = len(blocks) if num_layers == -1 else num_layers
    if not 1 <= count <= len(blocks):
        raise ConfigError(
            f"{setting_words('num_layers', read_from)} {num_layers}: this model has {len(blocks)} "
            "blocks.",
            _OTHER_MODEL if read_from else f"Give a number from 1 to {len(blocks)}, or -1 for all.",
        )
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(block)]: block for block in blocks[-count:]}


def _is_linear(module: nn.Module) -> bool:
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

    kinds = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)
    return isinstance(module, kinds) or hasattr(module, "to_lora")


def linear_layer_names(model: nn.Module) -> list[str]:
    """Return the full names of all layers that can get an adapter, in the order of the model."""
    return in_model_order(name for name, module in model.named_modules() if _is_linear(module))


def in_model_order(names: Iterable[str]) -> list[str]:
    """Sort full names by block number: the module tree is walked from its end."""
    return sorted(names, key=lambda name: [(p.isdigit(), p.zfill(6)) for p in name.split(".")])


def choose_layers(
    model: nn.Module, targets: Iterable[str], num_layers: int, read_from: Path | None = None
) -> list[str]:
    """Return the full names of the layers that the targets mean, in the order of the model.

    A target matches whole parts at the end of a name: "q_proj" and "self_attn.q_proj" both match
    "model.layers.3.self_attn.q_proj". Only full paths reach blocks before the last `num_layers`.

    Args:
        model: without adapter.
        targets, num_layers: as in an `AdapterSpec`.
        read_from: the file that says them; None for a user's settings.

    Raises:
        ConfigError: a target matches no layer, or `num_layers` does not fit the model.
    """
    names = linear_layer_names(model)
    blocks = adapted_blocks(model, num_layers, read_from)
    in_any_block = _names_inside(names, adapted_blocks(model, -1))
    in_last_blocks = _names_inside(names, blocks)
    outside = [name for name in names if name not in in_any_block]
    chosen: set[str] = set()
    for target in targets:
        if target == ALL:
            found = set(in_last_blocks)
        else:
            reach = [*in_last_blocks, *outside]
            found = {name for name in reach if f".{name}".endswith(f".{target}")}
            found |= {target} & set(names)
        if not found:
            raise _no_such_layer(target, [*in_last_blocks, *outside], read_from)
        chosen |= found
    return [name for name in names if name in chosen]


def _names_inside(names: Iterable[str], blocks: Iterable[str]) -> list[str]:
    prefixes = tuple(f"{block}." for block in blocks)
    return [name for name in names if name.startswith(prefixes)]


def _no_such_layer(target: str, names: list[str], read_from: Path | None) -> ConfigError:
    available = sorted({name.rpartition(".")[2] for name in names})
    tied = " (its output layer is the embedding, used twice)" if target == "lm_head" else ""
    where = f"{read_from}: it adapts" if read_from else "--target-modules"
    return ConfigError(
        f"{where} {target}: the adapted blocks have no linear layer of that "
        f"name{tied}{did_you_mean(target, available)}",
        f"Available: {ALL}, {', '.join(available)}." + (f" {_OTHER_MODEL}" if read_from else ""),
    )


def mlx_lm_keys(model: nn.Module, names: Iterable[str], num_layers: int) -> list[str]:
    """Return the `keys` from which mlx-lm rebuilds exactly these layers.

    mlx-lm compares keys with names inside each of the last blocks and with full names. So a layer
    that all of these blocks share is written once without its block, any other by its full name.

    Args:
        model: with or without adapter.
        names: full names of the adapted layers.
        num_layers: how many blocks mlx-lm will be told.
    """
    blocks = adapted_blocks(model, num_layers)
    wanted = list(names)
    keys: dict[str, None] = {}
    for name in wanted:
        block = next((block for block in blocks if name.startswith(f"{block}.")), None)
        inner = name[len(block) + 1 :] if block else ""
        twins = [f"{b}.{inner}" for b, m in blocks.items() if inner in dict(m.named_modules())]
        shared = bool(inner) and all(twin in wanted for twin in twins)
        keys[inner if shared else name] = None
    return list(keys)
