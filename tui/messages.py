"""Facts and requests that travel between screens, workers and the app."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from textual.message import Message

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


@dataclass
class RunOpened(Message):
    """Please show this run live."""

    run: Path


@dataclass
class RunResumed(Message):
    """Please start a trainer that goes on with this run."""

    run: Path
