"""The adapter folder as mlx-lm reads it, with a model card and checksums."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np

from orpo_mlx.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from orpo_mlx.export import card
from orpo_mlx.export.checks import Check, check_finite, check_tensors
from orpo_mlx.export.progress import Progress, command_line
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.written import (
    Exported,
    Target,
    check_checksums,
    require_space,
    write_folder,
)
from orpo_mlx.import_gate import load_checked


def export(source: AdapterSource, target: Target, say: Progress) -> Exported:
    """Copy the adapter's two files byte for byte, and describe them.

    Raises:
        AdapterError, ModelError, ExportError: the adapter is not sound, or cannot be written.
        ExportCheckError: what was written is not the adapter; it was removed.
    """
    say.step(0, 3, "reading the adapter")
    shapes = _shapes(source)
    size = (source.folder / WEIGHTS_FILE).stat().st_size
    require_space(target.path, size)

    def write(folder: Path) -> None:
        say.step(1, 3, "writing")
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(source.folder / name, folder / name)
        card.write(folder, source, "mlx", source.base.original_id(target.options.get("base_id"))[0])

    def inspect(folder: Path) -> list[Check]:
        say.step(2, 3, "checking what was written")
        arrays = load_checked(folder / WEIGHTS_FILE, shapes, within=folder)
        return [
            check_tensors({n: a.shape for n, a in arrays.items()}, shapes),
            check_finite((n, np.array(a.astype(mx.float32))) for n, a in arrays.items()),
            check_checksums(folder),
        ]

    files = write_folder(target, write, inspect, say.verified)
    command = command_line(
        "mlx_lm.generate", "--model", source.base.name, "--adapter-path", target.path,
        "--prompt", "Hello",
    )  # fmt: skip
    return Exported(target.path, files, command)


def _shapes(source: AdapterSource) -> dict[str, tuple[int, ...]]:
    arrays = {}
    for layer in source.layers:
        for name, array in (("lora_a", layer.a), ("lora_b", layer.b), ("m", layer.m)):
            if array is not None:
                arrays[f"{layer.path}.{name}"] = tuple(array.shape)
    return arrays
