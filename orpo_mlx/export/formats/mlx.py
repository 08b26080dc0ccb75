"""The adapter folder as mlx-lm reads it, with a model card and checksums."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.files import CONFIG_FILE, WEIGHTS_FILE
from orpo_mlx.export import card
from orpo_mlx.export.base import is_hub_id
from orpo_mlx.export.checks import ExportCheck, check_finite, check_tensors
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.serving import with_mlx
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.written import (
    Exported,
    Target,
    check_checksums,
    require_space,
    write_folder,
)
from orpo_mlx.models.weights import load_checked
from orpo_mlx.text.commands import command_line

_PORTABLE = ("fine_tune_type", "lora_parameters", "base_fingerprint", "orpo_mlx_version")


def export(source: AdapterSource, target: Target, say: ExportListener) -> Exported:
    """Copy the adapter's two files byte for byte, and describe them.

    With --base-id the settings name that, and no path of this machine.

    Raises:
        AdapterError, ModelError, ExportError: the adapter is not sound, or cannot be written.
        ExportCheckError: what was written is not the adapter; it was removed.
    """
    say.step(0, 3, "reading the adapter")
    shapes = _shapes(source)
    size = (source.folder / WEIGHTS_FILE).stat().st_size
    require_space(target.path, size)
    base_id = source.base.original_id(target.options.get("base_id"))[0]

    def write(folder: Path) -> None:
        say.step(1, 3, "writing")
        shutil.copyfile(source.folder / WEIGHTS_FILE, folder / WEIGHTS_FILE)
        if target.is_shared:
            _write_config(folder / CONFIG_FILE, source, base_id)
        else:
            shutil.copyfile(source.folder / CONFIG_FILE, folder / CONFIG_FILE)
        card.write(folder, source, "mlx", base_id)

    def inspect(folder: Path) -> list[ExportCheck]:
        say.step(2, 3, "checking what was written")
        arrays = load_checked(folder / WEIGHTS_FILE, shapes, within=folder)
        return [
            check_tensors({n: a.shape for n, a in arrays.items()}, shapes),
            check_finite((n, np.array(a.astype(mx.float32))) for n, a in arrays.items()),
            check_checksums(folder),
        ]

    files = write_folder(target, write, inspect, say.verified)
    command = command_line(
        "mlx_lm.generate", "--model", source.base.recorded_name, "--adapter-path", target.path,
        "--prompt", "Hello",
    )  # fmt: skip
    serve = [with_mlx(source.base.recorded_name, target.path)]
    return Exported(target.path, files, command, serve, card.unnamed_base(base_id))


def _write_config(path: Path, source: AdapterSource, base_id: str) -> None:
    """Write adapter_config.json without what holds on this machine only.

    mlx-lm's own trainer leaves paths of its data and of the adapter there.
    """
    kept = {
        key: value
        for key, value in source.config.items()
        if key in _PORTABLE or not isinstance(value, (str, list, dict))
    }
    kept["base_model"] = source.base.name if is_hub_id(source.base.name) else base_id
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shapes(source: AdapterSource) -> dict[str, tuple[int, ...]]:
    arrays = {}
    for layer in source.layers:
        for name, array in (("lora_a", layer.a), ("lora_b", layer.b), ("m", layer.m)):
            if array is not None:
                arrays[f"{layer.path}.{name}"] = tuple(array.shape)
    return arrays
