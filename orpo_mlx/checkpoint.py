"""Everything needed to resume exactly, in one directory, committed by one rename.

    checkpoints/0000100/
      adapters.safetensors, adapter_config.json   the adapter, itself loadable by mlx-lm
      optimizer.safetensors                       every array of the optimizer's state
      progress.json                               step, counters, best so far, unreported metrics
      manifest.json                               sha256 of the above, versions, settings, prints

Nothing else is state: the learning rate, the order of the pairs and dropout follow from the
settings and the step. Checkpoints are taken between steps only, so no gradient is ever half
accumulated in one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
from mlx.utils import tree_flatten, tree_map_with_path

from orpo_mlx.config import iter_settings
from orpo_mlx.durable import fsync_tree, sync_directory
from orpo_mlx.errors import CheckpointError
from orpo_mlx.import_gate import load_checked

MANIFEST = "manifest.json"
OPTIMIZER = "optimizer.safetensors"
PROGRESS = "progress.json"

_BEFORE = {"keep_ties": True, "keep_inverted": True, "keep_duplicates": True}
"""What was done with such rows before there were settings for them."""


@dataclass
class Progress:
    """The part of a run's state that is plain numbers.

    Attributes:
        step: optimizer steps done.
        pairs, tokens: seen so far; tokens without padding.
        seconds: wall time spent training, evaluation and saving included, pauses excluded.
        unreported: metrics of the steps since the last StepCompleted event.
        best: best value of the chosen metric, its step, and evaluations since.
    """

    step: int = 0
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    unreported: list[list[float]] = field(default_factory=list)
    best_value: float | None = None
    best_step: int | None = None
    evals_since_best: int = 0


def versions() -> dict[str, str]:
    """Return the versions that decide whether numbers can be repeated."""
    names = ("orpo-mlx", "mlx", "mlx-lm", "transformers", "numpy")
    found = {}
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            found[name] = version(name)
    return found


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lives; names sort by step."""
    return folder / f"{step:07d}"


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
        _write_json(aside / MANIFEST, manifest)

    replace_folder(target, write)
    return target


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Write a folder aside and put it in the place of an older one of the same name.

    Raises:
        OSError, RuntimeError: it could not be written; the older one is untouched.
    """
    aside = target.with_name(f".writing-{target.name}-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        write(aside)
        fsync_tree(aside)
        _replace_directory(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_directory(target.parent)


def _replace_directory(aside: Path, target: Path) -> None:
    """Rename the old one away, the new one in, and only then delete."""
    doomed = target.with_name(f".deleting-{target.name}-{os.getpid()}")
    if target.exists():
        os.rename(target, doomed)
    os.rename(aside, target)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint so that a kill half-way leaves nothing that looks like one."""
    doomed = path.with_name(f".deleting-{path.name}-{os.getpid()}")
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _save_arrays(path: Path, arrays: dict[str, mx.array]) -> None:
    # MLX appends ".safetensors" to other names; an open file takes any.
    with path.open("wb") as file:
        mx.save_safetensors(file, arrays)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written; only the holder of the run's lock may."""
    for pattern in (".writing-*", ".deleting-*"):
        for stale in folder.glob(pattern):
            shutil.rmtree(stale, ignore_errors=True)


def iter_checkpoints(folder: Path) -> Iterator[Path]:
    """Yield the committed checkpoints, newest first."""
    found = [p for p in folder.glob("[0-9]*") if p.name.isdigit() and p.is_dir()]
    yield from sorted(found, key=lambda path: int(path.name), reverse=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it no longer counts as one; nothing is deleted."""
    target = path.with_name(f".damaged-{path.name}-{os.getpid()}")
    os.rename(path, target)
    return target


def prune(folder: Path, keep: int, best_step: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the best one."""
    for path in list(iter_checkpoints(folder))[keep:]:
        if best_step is None or int(path.name) != best_step:
            remove_checkpoint(path)


def damage(path: Path) -> str | None:
    """Say what is wrong with a checkpoint, or None if every byte is as it was written."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        expected = manifest["sha256"]
        for name, digest in expected.items():
            if _sha256(path / name) != digest:
                return f"{name} has changed since it was written (sha256 differs)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} or a file it lists cannot be read ({type(error).__name__}: {error})"
    return None


@dataclass(frozen=True)
class FoundCheckpoint:
    """The newest checkpoint that is whole, and the damaged ones passed over (path, reason)."""

    path: Path
    manifest: dict[str, Any]
    skipped: tuple[tuple[Path, str], ...]


def find_newest(folder: Path) -> FoundCheckpoint:
    """Return the newest valid checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    skipped: list[tuple[Path, str]] = []
    for path in iter_checkpoints(folder):
        reason = damage(path)
        if reason is None:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            return FoundCheckpoint(path, manifest, tuple(skipped))
        skipped.append((path, reason))
    looked = "; ".join(f"{path.name}: {reason}" for path, reason in skipped)
    raise CheckpointError(
        f"{folder}: no checkpoint can be resumed "
        + (f"({looked})" if looked else f"(looked for {folder}/0000100 and the like)"),
        "Start the run again; its settings are in config.toml beside that folder.",
    )


def read_progress(path: Path) -> Progress:
    """Read the plain numbers of a valid checkpoint; unknown fields are ignored."""
    raw = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
    known = {f.name for f in fields(Progress)}
    return Progress(**{key: value for key, value in raw.items() if key in known})


def load_optimizer(path: Path, optimizer: optimizers.Optimizer) -> None:
    """Restore the state of an initialised optimizer, bit for bit.

    Raises:
        AdapterError: names or shapes are not those of this run's optimizer.
    """
    expected = dict(tree_flatten(optimizer.state))
    shapes = {name: tuple(value.shape) for name, value in expected.items()}
    arrays = load_checked(path / OPTIMIZER, shapes, within=path, any_dtype=True)
    # Filled, not replaced: a compiled update holds on to this very dictionary.
    optimizer.state.update(tree_map_with_path(lambda name, _: arrays[name], optimizer.state))


def settings_before(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return how a run went that is older than some settings, where not as their defaults are."""
    recorded = manifest.get("settings", {})
    return {name: value for name, value in _BEFORE.items() if name not in recorded}


def require_same(identity: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Refuse to resume what would become another run.

    Raises:
        CheckpointError: naming every difference with its old and new value.
    """
    differences = []
    # A setting that came after the run began was as its default is, but for a few.
    before = {**{s.name: s.default for s in iter_settings()}, **settings_before(manifest)}
    settings = {f"settings.{name}": value for name, value in before.items()}
    recorded = {**settings, **_flatten(manifest)}
    for key, new in _flatten(identity).items():
        old = recorded.get(key, "(not recorded)")
        if old != new:
            differences.append(f"  {_option(key)}: was {_shown(old)}, is now {_shown(new)}")
    if differences:
        raise CheckpointError(
            "the run cannot be resumed, because it would not be the same run:\n"
            + "\n".join(differences),
            "Put the old values back, or start a new run from this adapter: --init-adapter.",
        )


def _option(key: str) -> str:
    """Name an entry of the manifest as the option it comes from."""
    group, _, name = key.partition(".")
    if name.startswith("data_revision."):
        return f"--data-revision of {name.partition('.')[2]}"
    return f"--{name.replace('_', '-')}" + (" (its content)" if group == "content" else "")


def _shown(value: Any) -> str:
    is_hash = isinstance(value, str) and len(value) == 64 and value.isalnum()
    return value[:12] if is_hash else repr(value)


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat
