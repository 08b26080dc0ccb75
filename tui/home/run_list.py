"""All runs, read again only where something changed; no Textual."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from orpo_mlx.runs.directory import RunDirectory, Status, runs_folder
from orpo_mlx.runs.group.queue import GROUP, Queue, QueueEntry
from orpo_mlx.runs.label import FILE as LABEL
from orpo_mlx.runs.label import NO_LABEL, RunLabel
from orpo_mlx.runs.listing import RunSummary, iter_runs, summarise
from tui.home.queued_runs import queued_summaries, without_folder
from tui.processes.trainer_log import starting
from tui.run.status import ALIVE
from tui.shell.machine import Machine
from tui.shell.names import short_name

_TITLE_GAP = 4
"""Cells between the two ends of a title, and around them."""

_Stamp = tuple[object, ...]


class RunList:
    """Summaries of all runs of a folder, the newest first.

    Reading a run costs milliseconds; with hundreds of them only those whose files changed, or that
    a trainer owns, are read again.
    """

    def __init__(self, runs_dir: Path | None) -> None:
        self.runs_dir = runs_dir
        self.queue = Queue(runs_dir)
        self.queued: dict[Path, QueueEntry] = {}
        """Runs of the queue that have no folder."""
        self._known: dict[Path, tuple[_Stamp, RunSummary]] = {}

    def read(self) -> list[RunSummary]:
        """Return all runs as they are now."""
        runs = iter_runs(self.runs_dir)
        self.queued = without_folder(self.queue)
        found = [self._summary(run) for run in runs] + starting_summaries(self.runs_dir)
        found += queued_summaries(self.queued.values())
        paths = {run.path for run in runs}
        self._known = {path: entry for path, entry in self._known.items() if path in paths}
        return sorted(found, key=lambda run: (run.started or 0.0, run.id), reverse=True)

    def _summary(self, run: RunDirectory) -> RunSummary:
        files = run.events_file, run.state_file, run.config_file, run.path / LABEL
        stamp = (run.is_locked(), *map(_stamp, files))
        known = self._known.get(run.path)
        if known is None or known[0] != stamp or stamp[0]:
            known = self._known[run.path] = stamp, summarise(run)
        return known[1]


def starting_summaries(runs_dir: Path | None) -> list[RunSummary]:
    """Return what there is to say of runs that a trainer prepares."""
    found = starting(runs_folder(runs_dir).absolute())
    return [
        RunSummary(path.name, path, "preparing", None, None, 0, 0, {}, started=then)
        for path, then in found.items()
    ]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def group_of(run: RunSummary) -> str:
    """Return the name of the sweep that a run is of, "" for none."""
    return next((tag for tag in run.label.tags if tag.startswith(GROUP)), "")


def runs_to_compare(
    runs: Sequence[RunSummary], marked: set[Path], selected: RunSummary | None
) -> list[Path]:
    """Return the marked runs; if fewer than two, the selected one and the newest other besides.

    Args:
        runs: all of them, the newest first.
    """
    paths = [run.path for run in runs if run.path in marked]
    if len(paths) >= 2 or selected is None:
        return paths
    first = [*paths, *([selected.path] if selected.path not in paths else [])]
    others = [run.path for run in runs if run.path not in first]
    return (first + others)[:2]


@dataclass(frozen=True)
class RunRow:
    """A run as a line of the table; all text."""

    path: Path
    id: str
    model: str
    data: str
    step: str
    loss: str
    log_odds_ratio: str
    accuracy: str
    when: str
    label: RunLabel = NO_LABEL

    def matches(self, words: str) -> bool:
        """Tell whether every word occurs somewhere, upper or lower case."""
        said = (self.label.short, self.label.note)
        text = " ".join((self.id, self.model, self.data, *said)).lower()
        return all(word in text for word in words.lower().split())


def row_of(run: RunSummary, now: float) -> RunRow:
    """Return a run's line."""
    return RunRow(
        path=run.path,
        id=run.id,
        model=short_name(run.model or ""),
        data=short_name(run.data or ""),
        step=f"{run.step}/{run.total_steps}" if run.total_steps else str(run.step),
        loss=run.brief("loss", 3),
        log_odds_ratio=run.brief("log_odds_ratio"),
        accuracy=run.brief("preference_accuracy"),
        when="" if run.started is None else when_text(run.started, now),
        label=run.label,
    )


def title_end(machine: Machine | None, runs: str, room: int) -> str:
    """Return the right of the title: as much of the machine as there is room for, and the runs.

    Args:
        runs: how many there are, in words; "" for none.
        room: cells.
    """
    words = list(machine.brief()) if machine else []
    while words and len(" · ".join((*words, runs))) > room - _TITLE_GAP:
        words.pop(0)
    return " · ".join((*words, runs) if runs else words)


_DOWN_FIRST = ("When", "Step", "Log-odds", "Acc")


@dataclass(frozen=True)
class Order:
    """How runs are sorted; those without a value come last either way."""

    column: str = "When"
    is_down: bool = True

    @classmethod
    def first_by(cls, column: str) -> Order:
        """Return the order one expects of a column: newest first, lowest loss first."""
        return cls(column, column in _DOWN_FIRST)

    def turned(self) -> Order:
        """Return the other way round."""
        return Order(self.column, not self.is_down)

    def apply(self, runs: Iterable[RunSummary]) -> list[RunSummary]:
        """Return runs in this order; equal ones stay as they came."""
        with_value = [(_value(run, self.column), run) for run in runs]
        known = [pair for pair in with_value if pair[0] is not None]
        known.sort(key=lambda pair: pair[0], reverse=self.is_down)  # type: ignore[arg-type, return-value]
        return [run for _, run in known] + [run for value, run in with_value if value is None]


def _value(run: RunSummary, column: str) -> float | str | None:
    match column:
        case "When":
            return run.started
        case "Status":
            return _STATUSES.index(run.status)
        case "Run":
            return run.id.lower()
        case "Model":
            return short_name(run.model).lower() if run.model else None
        case "Data":
            return short_name(run.data).lower() if run.data else None
        case "Step":
            return run.step
        case "Loss":
            return run.metrics.get("loss")
        case "Log-odds":
            return run.metrics.get("log_odds_ratio")
        case _:
            return run.metrics.get("preference_accuracy")


_STATUSES = (*ALIVE, *(status for status in get_args(Status) if status not in ALIVE))


def when_text(then: float, now: float) -> str:
    """Return a time near to now as people say it: 14:05, Tue 14:05, 3 Nov, Nov 2025.

    The local time zone counts.
    """
    a, b = time.localtime(then), time.localtime(now)
    if (a.tm_year, a.tm_yday) == (b.tm_year, b.tm_yday):
        return time.strftime("%H:%M", a)
    if 0 <= now - then < 6 * 86400:
        return time.strftime("%a %H:%M", a)
    if a.tm_year == b.tm_year:
        return f"{a.tm_mday} {time.strftime('%b', a)}"
    return time.strftime("%b %Y", a)
