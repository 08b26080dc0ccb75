"""Everything needed to resume exactly, in one directory, committed by one rename.

    checkpoints/0000100/
      adapters.safetensors, adapter_config.json   the adapter, itself loadable by mlx-lm
      optimizer.safetensors                       every array of the optimizer's state
      progress.json                               step, counters, best so far, unreported metrics
      manifest.json                               sha256 of the above and itself, settings, prints

Nothing else is state: the learning rate, the order of the pairs and dropout follow from the
settings and the step. Checkpoints are taken between steps only, so no gradient is ever half
accumulated in one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
from mlx.utils import tree_flatten, tree_map_with_path

from orpo_mlx.distributed.peers import Peers
from orpo_mlx.models.weights import load_checked
from orpo_mlx.runs.checkpoints import (
    MANIFEST,
    PROGRESS,
    Progress,
    _sha256,
    checkpoint_path,
    damage,
    seal,
    versions,
)
from orpo_mlx.storage.atomic import fsync_tree, private_folder, put_in_place, sync_directory

OPTIMIZER = "optimizer.safetensors"


def save_checkpoint(
    folder: Path,
    progress: Progress,
    optimizer: optimizers.Optimizer,
    write_adapter: Callable[[Path], None],
    identity: dict[str, Any],
) -> Path:
    """Write a checkpoint aside, sync it, and commit it by one rename.

    Args:
        folder: the run's `checkpoints/`.
        progress: its `step` names the checkpoint.
        optimizer: between two steps, its state evaluated.
        write_adapter: writes the adapter's files into the folder it is given.
        identity: what a resumed run must share (settings, data and model fingerprints).

    Raises:
        OSError, RuntimeError: the disk is full or the folder cannot be written; older checkpoints
            are untouched, and what was written aside is removed.
    """
    target = checkpoint_path(folder, progress.step)
    if target.exists() and damage(target) is None:
        return target  # the same step of the same run has the same bytes

    def write(aside: Path) -> None:
        write_adapter(aside)
        _save_arrays(aside / OPTIMIZER, dict(tree_flatten(optimizer.state)))
        _write_json(aside / PROGRESS, asdict(progress))
        manifest = {"format": 1, "step": progress.step, "versions": versions(), **identity}
        manifest["sha256"] = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        (aside / MANIFEST).write_bytes(seal(manifest))

    replace_folder(target, write)
    return target


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Write a folder aside and put it in the place of an older one of the same name.

    Raises:
        OSError, RuntimeError: it could not be written; the older one is untouched.
    """
    with private_folder(target.parent) as private:
        aside = private / target.name
        aside.mkdir()
        write(aside)
        fsync_tree(aside)
        put_in_place(aside, target)
    sync_directory(target.parent)


def _save_arrays(path: Path, arrays: dict[str, mx.array]) -> None:
    # MLX appends ".safetensors" to other names; an open file takes any.
    with path.open("wb") as file:
        mx.save_safetensors(file, arrays)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load_optimizer(path: Path, optimizer: optimizers.Optimizer) -> None:
    """Restore the state of an initialised optimizer, bit for bit.

    Raises:
        AdapterError: names or shapes are not those of this run's optimizer.
    """
    expected = dict(tree_flatten(optimizer.state))
    shapes = {name: tuple(value.shape) for name, value in expected.items()}
    _fill(optimizer, load_checked(path / OPTIMIZER, shapes, within=path, any_dtype=True))


def copy_optimizer(optimizer: optimizers.Optimizer, peers: Peers) -> None:
    """Have process 0's state in all processes of a run."""
    _fill(optimizer, dict(tree_flatten(peers.copy_arrays(optimizer.state))))


def _fill(optimizer: optimizers.Optimizer, arrays: dict[str, mx.array]) -> None:
    # Filled, not replaced: a compiled update holds on to this very dictionary.
    optimizer.state.update(tree_map_with_path(lambda name, _: arrays[name], optimizer.state))
