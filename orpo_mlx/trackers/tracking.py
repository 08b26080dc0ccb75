"""A run's event file handed to a tracker: whole, further, or from where a resume made it void.

How far it is stands in RUN/trackers/NAME.json, so that a trainer's second process, or
`orpo-mlx log` later, goes on where the last one ended.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import (
    DriftMeasured,
    EvalCompleted,
    Event,
    EventReader,
    Record,
    RunEvaluated,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
    unusable,
)
from orpo_mlx.runs.history import valid_events
from orpo_mlx.storage.atomic import write_unsynced
from orpo_mlx.storage.regular import read_regular
from orpo_mlx.trackers.table import tracker_class
from orpo_mlx.trackers.tracker import TrackedRun, Tracker

_STEP_NUMBERS = (
    "epoch", "learning_rate", "grad_norm", "pairs_per_second", "tokens_per_second", "step_seconds",
    "peak_memory_bytes",
)  # fmt: skip


class Tracking:
    """One run on its way to one tracker.

    Args:
        run: whose events are read.
        name: of the tracker.
        anew: whether to log all of it again, under a name of its own.
    """

    def __init__(self, run: RunDirectory, name: str, anew: bool = False) -> None:
        self.run, self.name = run, name
        self._folder = run.path / "trackers"
        self._state_file = self._folder / f"{name}.json"
        self._reader = EventReader(run.events_file)
        self._records: list[Record] = []
        self._sent: list[Event] = []
        self._tracker: Tracker | None = None
        self._failed = False
        self._handed_on, self._take = self._read_state()
        if anew and self._handed_on:
            self._begin_anew()

    @property
    def logged_as(self) -> str:
        """What the run is called there."""
        return self.run.id if self._take == 1 else f"{self.run.id}-{self._take}"

    def sync(self) -> int:
        """Hand on what is new in the file; return the number of its events.

        Raises:
            RunError: the file cannot be read.
        """
        try:
            while found := self._reader.poll():
                self._records += found
        except OSError as error:
            raise unusable(self.run.events_file, error) from None
        if self._handed_on:
            self._sent = self._valid(self._records[: self._handed_on])
            self._handed_on = 0
        now = self._valid(self._records)
        same = _common(self._sent, now)
        if same < len(self._sent):
            self._rewind(now[:same])
        new = now[len(self._sent) :]
        if new:
            self._hand_on(new)
            self._sent = now
        return len(new)

    def close(self) -> None:
        """End the run there, or this part of it."""
        if self._tracker is not None:
            self._tracker.close(self._failed)
            self._tracker = None

    def _valid(self, records: Sequence[Record]) -> list[Event]:
        return valid_events(record.event for record in records)

    def _rewind(self, kept: list[Event]) -> None:
        steps = [event.step for event in kept if isinstance(event, StepCompleted | EvalCompleted)]
        last = max(steps, default=-1)
        if not tracker_class(self.name).can_rewind:
            self.close()
            self._begin_anew()
            return
        if self._tracker is None:
            self._tracker = self._open(last)
        else:
            self._tracker.rewind(last)
        self._sent = kept

    def _begin_anew(self) -> None:
        self._take += 1
        self._handed_on, self._sent = 0, []

    def _open(self, rewound_to: int | None = None) -> Tracker:
        self._folder.mkdir(exist_ok=True)
        starts = [one.event for one in self._records if isinstance(one.event, RunStarted)]
        settings = started_settings(starts[-1]) if starts else {}
        tracked = TrackedRun(self.run.id, self.logged_as, self._folder, settings, rewound_to)
        return tracker_class(self.name)(tracked)

    def _hand_on(self, events: Sequence[Event]) -> None:
        if self._tracker is None:
            self._tracker = self._open()
        times = {id(record.event): record.time for record in self._records}
        for event in events:
            self._tell(self._tracker, event, times[id(event)])
        self._tracker.flush()
        state = {"records": len(self._records), "take": self._take}
        write_unsynced(self._state_file, json.dumps(state).encode())

    def _tell(self, tracker: Tracker, event: Event, seconds: float) -> None:
        match event:
            case RunStarted():
                tracker.settings(started_settings(event))
            case StepCompleted():
                numbers = {name: getattr(event, name) for name in _STEP_NUMBERS}
                tracker.scalars(event.step, seconds, named("train", event.metrics | numbers))
            case EvalCompleted():
                tracker.scalars(event.step, seconds, named("valid", event.metrics))
            case DriftMeasured():
                drift = {name: getattr(event, name) for name in ("kl_per_token", "low", "high")}
                tracker.scalars(event.step, seconds, named("drift", drift))
            case SampleGenerated():
                tracker.sample(event.step, seconds, event.index, event.prompt, event.response)
            case RunEvaluated():
                tracker.settings({"verdict": event.verdict})
            case RunFinished():
                self._failed = False
                tracker.settings({"ended": event.reason})
            case RunFailed():
                self._failed = True
                tracker.settings({"ended": "failed", "error": event.kind})
            case _:
                pass

    def _read_state(self) -> tuple[int, int]:
        """Return how many records were handed on, and under which number; (0, 1) at first."""
        try:
            state = json.loads(read_regular(self._state_file))
            return max(0, int(state["records"])), max(1, int(state["take"]))
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 1


def _common(one: Sequence[Event], other: Sequence[Event]) -> int:
    """Return how many events at the start are the same objects."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a is not b), min(len(one), len(other)))


def named(group: str, values: dict[str, float]) -> dict[str, float]:
    """Return finite numbers by the names a tracker has them under.

    >>> named("train", {"loss": 0.5, "margin": float("nan")})
    {'train/loss': 0.5}
    """
    return {f"{group}/{name}": value for name, value in values.items() if math.isfinite(value)}


def started_settings(event: RunStarted) -> dict[str, Any]:
    """Return what is told of a run at its start; of paths on this machine the last part alone."""
    facts = {
        name: getattr(event, name)
        for name in ("total_steps", "pairs_train", "pairs_valid", "trainable_parameters",
                     "total_parameters", "objective", "versions")
    }  # fmt: skip
    settings = {name: value for name, value in event.config.items() if value is not None}
    return {name: without_places(value) for name, value in (settings | facts).items()}


def without_places(value: Any) -> Any:
    """Return a value whose absolute paths, also in a mixture of data, are cut to their names.

    >>> without_places("/home/me/a.jsonl:2,/data/b.jsonl"), without_places("mlx-community/x")
    ('a.jsonl:2,b.jsonl', 'mlx-community/x')
    """
    if isinstance(value, list):
        return [without_places(one) for one in value]
    if not isinstance(value, str):
        return value
    parts = value.split(",")
    return ",".join(part.rsplit("/", 1)[-1] if part[:1] in ("/", "~") else part for part in parts)
