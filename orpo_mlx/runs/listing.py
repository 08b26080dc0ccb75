"""All runs in a folder: a summary of each, and finding one by what a person types."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path

from orpo_mlx.errors import RunError
from orpo_mlx.runs.directory import RunDirectory, Status, runs_folder
from orpo_mlx.runs.events import (
    Record,
    Resumed,
    RunFinished,
    RunStarted,
    StepCompleted,
    decode,
    read_last_events,
)
from orpo_mlx.settings_file import expanded

_HEAD_BYTES = 1 << 18


@dataclass(frozen=True)
class RunSummary:
    """One line of `orpo-mlx runs`; what is not known yet is None."""

    id: str
    path: Path
    status: Status
    model: str | None
    data: str | None
    step: int
    total_steps: int
    loss: float | None
    log_odds_ratio: float | None
    preference_accuracy: float | None
    started: float | None
    """Unix seconds of the first start."""


def list_runs(runs_dir: str | Path | None = None) -> list[RunSummary]:
    """Return every run in a folder, the newest first; half-written ones included."""
    return sorted(
        (summarise(run) for run in iter_runs(runs_dir)),
        key=lambda summary: (summary.started or 0.0, summary.id),
        reverse=True,
    )


def iter_runs(runs_dir: str | Path | None = None) -> list[RunDirectory]:
    """Return the run directories in a folder by name; [] if there is no such folder."""
    folder = runs_folder(runs_dir)
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []
    return [run for run in map(RunDirectory, paths) if run.is_run()]


def summarise(run: RunDirectory) -> RunSummary:
    """Read a run's summary from both ends of its event file, in bounded time."""
    status = run.read_status()
    last = read_last_events(run.events_file)
    state = run.read_state()
    first = _first_start(run.events_file)
    begun = first.event if first and isinstance(first.event, RunStarted) else None
    measured = last_step(last)
    model, data = (begun.model, begun.data) if begun else _configured(run)
    return RunSummary(
        id=run.id,
        path=run.path,
        status=status,
        model=model,
        data=data,
        step=_step(last, state.step if state else 0),
        total_steps=state.total_steps if state else begun.total_steps if begun else 0,
        loss=measured.loss if measured else None,
        log_odds_ratio=measured.log_odds_ratio if measured else None,
        preference_accuracy=measured.preference_accuracy if measured else None,
        started=first.time if first else _modified(run.config_file),
    )


def last_step(records: list[Record]) -> StepCompleted | None:
    """Return the last measured step that no resume made void."""
    limit = float("inf")
    for record in reversed(records):
        event = record.event
        if isinstance(event, Resumed) and event.new_process:
            limit = min(limit, event.step)
        elif isinstance(event, StepCompleted) and event.step <= limit:
            return event
    return None


def _step(records: list[Record], reported: int) -> int:
    for record in reversed(records):
        if isinstance(record.event, RunFinished):
            return record.event.step
        if isinstance(record.event, StepCompleted | Resumed):
            break
    measured = last_step(records)
    return max(reported, measured.step if measured else 0)


def _first_start(path: Path) -> Record | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    for line in head.split(b"\n")[:-1]:
        try:
            record = decode(line.decode("utf-8", errors="replace"))
        except (ValueError, TypeError):
            continue
        if isinstance(record.event, RunStarted):
            return record
    return None


def _configured(run: RunDirectory) -> tuple[str | None, str | None]:
    try:
        raw = tomllib.loads(run.config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    model, data = raw.get("model"), raw.get("data")
    return str(model) if model else None, str(data) if data else None


def memory_shares(runs_dir: str | Path | None = None) -> list[float]:
    """Return peak memory / estimate of each finished run in a folder that recorded both."""
    shares = []
    for run in iter_runs(runs_dir):
        first, last = _first_start(run.events_file), read_last_events(run.events_file)
        estimated = getattr(first.event, "estimated_peak_bytes", 0) if first else 0
        finished = [record.event for record in last if isinstance(record.event, RunFinished)]
        if not (estimated and finished):
            continue
        peak = finished[-1].peak_memory_bytes or getattr(last_step(last), "peak_memory_bytes", 0)
        if peak:
            shares.append(peak / estimated)
    return sorted(shares)


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def find_run(text: str, runs_dir: str | Path | None = None) -> RunDirectory:
    """Return the run with this id, this unique beginning of an id, or this path.

    Raises:
        RunError: there is none (with near names) or several.
    """
    runs = {run.id: run for run in iter_runs(runs_dir)}
    if text in runs:
        return runs[text]
    path = expanded(text)
    if text and RunDirectory(path).is_run():
        return RunDirectory(path.absolute())
    matches = [run for run_id, run in runs.items() if text and run_id.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunError(
            f"{text!r} is the beginning of {len(matches)} runs: "
            + ", ".join(run.id for run in matches[:4])
            + (", ..." if len(matches) > 4 else ""),
            "Give more of the name; `orpo-mlx runs` lists all.",
        )
    raise _not_found(text, list(runs), runs_folder(runs_dir))


def _not_found(text: str, ids: list[str], folder: Path) -> RunError:
    path = expanded(text)
    if text and (path / "adapter_config.json").is_file():
        return RunError(
            f"{path}: is an adapter, not a run (looked for config.toml, events.jsonl, run.lock)",
            f"To train it further start a new run with --init-adapter {path}.",
        )
    if text and path.is_dir():
        return RunError(
            f"{path}: is not a run (looked for config.toml, events.jsonl, run.lock)",
            "Give the folder of a run or its id; `orpo-mlx runs` lists all.",
        )
    near = difflib.get_close_matches(text, ids, n=3, cutoff=0.5)
    hint = f"; near: {', '.join(near)}" if near else ""
    return RunError(
        f"there is no run {text!r} in {folder}{hint}",
        "`orpo-mlx runs` lists all runs; one made with --run-dir is named by its path.",
    )
