"""Ways in which the folder of an adapter gets damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

SETTINGS = "adapter_config.json"


def edit_json(path: Path, drop: tuple[str, ...] = (), **changes: object) -> None:
    """Change keys of a JSON object in a file, and drop others."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: content[key] for key in content if key not in drop}))


def edit_tensors(folder: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the tensors of an adapter."""
    file = folder / "adapters.safetensors"
    save_file(edit(load_file(file)), file)


def other_rank(folder: Path) -> None:
    """Say another rank than the tensors have."""
    lora = json.loads((folder / SETTINGS).read_text())["lora_parameters"]
    edit_json(folder / SETTINGS, lora_parameters={**lora, "rank": 4})


def with_nan(folder: Path) -> None:
    """Break three numbers of one tensor."""

    def edit(tensors: dict[str, Any]) -> dict[str, Any]:
        first = next(name for name in sorted(tensors) if name.endswith("q_proj.lora_a"))
        tensors[first].flat[:3] = np.nan
        return tensors

    edit_tensors(folder, edit)


def half_gone(folder: Path) -> None:
    """Keep one half of the tensors."""
    edit_tensors(folder, lambda tensors: {n: t for n, t in tensors.items() if "lora_a" in n})


def all_gone(folder: Path) -> None:
    """Keep no tensor."""
    edit_tensors(folder, lambda _: {})


def cut(folder: Path) -> None:
    """Keep the first half of the bytes."""
    file = folder / "adapters.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


row = pytest.param
DAMAGES = [
    row(other_rank, ("lora_a has shape (64, 2)", "(64, 4) is needed"), id="row 41: another rank"),
    row(with_nan, ("q_proj.lora_a", "holds 3 values that are NaN"), id="row 43: NaN"),
    row(half_gone, ("14 found of 28 expected tensors", "first missing: "), id="row 44: half"),
    row(all_gone, ("0 found of 28 expected tensors", "first missing: "), id="row 44: none"),
    row(cut, ("not a sound safetensors file",), id="row 44: half of the bytes"),
]
"""(damage, what its refusal says)."""
