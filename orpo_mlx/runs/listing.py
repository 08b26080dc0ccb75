"""All runs in a folder: a summary of each, and finding one by what a person types."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from orpo_mlx.config.file import expanded, parse_toml
from orpo_mlx.errors import RunError, reason_of
from orpo_mlx.runs.directory import RunDirectory, Status, runs_folder
from orpo_mlx.runs.events import (
    SIMULATION,
    EventReader,
    Record,
    Resumed,
    RunFinished,
    RunStarted,
    StepCompleted,
    read_last_events,
)
from orpo_mlx.runs.history import void_after
from orpo_mlx.runs.label import NO_LABEL, RunLabel, read_label
from orpo_mlx.runs.metrics import metric
from orpo_mlx.storage.regular import read_regular_text

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
    metrics: dict[str, float]
    """Of the last step; empty before the first."""
    started: float | None
    """Unix seconds of the first start."""
    damage: str = ""
    """What of its files makes no sense, "" if nothing was found."""
    label: RunLabel = NO_LABEL
    """What a person says about it."""

    def brief(self, name: str, digits: int = 2) -> str:
        """Return a metric where there is little room, "" if it is not known."""
        return metric(name).brief(self.metrics[name], digits) if name in self.metrics else ""


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
    """Read a run's summary from both ends of its event file, in bounded time.

    What is damaged costs itself only; a run that nobody trains is then listed as damaged.
    """
    status = run.read_status()
    head, last = _first_events(run.events_file), read_last_events(run.events_file)
    state = run.read_state()
    first = next((record for record in head if isinstance(record.event, RunStarted)), None)
    begun = first.event if first and isinstance(first.event, RunStarted) else None
    measured = last_step(last)
    model, data, trouble = (begun.model, begun.data, "") if begun else _configured(run)
    damage = next((record.damage for record in (*head, *last) if record.damage), trouble)
    return RunSummary(
        id=run.id,
        path=run.path,
        status="damaged" if damage and not run.is_locked() else status,
        model=model,
        data=data,
        step=_step(last, state.step if state else 0),
        total_steps=state.total_steps if state else begun.total_steps if begun else 0,
        metrics=measured.metrics if measured else {},
        started=first.time if first else _modified(run.config_file),
        damage=damage,
        label=read_label(run.path),
    )


def last_step(records: list[Record]) -> StepCompleted | None:
    """Return the last measured step that no resume made void."""
    limit = float("inf")
    for record in reversed(records):
        event = record.event
        if isinstance(event, StepCompleted) and event.step <= limit:
            return event
        if (last := void_after(event)) is not None:
            limit = min(limit, last)
    return None


def _step(records: list[Record], reported: int) -> int:
    for record in reversed(records):
        if isinstance(record.event, RunFinished):
            return record.event.step
        if isinstance(record.event, StepCompleted | Resumed):
            break
    measured = last_step(records)
    return max(reported, measured.step if measured else 0)


def _first_events(path: Path) -> list[Record]:
    """Return the events in the first bytes of a file; [] if unreadable."""
    try:
        return EventReader(path, _HEAD_BYTES).poll()
    except OSError:
        return []


def _configured(run: RunDirectory) -> tuple[str | None, str | None, str]:
    """Return model and data of the settings, and what is wrong with these."""
    if not run.config_file.exists():
        return None, None, ""
    try:
        raw = parse_toml(read_regular_text(run.config_file))
    except (OSError, ValueError) as error:
        return None, None, f"{run.config_file.name}: {reason_of(error)}"
    model, data = raw.get("model"), raw.get("data")
    return str(model) if model else None, str(data) if data else None, ""


def memory_shares(runs_dir: str | Path | None = None) -> list[float]:
    """Return peak memory / estimate of each finished run in a folder that recorded both; those
    that only pretended to train say nothing."""
    shares = []
    for run in iter_runs(runs_dir):
        last, estimated = read_last_events(run.events_file), _estimated_peak(run)
        finished = [record.event for record in last if isinstance(record.event, RunFinished)]
        if not (estimated and finished):
            continue
        peak = finished[-1].peak_memory_bytes or getattr(last_step(last), "peak_memory_bytes", 0)
        if peak:
            shares.append(peak / estimated)
    return sorted(shares)


def bytes_in_training(runs_dir: str | Path | None = None) -> int:
    """Return the memory that the trainings going on in a folder may take, by their estimates."""
    return sum(_estimated_peak(run) for run in iter_runs(runs_dir) if run.is_locked())


def _estimated_peak(run: RunDirectory) -> int:
    """Return the peak in bytes a run was started with; 0 if it has none or only pretends."""
    head = [record.event for record in _first_events(run.events_file)]
    starts = [event for event in head if isinstance(event, RunStarted)]
    if not starts or SIMULATION in starts[0].versions:
        return 0
    return starts[0].estimated_peak_bytes


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
    if text and os.path.isfile(path / "adapter_config.json"):
        return RunError(
            f"{path}: is an adapter, not a run (looked for config.toml, events.jsonl, run.lock)",
            "Give its run (`orpo-mlx runs` lists all). Alone it is measured by evaluate "
            f"--model MODEL --adapter {path} --data FILE, asked by chat with the same but --data, "
            "and trained further by train --init-adapter.",
        )
    if text and os.path.isdir(path):
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
