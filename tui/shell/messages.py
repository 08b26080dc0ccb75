"""Facts and requests that travel between screens, workers and the app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.message import Message

from orpo_mlx.config import TrainConfig
from orpo_mlx.runs.directory import Status
from orpo_mlx.runs.events import Record


@dataclass
class EventsArrived(Message, bubble=False):
    """A run wrote events; in order, never left out."""

    run: Path
    records: list[Record]


@dataclass
class CaughtUp(Message, bubble=False):
    """All events that were in the file have been sent."""

    run: Path


@dataclass
class StatusChanged(Message, bubble=False):
    """A run's status is another than before."""

    run: Path
    status: Status


@dataclass
class ReadingFailed(Message, bubble=False):
    """A run's events cannot be read any more, or can again."""

    run: Path
    reason: str
    """"" once they can."""


# What the app is asked for; screens do not know each other


@dataclass
class OpenRun(Message):
    """Please show this run live."""

    run: Path


@dataclass
class OpenNewRun(Message):
    """Please show the four steps to a run."""

    like: Path | None = None
    """A run whose settings to begin with."""


@dataclass
class PlanAnew(Message):
    """Please show the steps to a run like this one, which met NaN, at half its rate."""

    run: Path
    checkpoint: Path | None
    """Whose adapter to begin with; None for a fresh one."""


@dataclass
class OpenCompare(Message):
    """Please show these runs beside each other."""

    runs: Sequence[Path]


@dataclass
class OpenGroup(Message):
    """Please show these runs in a table, the best first."""

    runs: Sequence[Path]
    name: str = ""


@dataclass
class OpenPlayground(Message):
    """Please let base and adapter of this run answer the same."""

    run: Path


@dataclass
class OpenChat(Message):
    """Please let me talk with this run's adapter and its base."""

    run: Path


@dataclass
class OpenJudge(Message):
    """Please let answers be judged blind: of this run and its base, or of two runs."""

    runs: Sequence[Path]


@dataclass
class OpenServe(Message):
    """Please let base and adapters of these runs answer other programs, or show what does."""

    runs: Sequence[Path]


@dataclass
class OpenExport(Message):
    """Please show how this run's adapter leaves for other programs."""

    run: Path


@dataclass
class OpenResult(Message):
    """Please show whether this run has helped."""

    run: Path


@dataclass
class OpenDoctor(Message):
    """Please check this machine."""


@dataclass
class StartTraining(Message):
    """Please start a training with these settings and show it."""

    config: TrainConfig
    processes: int = 1
    """Of this machine, which share it."""


@dataclass
class StartDemo(Message):
    """Please start the built-in demo and show it."""


@dataclass
class Resume(Message):
    """Please start a trainer that goes on with this run, and show it."""

    run: Path
    changes: Mapping[str, Any] | None = None
    """Settings it shall have from now on."""
