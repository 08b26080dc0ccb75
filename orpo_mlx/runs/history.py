"""What a run has shown so far, and what of it no longer counts since it was resumed."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from orpo_mlx.config.file import expanded
from orpo_mlx.runs.directory import RunDirectory, runs_folder
from orpo_mlx.runs.events import (
    DriftMeasured,
    EvalCompleted,
    Event,
    Resumed,
    RunEvaluated,
    RunStarted,
    SampleGenerated,
    StepCompleted,
)
from orpo_mlx.runs.peers.hosts import resume_command
from orpo_mlx.runs.peers.load import PeerLoad


def void_after(event: Event | None) -> int | None:
    """Return the step above which all that was measured before this event is void; None: none is.

    A process that takes a run up computes again what came after its checkpoint.
    """
    match event:
        case RunStarted():
            return event.resumed_from_step
        case Resumed(new_process=True):
            return event.step
        case _:
            return None


def valid_events(events: Iterable[Event | None]) -> list[Event]:
    """Return the events of a run in order, without the steps, evaluations and samples void now."""
    kept: list[Event] = []
    for event in events:
        if (last := void_after(event)) is not None:
            kept = [one for one in kept if not isinstance(one, _MEASURED) or one.step <= last]
        if event is not None:
            kept.append(event)
    return kept


_MEASURED = (StepCompleted, EvalCompleted, SampleGenerated, DriftMeasured, RunEvaluated)


class RunHistory:
    """What the closing table and the remaining time need, gathered from events."""

    def __init__(self) -> None:
        self.started: RunStarted | None = None
        self.step = 0
        self.evals: dict[int, EvalCompleted] = {}
        self.samples: dict[tuple[int, int], SampleGenerated] = {}
        self.load = PeerLoad()
        self._step_seconds: deque[float] = deque(maxlen=50)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, 0 while unknown."""
        return self.started.total_steps if self.started else 0

    @property
    def run_path(self) -> Path | None:
        """The run's folder, None while unknown."""
        if self.started is None:
            return None
        if self.started.run_path:
            return Path(self.started.run_path)
        run_dir, runs_dir = (str(self.started.config.get(n) or "") for n in ("run_dir", "runs_dir"))
        if run_dir:
            return expanded(run_dir).absolute()
        return runs_folder(runs_dir and expanded(runs_dir)).absolute() / self.started.run_id

    @property
    def resume_command(self) -> str:
        """What takes the run up again, "" while unknown."""
        path = self.run_path
        if path is None or self.started is None:
            return ""
        return resume_command(RunDirectory(path), self.started.hosts)

    def apply(self, event: Event) -> None:
        """Take one event in."""
        if (last := void_after(event)) is not None:
            self.step = last
            self.evals = {s: e for s, e in self.evals.items() if s <= last}
            self.samples = {k: e for k, e in self.samples.items() if k[0] <= last}
        match event:
            case RunStarted():
                self.started = event
                self.load = PeerLoad(event.resumed_from_step)
                self._step_seconds.clear()
            case StepCompleted():
                self.step = event.step
                self.load.add(event)
                self._step_seconds.append(event.step_seconds)
            case EvalCompleted():
                self.evals[event.step] = event
            case SampleGenerated():
                self.samples[event.step, event.index] = event
            case _:
                pass

    def seconds_left(self) -> float:
        """Return the time for the remaining steps at the recent median; evaluation comes on top."""
        if not self._step_seconds:
            return 0.0
        return max(0, self.total_steps - self.step) * statistics.median(self._step_seconds)

    def slowness(self, event: StepCompleted) -> float:
        """Return by what factor a step is slower than the median of those before it; 0 unknown."""
        if len(self._step_seconds) < 5 or not (usual := statistics.median(self._step_seconds)):
            return 0.0
        return event.step_seconds / usual
