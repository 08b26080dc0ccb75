"""What a viewer knows of a run, built from its events alone; pure: no files, no clock, no Textual.

`RunState.apply(record)` takes one event in and changes the state in place: a run has 100,000 of
them, which `apply_all` takes in many at a time. `version` grows with each, so that a view can tell
whether anything is new.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Literal

import numpy as np

from orpo_mlx.formatting import format_bytes, format_duration
from orpo_mlx.report_text import plain_lines
from orpo_mlx.runs.events import (
    METRIC_NAMES,
    CheckpointSaved,
    DataPrepared,
    EvalCompleted,
    NoteLogged,
    Paused,
    Record,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
)
from tui.names import place_text
from tui.table import Floats, Table

STEP_NAMES = (
    "step", "seconds", *METRIC_NAMES, "learning_rate", "grad_norm", "tokens",
    "tokens_per_second", "step_seconds", "active_memory_bytes", "peak_memory_bytes",
    "preference_term",
)  # fmt: skip
"""Columns of `RunState.steps`; `seconds` since the start, pauses excluded; `preference_term` is
lam times the odds-ratio loss, what it adds to the loss."""

EVAL_NAMES = ("step", "seconds", *METRIC_NAMES, "tokens", "preference_term")

_SECONDS, _TERM = 1, -1
# `epoch` and `odds_ratio_loss` stand where `seconds` and `preference_term` are computed.
_step_values = attrgetter("step", "epoch", *STEP_NAMES[2:-1], "odds_ratio_loss")

MarkKind = Literal["checkpoint", "pause", "resume", "nan"]


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step, shown on the x axis."""

    step: int
    kind: MarkKind


@dataclass(frozen=True)
class LogLine:
    """One line of the events tab."""

    time: float
    """Unix seconds."""
    kind: str
    """valid, saved, note, warning, sample, state or error."""
    text: str


