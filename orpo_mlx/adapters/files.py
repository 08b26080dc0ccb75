"""An adapter on disk, in mlx-lm's format: saved, described and loaded.

Written so that mlx-lm itself rebuilds it, and read through the import gate only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.adapters.lora import AdapterSpec, adapter_layers, adapter_parameters
from orpo_mlx.adapters.reward_head import has_head, holds_head, load_head_into, save_head
from orpo_mlx.adapters.targets import ALL, adapted_blocks, mlx_lm_keys
from orpo_mlx.errors import AdapterError
from orpo_mlx.models.weights import load_checked
from orpo_mlx.storage.atomic import replace_file, write_atomically
from orpo_mlx.storage.safetensors import check_safetensors, read_json_object
from orpo_mlx.version import __version__

WEIGHTS_FILE = "adapters.safetensors"
CONFIG_FILE = "adapter_config.json"


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
        model: with the adapter attached; a reward model's head is written beside it.
        spec: as it was attached.
        folder: made if missing.
        base_model: path or Hub id of the base, for the check on loading.
        base_fingerprint: of the base, from `LoadedModel.fingerprint`.
        extra: more keys for adapter_config.json; mlx-lm ignores what it does not know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = len(adapted_blocks(model, spec.num_layers))
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
    arrays = adapter_parameters(model)

    def write(aside: Path) -> None:
        # Given a path, MLX appends ".safetensors" to names without it; an open file takes any.
        with aside.open("wb") as file:
            mx.save_safetensors(file, arrays, metadata={"format": "mlx"})

    replace_file(folder / WEIGHTS_FILE, write)
    text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(folder / CONFIG_FILE, text.encode())
    if has_head(model):
        save_head(model, folder)


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
        read_from=path,
    )


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read a saved adapter's settings file.

    Raises:
        AdapterError: it is missing, not a JSON object, or in PEFT's format.
    """
    path = folder / CONFIG_FILE
    if not folder.exists():
        raise AdapterError(
            f"{folder}: there is no such folder.",
            f"Give the folder of an adapter: it holds {CONFIG_FILE} and {WEIGHTS_FILE}.",
        )
    if not path.is_file():
        inside = folder / "adapter" / CONFIG_FILE  # a run was given instead of what it made
        raise AdapterError(
            f"{folder}: there is no {CONFIG_FILE}, so this is no adapter folder.",
            f"Give {inside.parent}, which is one."
            if inside.is_file()
            else f"Give a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}.",
        )
    config = read_json_object(path, AdapterError)
    if "peft_type" in config or (folder / "adapter_model.safetensors").exists():
        raise AdapterError(
            f"{folder}: this adapter is in PEFT's format; mlx-lm's format is needed here.",
            "Give it to --init-adapter, which imports it, or to `orpo-mlx adapter import`.",
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
    if not is_number or not low <= value <= high:
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

    A reward model's head is set, too, if the folder has one.

    Args:
        model: with an adapter attached as `read_adapter_spec(folder)` says.
        folder: in mlx-lm's format.
        base_fingerprint: of the model at hand, from `LoadedModel.fingerprint`.
        base_model: its path or Hub id, compared where the adapter has no fingerprint.

    Raises:
        AdapterError: tensors are missing, surplus, of another shape or not finite, or the adapter
            was trained on another base. A folder that does not name its base passes.
    """
    check_base(folder, read_adapter_config(folder), base_fingerprint, base_model)
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
    if has_head(model) and holds_head(folder):
        load_head_into(model, folder)
    mx.eval(model.trainable_parameters())


def check_base(
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
        prints = f" ({str(recorded_print)[:12]})" if recorded_print else ""
        ours = f" ({base_fingerprint[:12]})" if recorded_print and base_fingerprint else ""
        raise AdapterError(
            f"{folder}: the adapter was trained on {recorded or 'a model'}{prints}; the base model "
            f"here is {base_model or 'another one'}{ours}.",
            "Give the model the adapter was trained on with --model (same files, same revision).",
        )
