"""Playing a run: events with pauses between them, written into a run directory as a trainer would.

Whoever watches sees a training; nothing is computed. For demonstrations, screenshots and tests. The
events are those of another run here, and made up in `simulate`.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from orpo_mlx.errors import RunError
from orpo_mlx.runs import events
from orpo_mlx.runs.control import Actions, Inbox, SignalFlags, obey
from orpo_mlx.runs.directory import Heartbeat, RunDirectory, Status, check_run_folder

LONGEST_GAP_SECONDS = 5.0
"""A pause or a night between two events is not waited for."""


class TimedEvent(NamedTuple):
    """An event, and how long to wait before it, in seconds."""

    pause: float
    event: events.Event


class Player:
    """Writes events into a run directory, with its lock and state, and does what is asked.

    Args:
        run: the place, with its folders.
        save: makes the event for a checkpoint that is asked for; None: there are none.
        sample: makes the event for an answer that is asked for; None: there are none.
    """

    def __init__(
        self,
        run: RunDirectory,
        save: Callable[[int], events.Event] | None = None,
        sample: Callable[[int], events.Event] | None = None,
    ) -> None:
        self.run = run
        self.step = 0
        self._make_checkpoint, self._make_sample = save, sample
        self._heartbeat = Heartbeat(run)
        self._status: Status = "preparing"
        self._saved = self._best = -1
        self._seconds = 0.0

    def play(self, timed: Iterable[TimedEvent]) -> str:
        """Write the events to their end or a request; return played, stopped or aborted."""
        actions = Actions(self._emit, self._save, self._sample, self._wait)
        with self.run.lock(), SignalFlags() as signals:
            inbox = Inbox(self.run.control_folder)
            with contextlib.closing(events.EventWriter(self.run.events_file)) as self._writer:
                for pause, event in timed:
                    time.sleep(pause)
                    is_step = isinstance(event, events.StepCompleted)
                    if is_step and (reason := obey(inbox, signals, actions, self.step)):
                        return self._end(reason)
                    self._emit(event)
        return "played"

    def _emit(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self._heartbeat.total_steps = event.total_steps
            case events.StepCompleted():
                self.step, self._status = event.step, "running"
                self._seconds += event.step_seconds
            case events.EvalCompleted(is_best=True):
                self._best = event.step
            case events.CheckpointSaved():
                self._saved = event.step
            case events.Paused():
                self._status = "paused"
            case _:
                pass
        self._writer.write(event)
        self._heartbeat.beat(self._status, self.step)

    def _save(self) -> None:
        if self._make_checkpoint and self._saved != self.step:
            self._emit(self._make_checkpoint(self.step))

    def _sample(self) -> None:
        if self._make_sample:
            self._emit(self._make_sample(self.step))

    def _wait(self) -> None:
        self._heartbeat.beat("paused", self.step)
        time.sleep(0.02)

    def _end(self, reason: str) -> str:
        if reason != "aborted":
            self._save()
        best = self._best if self._best >= 0 else None
        self._emit(events.RunFinished(reason, self.step, self._seconds, None, best_step=best))
        return reason


def replay(source: RunDirectory, target: RunDirectory, speed: float) -> str:
    """Play a run's events into a new directory; return played, stopped or aborted.

    Args:
        source: any run, finished or not; it is not changed.
        target: a place for a new run.
        speed: times faster than it was; 0: without waiting.

    Raises:
        RunError: the run has no events, or the place is taken.
    """
    records = list(events.read_events(source.events_file)) if source.events_file.exists() else []
    if not records:
        raise RunError(f"run {source.id} has no events: nothing to replay", "Choose another run.")
    _make_folder(source, target)
    return Player(target).play(timed_events(records, target, speed))


def _make_folder(source: RunDirectory, target: RunDirectory) -> None:
    check_run_folder(target.path)
    try:
        target.control_folder.mkdir(parents=True, exist_ok=True)
        target.checkpoints_folder.mkdir(exist_ok=True)
        if source.config_file.exists():
            shutil.copyfile(source.config_file, target.config_file)
    except OSError as error:
        raise RunError(
            f"{target.path}: cannot be written ({error.strerror})", "Choose another --run-dir."
        ) from None


def timed_events(
    records: Sequence[events.Record], target: RunDirectory, speed: float
) -> Iterator[TimedEvent]:
    """Yield the events of a run as those of `target`; one this version does not know is left out.

    Args:
        records: at least one.
        target: the run they are written to.
        speed: divides the time between them; 0: no time.
    """
    before = records[0].time
    for record in records:
        gap = max(0.0, min(record.time - before, LONGEST_GAP_SECONDS)) / speed if speed else 0.0
        before = record.time
        if isinstance(record.event, events.RunStarted):
            # It holds no memory, and what it tells of a peak is not this machine's doing.
            versions = {**record.event.versions, events.SIMULATION: "1"}
            own = replace(
                record.event, run_id=target.id, run_path=str(target.path), versions=versions
            )
            yield TimedEvent(gap, own)
        elif record.event is not None:
            yield TimedEvent(gap, record.event)