@dataclass
class RunState:
    """See the module's docstring.

    Attributes:
        paused: the trainer waits.
        ended: how the run ended, None while it has not.
        best: the best evaluation so far.
        lines: what the events tab shows, oldest first.
    """

    started: RunStarted | None = None
    started_at: float = 0.0
    data: DataPrepared | None = None
    step: int = 0
    epoch: float = 0.0
    steps: Table = field(default_factory=lambda: Table(STEP_NAMES))
    evals: Table = field(default_factory=lambda: Table(EVAL_NAMES))
    eval_seconds: list[float] = field(default_factory=list)
    checkpoints: list[CheckpointSaved] = field(default_factory=list)
    samples: list[SampleGenerated] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)
    best: EvalCompleted | None = None
    paused: bool = False
    ended: RunFinished | RunFailed | None = None
    version: int = 0
    _seconds: float = 0.0
    _clock: float = 0.0

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, 0 while unknown."""
        return self.started.total_steps if self.started else 0

    @property
    def lam(self) -> float:
        """Weight of the preference term."""
        return float(self.setting("lam", 0.1))

    def setting(self, name: str, default: object = None) -> float:
        """Return a numeric setting of the run as it was started."""
        config = self.started.config if self.started else {}
        value = config.get(name)
        return value if value is not None else default  # type: ignore[return-value]

    @property
    def elapsed_seconds(self) -> float:
        """Time spent, pauses and the time between two processes excluded."""
        return self._seconds

    def apply_all(self, records: Iterable[Record]) -> RunState:
        """Take events in, in order; steps that follow each other at once. Returns itself."""
        for is_step, group in groupby(records, _is_step):
            if is_step:
                self._take_steps(list(group))
            else:
                for record in group:
                    self.apply(record)
        return self

    def apply(self, record: Record) -> RunState:
        """Take one event in; unknown ones change nothing, damaged ones are named."""
        if isinstance(record.event, StepCompleted):
            self._take_steps([record])
            return self
        self.version += 1
        if record.event is not None:
            self._count_time(record)
            try:
                self._take(record)
            except (TypeError, ValueError):
                self._write_damaged(record)
        return self

    def _take(self, record: Record) -> None:
        event = record.event
        match event:
            case EvalCompleted():
                self._take_eval(event)
            case RunStarted():
                self._start(event, record.time)
            case DataPrepared():
                self.data = event
            case SampleGenerated():
                self.samples.append(event)
            case CheckpointSaved():
                self.checkpoints.append(event)
                self.marks.append(Mark(event.step, "checkpoint"))
            case Paused():
                self.paused = True
                self.marks.append(Mark(event.step, "pause"))
            case Resumed():
                self._resume(event)
            case RunFinished():
                self.ended, self.step = event, max(self.step, event.step)
            case RunFailed():
                self.ended = event
                if "not finite" in event.message:
                    self.marks.append(Mark(event.step + 1, "nan"))
            case NoteLogged():
                pass
        self._write_line(record)

    def _count_time(self, record: Record) -> None:
        gap = record.time - self._clock
        counts = self._clock and not self.paused and not isinstance(record.event, RunStarted)
        if counts and gap > 0:
            self._seconds += gap
        self._clock = record.time

    def _start(self, event: RunStarted, time: float) -> None:
        self.started_at = self.started_at or time
        self.started = event
        self.ended, self.paused = None, False
        self._forget_after(event.resumed_from_step)
        self.step = event.resumed_from_step

    def _take_steps(self, records: list[Record]) -> None:
        try:
            rows = np.array([_step_values(record.event) for record in records], dtype=np.float64)
        except (TypeError, ValueError):
            self._take_sound_steps(records)
            return
        rows[:, _SECONDS] = self._seconds + np.cumsum(self._gaps(records))
        rows[:, _TERM] *= self.lam
        self.steps.extend(rows)
        self._seconds, self._clock = float(rows[-1, _SECONDS]), records[-1].time
        last = records[-1].event
        self.step, self.epoch = last.step, last.epoch  # type: ignore[union-attr]
        self.version += len(records)

    def _take_sound_steps(self, records: list[Record]) -> None:
        """Take steps one by one; a file edited by hand may hold words where numbers belong."""
        for record in records:
            if all(isinstance(value, int | float) for value in _step_values(record.event)):
                self._take_steps([record])
            else:
                self._write_damaged(record)
                self.version += 1

    def _write_damaged(self, record: Record) -> None:
        text = f"{record.name}: its values are not of the kind they should be"
        self.lines.append(LogLine(record.time, "error", text))

    def _gaps(self, records: list[Record]) -> Floats:
        """Return the seconds before each of these that count."""
        times = np.array([record.time for record in records])
        if self.paused:
            return np.zeros(len(times))
        return np.maximum(0.0, np.diff(times, prepend=self._clock or times[0]))

    def _take_eval(self, event: EvalCompleted) -> None:
        tokens = self.steps.last("tokens")
        values = (
            event.step, self._seconds, *(getattr(event, name) for name in METRIC_NAMES),
            0.0 if math.isnan(tokens) else tokens, self.lam * event.odds_ratio_loss,
        )  # fmt: skip
        self.evals.append(tuple(map(float, values)))
        self.eval_seconds.append(event.seconds)
        if event.is_best:
            self.best = event

    def _resume(self, event: Resumed) -> None:
        self.paused = False
        self.marks.append(Mark(event.step, "resume"))
        if event.new_process:
            self.ended = None
            self._forget_after(event.step)
            self.step = event.step

    def _forget_after(self, step: int) -> None:
        """Drop what a resumed process computes again."""
        for table in (self.steps, self.evals):
            table.keep(int(np.searchsorted(table.column("step"), step, side="right")))
        self.samples = [sample for sample in self.samples if sample.step <= step]
        self.marks = [mark for mark in self.marks if mark.step <= step]
        if self.best and self.best.step > step:
            self.best = None

    def _write_line(self, record: Record) -> None:
        event = record.event
        kind = _KINDS.get(type(event), "state")
        if isinstance(event, NoteLogged):
            kind = "note" if event.level == "info" else "warning"
        self.lines.append(LogLine(record.time, kind, _text(record)))


def _is_step(record: Record) -> bool:
    return isinstance(record.event, StepCompleted)


def _text(record: Record) -> str:
    """Return an event as one line; the kind stands before it, a step comes first."""
    event = record.event
    match event:
        case SampleGenerated():
            return f"step {event.step}  {event.index + 1}: {event.response[:200]}"
        case EvalCompleted():
            best = " (best)" if event.is_best and event.step else ""
            return (
                f"step {event.step}  loss {event.loss:.4f}{best}  "
                f"log-odds {event.log_odds_ratio:+.2f}  acc {event.preference_accuracy:.0%}"
            )
        case CheckpointSaved():
            size, took = format_bytes(event.bytes), format_duration(event.seconds)
            return f"step {event.step}  {size} in {took}"
        case NoteLogged():
            return event.text
        case None:
            return record.name
        case RunStarted():
            again = f", from step {event.resumed_from_step}" if event.resumed_from_step else ""
            what = f"{place_text(event.model)} on {place_text(event.data)}"
            return f"{what}, {event.total_steps} steps{again}"
        case _:
            return "; ".join(line.strip() for line in plain_lines(event)[:3])


_KINDS: dict[type, str] = {
    EvalCompleted: "valid",
    CheckpointSaved: "saved",
    SampleGenerated: "sample",
    RunFailed: "error",
}
