"""Checkpoints as folders: their names, manifest, progress, damage; the newest sound one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orpo_mlx.errors import CheckpointError, reason_of
from orpo_mlx.runs.typed import problem
from orpo_mlx.storage.atomic import DELETING, WRITING, remove_at_once
from orpo_mlx.storage.regular import open_regular, read_regular

MANIFEST = "manifest.json"


PROGRESS = "progress.json"


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
    unreported: list[list[float | None]] = field(default_factory=list)
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


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint so that a kill half-way leaves nothing that looks like one."""
    remove_at_once(path)


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written; only the holder of the run's lock may."""
    for kind in (WRITING, DELETING):
        for stale in folder.glob(f"{kind}*"):
            shutil.rmtree(stale, ignore_errors=True)


def iter_checkpoints(folder: Path) -> Iterator[Path]:
    """Yield the committed checkpoints, newest first."""
    found = [p for p in folder.glob("[0-9]*") if p.name.isdigit() and p.is_dir()]
    yield from sorted(found, key=lambda path: int(path.name), reverse=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it no longer counts as one; nothing is deleted."""
    target = path.with_name(f".damaged-{path.name}-{secrets.token_hex(4)}")
    os.rename(path, target)
    return target


def prune(folder: Path, keep: int, best_step: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the best one."""
    for path in list(iter_checkpoints(folder))[keep:]:
        if best_step is None or int(path.name) != best_step:
            remove_checkpoint(path)


_NO_DIGEST = "0" * 64


def seal(manifest: dict[str, Any]) -> bytes:
    """Return the bytes of a manifest with `digest`, the sha256 of them all.

    The digest's own place counts as 64 zeros, so that no bit can change without being noticed.
    """
    content = {**manifest, "digest": _NO_DIGEST}
    data = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    return data.replace(_NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a checkpoint.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not as it was written; the text says what is wrong.
    """
    data = read_regular(path / MANIFEST)
    manifest = _object(data)
    digest = manifest.get("digest")
    if not isinstance(digest, str) or len(digest) != len(_NO_DIGEST):
        raise ValueError("it has no digest of itself")
    zeroed = data.replace(digest.encode(), _NO_DIGEST.encode(), 1)
    if hashlib.sha256(zeroed).hexdigest() != digest:
        raise ValueError("it has changed since it was written (sha256 differs)")
    for name in ("sha256", "versions", "settings", "content"):
        if not isinstance(manifest.get(name, {}), dict):
            raise ValueError(f"{name} is no object")
    if not manifest.get("sha256"):
        raise ValueError("it lists no files")
    return manifest


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def damage(path: Path) -> str | None:
    """Say what is wrong with a checkpoint, or None if every byte is as it was written."""
    name = MANIFEST
    try:
        for name, digest in read_manifest(path)["sha256"].items():
            if Path(name).name != name:
                return f"{MANIFEST} names {name!r}, which is no file of the checkpoint"
            if _sha256(path / name) != digest:
                return f"{name} has changed since it was written (sha256 differs)"
        name = PROGRESS
        if (step := read_progress(path).step) != int(path.name):
            return f"{PROGRESS} is of step {step}"
    except (OSError, ValueError) as error:
        return f"{name} cannot be used ({reason_of(error)})"
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
            return FoundCheckpoint(path, read_manifest(path), tuple(skipped))
        skipped.append((path, reason))
    looked = "; ".join(f"{path.name}: {reason}" for path, reason in skipped)
    raise CheckpointError(
        f"{folder}: no checkpoint can be resumed "
        + (f"({looked})" if looked else f"(looked for {folder}/0000100 and the like)"),
        f"Start it anew: `orpo-mlx train --config {folder.parent / 'config.toml'}`.",
    )


def read_progress(path: Path) -> Progress:
    """Read the plain numbers of a valid checkpoint; unknown fields are ignored.

    Raises:
        OSError: they cannot be read.
        ValueError: they are not what they should be.
    """
    raw = _object(read_regular(path / PROGRESS))
    if wrong := problem(Progress, raw):
        raise ValueError(wrong)
    known = {f.name for f in fields(Progress)}
    return Progress(**{key: value for key, value in raw.items() if key in known})
