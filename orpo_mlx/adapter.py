"""LoRA on, off, counted, saved and loaded: mlx-lm's layers and file format, our dropout.

The layers are mlx-lm's own, so plain, quantized and mixture-of-experts layers work and mlx-lm loads
what is saved here. Two things differ. The start is drawn from a seed and leaves MLX's random state
as it was. Dropout takes its mask from a key that is handed in, since a mask drawn from global state
would be another one when a checkpointed block is computed again in the backward pass, and a resumed
run could not be the same run.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from orpo_mlx import __version__
from orpo_mlx.config import TrainConfig, adapter_scale
from orpo_mlx.durable import sync_descriptor, sync_directory, write_atomically
from orpo_mlx.errors import AdapterError, ConfigError
from orpo_mlx.import_gate import check_safetensors, load_checked
from orpo_mlx.suggestions import did_you_mean

WEIGHTS_FILE = "adapters.safetensors"
CONFIG_FILE = "adapter_config.json"
ALL = "all"


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
    """

    rank: int = 8
    scale: float = 2.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = (ALL,)
    num_layers: int = -1
    dora: bool = False


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


# Which layers


def count_blocks(model: nn.Module) -> int:
    """Return the number of transformer blocks, L."""
    return len(_blocks(model))


def _blocks(model: Any) -> list[nn.Module]:
    return list(model.layers)


def _adapted_blocks(model: nn.Module, num_layers: int) -> dict[str, nn.Module]:
    """Return the last `num_layers` blocks by full name.

    Raises:
        ConfigError: there are fewer blocks, or the number is 0, which mlx-lm takes for all.
    """
    blocks = _blocks(model)
    count = len(blocks) if num_layers == -1 else num_layers
    if not 1 <= count <= len(blocks):
        raise ConfigError(
            f"--num-layers {num_layers}: this model has {len(blocks)} blocks.",
            f"Give a number from 1 to {len(blocks)}, or -1 for all.",
        )
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(block)]: block for block in blocks[-count:]}


def _is_linear(module: nn.Module) -> bool:
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

    kinds = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)
    return isinstance(module, kinds) or hasattr(module, "to_lora")


def linear_layer_names(model: nn.Module) -> list[str]:
    """Return the full names of all layers that can get an adapter, in the order of the model."""
    # Sorted by number where there is one: the module tree is walked from its end.
    names = [name for name, module in model.named_modules() if _is_linear(module)]
    return sorted(names, key=lambda name: [(p.isdigit(), p.zfill(6)) for p in name.split(".")])


def choose_layers(model: nn.Module, spec: AdapterSpec) -> list[str]:
    """Return the full names of the layers that `spec` means, in the order of the model.

    A target matches whole parts at the end of a name: "q_proj" and "self_attn.q_proj" both match
    "model.layers.3.self_attn.q_proj". Only full paths reach blocks before the last `num_layers`.

    Raises:
        ConfigError: a target matches no layer, or `num_layers` does not fit the model.
    """
    names = linear_layer_names(model)
    blocks = _adapted_blocks(model, spec.num_layers)
    in_any_block = _names_inside(names, _adapted_blocks(model, -1))
    in_last_blocks = _names_inside(names, blocks)
    outside = [name for name in names if name not in in_any_block]
    chosen: set[str] = set()
    for target in spec.target_modules:
        if target == ALL:
            found = set(in_last_blocks)
        else:
            reach = [*in_last_blocks, *outside]
            found = {name for name in reach if f".{name}".endswith(f".{target}")}
            found |= {target} & set(names)
        if not found:
            raise _no_such_layer(target, [*in_last_blocks, *outside])
        chosen |= found
    return [name for name in names if name in chosen]


def _names_inside(names: Iterable[str], blocks: Iterable[str]) -> list[str]:
    prefixes = tuple(f"{block}." for block in blocks)
    return [name for name in names if name.startswith(prefixes)]


def _no_such_layer(target: str, names: list[str]) -> ConfigError:
    available = sorted({name.rpartition(".")[2] for name in names})
    tied = " (its output layer is the embedding, used twice)" if target == "lm_head" else ""
    return ConfigError(
        f"--target-modules {target}: the adapted blocks have no linear layer of that "
        f"name{tied}{did_you_mean(target, available)}",
        f"Available: {ALL}, {', '.join(available)}.",
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
    blocks = _adapted_blocks(model, num_layers)
    wanted = list(names)
    keys: dict[str, None] = {}
    for name in wanted:
        block = next((block for block in blocks if name.startswith(f"{block}.")), None)
        inner = name[len(block) + 1 :] if block else ""
        twins = [f"{b}.{inner}" for b, m in blocks.items() if inner in dict(m.named_modules())]
        shared = bool(inner) and all(twin in wanted for twin in twins)
        keys[inner if shared else name] = None
    return list(keys)


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

    names = choose_layers(model, spec)
    if spec.dora:
        _check_dora(model, names)
    count = len(_adapted_blocks(model, spec.num_layers))
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


def _check_dora(model: nn.Module, names: list[str]) -> None:
    """Refuse what mlx-lm's DoRA layer cannot do, before it fails in the middle of a step."""
    modules = dict(model.named_modules())
    for name in names:
        module: Any = modules[name]
        if type(module) not in (nn.Linear, nn.QuantizedLinear):
            raise ConfigError(
                f"--dora: {name} is a {type(module).__name__}, for which there is no DoRA.",
                "Leave out --dora, or name dense layers with --target-modules.",
            )
        # DoRALinear computes the input width with 32 // bits.
        if 32 % getattr(module, "bits", 32):
            raise ConfigError(
                f"--dora: {name} is quantized to {module.bits} bits; mlx-lm's DoRA works for "
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
    order = sorted(found, key=lambda name: [(p.isdigit(), p.zfill(6)) for p in name.split(".")])
    return [(name, found[name]) for name in order]


def adapter_parameters(model: nn.Module) -> dict[str, mx.array]:
    """Return the trainable arrays by name: `lora_a` [I, R], `lora_b` [R, O], DoRA's `m` [O]."""
    return dict(tree_flatten(model.trainable_parameters()))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return (trainable, total) numbers of weights; a packed weight counts as what it stands for.

    The total includes the adapter; scales and biases of the quantization are not weights.
    """
    trainable = sum(array.size for array in adapter_parameters(model).values())
    arrays: Any = tree_flatten(model.parameters())
    total = sum(array.size for _, array in arrays)
    for module in model.modules():
        if "scales" in module and hasattr(module, "bits"):
            packed: Any = module
            total += packed.weight.size * 32 // packed.bits - packed.weight.size
            extra = [packed.get(name) for name in ("scales", "biases", "global_scale")]
            total -= sum(array.size for array in extra if array is not None)
    return trainable, total


@contextmanager
def adapter_switched_off(model: nn.Module) -> Iterator[None]:
    """Answer as the base model inside, exactly; the adapter is back afterwards.

    The adapted layers are replaced by the layers they wrap: a scale of 0 would not undo DoRA.
    """
    layers = adapter_layers(model)
    base = [(name, layer.linear) for name, layer in layers]
    model.update_modules(_tree(base))
    try:
        yield
    finally:
        model.update_modules(_tree(layers))


def _tree(modules: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: Any = tree_unflatten(modules)
    return tree


# Dropout


class KeyedDropout(nn.Module):
    """Dropout whose mask follows from a key alone; see `set_dropout_key`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self._keep = 1 - p
        self._key: mx.array | None = None

    def __call__(self, x: mx.array) -> mx.array:
        """Zero a share of x while training and scale the rest up; elsewhere return x."""
        if not self.training:
            return x
        if self._key is None:
            raise RuntimeError("set_dropout_key was not called before a training forward pass")
        mask = mx.random.bernoulli(self._keep, x.shape, key=self._key)
        return (mask * x) * (1 / self._keep)


def set_dropout_key(model: nn.Module, key: mx.array | None) -> None:
    """Give every dropout layer its own key, all from one.

    Call it before each forward pass in training mode, inside the compiled function with the key as
    an argument, and with None afterwards, so that no layer keeps an array of the compiled graph.
    Passes with the same key and shapes have the same masks: use one key per pass.

    Args:
        model: with an adapter; nothing happens when its dropout is 0.
        key: as from `mx.random.key`, or None to take the keys away.
    """
    layers = [layer.dropout for _, layer in adapter_layers(model)]
    layers = [layer for layer in layers if isinstance(layer, KeyedDropout)]
    if not layers:
        return
    keys = [None] * len(layers) if key is None else mx.random.split(key, len(layers))
    for layer, own_key in zip(layers, keys, strict=True):
        layer._key = own_key


# To and from disk


def save_adapter(
    model: nn.Module,
    spec: AdapterSpec,
    folder: Path,
    base_model: str | None = None,
    base_fingerprint: str | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write the adapter so that `mlx_lm.load(..., adapter_path=folder)` rebuilds it.

    Each file is written aside, synced and renamed: a kill leaves the old one or the new one.

    Args:
        model: with the adapter attached.
        spec: as it was attached.
        folder: made if missing.
        base_model: path or Hub id of the base, for the check on loading.
        base_fingerprint: of the base, from `LoadedModel.fingerprint`.
        extra: more keys for adapter_config.json; mlx-lm ignores what it does not know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = len(_adapted_blocks(model, spec.num_layers))
    keys = mlx_lm_keys(model, [name for name, _ in adapter_layers(model)], count)
    config = {
        **(extra or {}),
        "fine_tune_type": "dora" if spec.dora else "lora",
        # Never -1 or 0: mlx-lm cuts `layers[-max(n, 0):]` and would take both for all by accident.
        "num_layers": count,
        "lora_parameters": {
            "rank": spec.rank,
            "scale": spec.scale,
            "dropout": spec.dropout,
            "keys": keys,
        },
        "base_model": base_model,
        "base_fingerprint": base_fingerprint,
        "orpo_mlx_version": __version__,
    }
    _save_arrays(folder / WEIGHTS_FILE, adapter_parameters(model))
    text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(folder / CONFIG_FILE, text.encode())


def _save_arrays(path: Path, arrays: dict[str, mx.array]) -> None:
    """Write aside, sync, rename: MLX itself empties the old file first and never syncs."""
    # MLX appends the suffix where it is missing.
    aside = path.with_name(f".{path.stem}.tmp-{secrets.token_hex(4)}{path.suffix}")
    try:
        mx.save_safetensors(str(aside), arrays, metadata={"format": "mlx"})
        with aside.open("rb") as file:
            sync_descriptor(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(path.parent)


def read_adapter_spec(folder: Path) -> AdapterSpec:
    """Read how a saved adapter was attached; attach the same, then `load_adapter_into`.

    Raises:
        AdapterError: no adapter in mlx-lm's format is there, or its settings make no sense.
    """
    config = read_adapter_config(folder)
    path = folder / CONFIG_FILE
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise AdapterError(
            f"{path}: fine_tune_type is {kind!r}; lora or dora is needed.",
            "Weights of a full fine-tune are a model, not an adapter: fuse them and use them as "
            "--model.",
        )
    parameters = config.get("lora_parameters")
    if not isinstance(parameters, dict):
        raise _bad_value(path, "lora_parameters", parameters, "rank, scale, dropout and keys")
    keys = parameters.get("keys")
    if keys is not None and not _is_name_list(keys):
        raise _bad_value(path, "keys", keys, "a list of layer names")
    layers: Any = config.get("num_layers")
    if not _is_whole(layers, -1, 10_000):
        raise _bad_value(path, "num_layers", layers, "a number of blocks, or -1")
    return AdapterSpec(
        rank=_number(path, parameters, "rank", whole=True, low=1, high=4096),
        scale=_number(path, parameters, "scale", low=-1e6, high=1e6),
        dropout=_number(path, parameters, "dropout", low=0, high=0.999, default=0.0),
        target_modules=tuple(keys) if keys is not None else (ALL,),
        # mlx-lm writes -1 for all, and takes 0 for all as well.
        num_layers=layers if layers > 0 else -1,
        dora=kind == "dora",
    )


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read a saved adapter's settings file.

    Raises:
        AdapterError: it is missing, not a JSON object, or in PEFT's format.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise AdapterError(
            f"{folder}: there is no {CONFIG_FILE}, so this is no adapter folder.",
            f"Give a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}.",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise AdapterError(
            f"{path}: not readable as JSON ({error}).", "Copy the adapter folder again."
        ) from error
    if not isinstance(config, dict):
        raise AdapterError(
            f"{path}: holds a {type(config).__name__}; an object is needed.",
            "Copy the adapter folder again.",
        )
    if "peft_type" in config or (folder / "adapter_model.safetensors").exists():
        raise AdapterError(
            f"{folder}: this adapter is in PEFT's format; mlx-lm's format is needed here.",
            "Give it to --init-adapter, which imports it; what a run saves is in mlx-lm's format.",
        )
    return config


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_name_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _number(
    path: Path,
    parameters: dict[str, Any],
    name: str,
    *,
    low: float,
    high: float,
    whole: bool = False,
    default: float | None = None,
) -> Any:
    value = parameters.get(name, default)
    kinds = (int,) if whole else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    # NaN fails the comparison.
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        noun = "a whole number" if whole else "a number"
        raise _bad_value(path, name, value, f"{noun} from {low:g} to {high:g}")
    return value if whole else float(value)


def _bad_value(path: Path, name: str, value: Any, needed: str) -> AdapterError:
    return AdapterError(
        f"{path}: {name} is {str(value)[:80]!r}; {needed} is needed.",
        "Correct the file, or use an adapter that mlx-lm or orpo-mlx wrote.",
    )


def load_adapter_into(
    model: nn.Module,
    folder: Path,
    base_fingerprint: str | None = None,
    base_model: str | None = None,
) -> None:
    """Set the adapter's weights from a folder, after the import gate has passed them.

    Args:
        model: with an adapter attached as `read_adapter_spec(folder)` says.
        folder: in mlx-lm's format.
        base_fingerprint: of the model at hand, from `LoadedModel.fingerprint`.
        base_model: its path or Hub id, compared where the adapter has no fingerprint.

    Raises:
        AdapterError: tensors are missing, surplus, of another shape or not finite, or the adapter
            was trained on another base. A folder that does not name its base passes.
    """
    _check_base(folder, read_adapter_config(folder), base_fingerprint, base_model)
    current = adapter_parameters(model)
    expected = {name: tuple(array.shape) for name, array in current.items()}
    path = folder / WEIGHTS_FILE
    names = check_safetensors(path, within=folder)
    if names and all(name.startswith("base_model.model.") for name in names):
        raise AdapterError(
            f"{path}: tensor names such as {next(iter(names))} are PEFT's; mlx-lm's are needed.",
            "Give it to --init-adapter, which imports it; what a run saves is in mlx-lm's format.",
        )
    arrays = load_checked(path, expected, within=folder)
    # The file may hold half precision; training goes on in the adapter's own.
    weights = [(name, array.astype(current[name].dtype)) for name, array in arrays.items()]
    model.load_weights(weights, strict=False)
    mx.eval(model.trainable_parameters())


def _check_base(
    folder: Path, config: dict[str, Any], base_fingerprint: str | None, base_model: str | None
) -> None:
    """Refuse an adapter of another base; a fingerprint decides where both sides have one."""
    # mlx-lm itself records the base under "model".
    recorded = config.get("base_model") or config.get("model")
    recorded_print = config.get("base_fingerprint")
    if recorded_print and base_fingerprint:
        same = recorded_print == base_fingerprint
    elif recorded and base_model:
        # The same model may lie in a folder here and on the Hub there.
        same = Path(str(recorded)).name.lower() == Path(base_model).name.lower()
    else:
        same = True
    if not same:
        prints = f" ({recorded_print[:12]})" if recorded_print else ""
        ours = f" ({base_fingerprint[:12]})" if recorded_print and base_fingerprint else ""
        raise AdapterError(
            f"{folder}: the adapter was trained on {recorded or 'a model'}{prints}; the base model "
            f"here is {base_model or 'another one'}{ours}.",
            "Give the model the adapter was trained on with --model (same files, same revision).",
        )
