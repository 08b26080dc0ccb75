"""What a viewer knows of a run, built from its events alone; pure: no files, no clock, no Textual.

`RunState.apply(record)` takes one event in and changes the state in place: a run has 100,000 of
them, which `apply_all` takes in many at a time. `version` grows with each, so that a view can tell
whether anything is new.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, Literal

import numpy as np

from orpo_mlx.runs.event_text import plain_lines
from orpo_mlx.runs.events import (
    CheckpointSaved,
    DataPrepared,
    DriftMeasured,
    EvalCompleted,
    NoteLogged,
    Paused,
    Record,
    Resumed,
    RunEvaluated,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
)
from orpo_mlx.runs.history import void_after
from orpo_mlx.runs.metrics import shown
from orpo_mlx.runs.peers.hosts import hosts_text
from orpo_mlx.runs.peers.load import PeerLoad
from orpo_mlx.runs.typed import is_number
from orpo_mlx.text.formatting import format_bytes, format_duration
from tui.run.columns import Floats, Table
from tui.shell.names import place_text

STEP_NAMES = (
    "learning_rate", "grad_norm", "tokens", "tokens_per_second", "step_seconds",
    "active_memory_bytes", "peak_memory_bytes", "wait_seconds", "exchange_seconds",
)  # fmt: skip
"""Columns of `RunState.steps` behind those of `_names`."""

DRIFT_NAMES = ("step", "seconds", "tokens", "kl_per_token")

_SECONDS = 1
# `epoch` stands where `seconds` is computed.
_place = attrgetter("step", "epoch")
_step_values = attrgetter(*STEP_NAMES)


def _names(metrics: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a table; `seconds` since the start, pauses excluded."""
    return ("step", "seconds", *metrics, *others)


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
    """valid, drift, result, saved, note, warning, sample, state or error."""
    text: str


@dataclass
class RunState:
    """See the module's docstring.

    Attributes:
        paused: the trainer waits.
        ended: how the run ended, None while it has not.
        evaluated: whether it helped, None while that is not known.
        metrics: what the run measures, in order; empty while unknown.
        best: the best evaluation so far.
        load: how several processes share the steps.
        lines: what the events tab shows, oldest first.
    """

    started: RunStarted | None = None
    started_at: float = 0.0
    data: DataPrepared | None = None
    metrics: tuple[str, ...] = ()
    step: int = 0
    epoch: float = 0.0
    steps: Table = field(default_factory=lambda: Table(_names((), STEP_NAMES)))
    evals: Table = field(default_factory=lambda: Table(_names((), ["tokens"])))
    drift: Table = field(default_factory=lambda: Table(DRIFT_NAMES))
    eval_seconds: list[float] = field(default_factory=list)
    checkpoints: list[CheckpointSaved] = field(default_factory=list)
    samples: list[SampleGenerated] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)
    best: EvalCompleted | None = None
    paused: bool = False
    ended: RunFinished | RunFailed | None = None
    evaluated: RunEvaluated | None = None
    load: PeerLoad = field(default_factory=PeerLoad)
    version: int = 0
    _seconds: float = 0.0
    _clock: float = 0.0

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, 0 while unknown."""
        return self.started.total_steps if self.started else 0

    @property
    def hosts(self) -> list[str]:
        """Where each process of the run is; empty for a run of one, or while unknown."""
        return self.started.hosts if self.started else []

    @property
    def lam(self) -> float:
        """Weight of the preference term."""
        return float(self.setting("lam", 0.1))

    def setting(self, name: str, default: float = math.nan) -> float:
        """Return a numeric setting of the run as it was started."""
        value = self.started.config.get(name) if self.started else None
        return value if is_number(value) else default

    @property
    def training_seconds(self) -> float:
        """Time trained, as the trainer tells it at the end, by the clock of events until then.

        Pauses, the time between two processes and what follows the end, as the comparison with
        the base, are excluded.
        """
        return self.ended.seconds if isinstance(self.ended, RunFinished) else self._seconds

    def apply_all(self, records: Iterable[Record]) -> RunState:
        """Take events in, in order; steps that follow each other at once. Returns itself."""
        for is_step, group in groupby(records, _is_step):
            if is_step:
                self._take_steps(list(group))
            else:
                for record in group:
                    self.apply(record)
        return self

    @property
    def has_met_nan(self) -> bool:
        """Whether a number that is not finite ended the run."""
        return isinstance(self.ended, RunFailed) and self.ended.kind == "not_finite"

    def apply(self, record: Record) -> RunState:
        """Take one event in; unknown ones change nothing, damaged ones are named."""
        if isinstance(record.event, StepCompleted):
            self._take_steps([record])
            return self
        self.version += 1
        if record.damage:
            self.lines.append(LogLine(record.time, "error", record.damage))
        elif record.event is not None:
            self._count_time(record)
            self._take(record)
        return self

    def _take(self, record: Record) -> None:
        event = record.event
        if (last := void_after(event)) is not None:
            self._take_up(last)
        match event:
            case EvalCompleted():
                self._take_eval(event)
            case RunStarted():
                self._start(event, record.time)
            case DataPrepared():
                self.data = event
            case DriftMeasured():
                self._take_drift(event)
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
                if event.kind == "not_finite":
                    self.marks.append(Mark(event.step + 1, "nan"))
            case RunEvaluated():
                self.evaluated = event
            case NoteLogged():
                pass
        self._write_line(record)

    def _count_time(self, record: Record) -> None:
        gap = record.time - self._clock
        waits = self.paused or self.ended is not None
        counts = self._clock and not waits and not isinstance(record.event, RunStarted)
        if counts and gap > 0:
            self._seconds += gap
        self._clock = record.time

    def _start(self, event: RunStarted, time: float) -> None:
        self.started_at = self.started_at or time
        self.started = event
        self.load = PeerLoad(event.resumed_from_step)
        self.metrics = tuple(event.metrics)
        self.steps = self.steps.with_names(_names(self.metrics, STEP_NAMES))
        self.evals = self.evals.with_names(_names(self.metrics, ["tokens"]))
        self.paused = False

    def _take_steps(self, records: list[Record]) -> None:
        rows = np.array(self._rows(records), dtype=np.float64)
        rows[:, _SECONDS] = self._seconds + np.cumsum(self._gaps(records))
        self.steps.extend(rows)
        self._seconds, self._clock = float(rows[-1, _SECONDS]), records[-1].time
        for record in records if self.hosts else ():
            self.load.add(record.event)  # type: ignore[arg-type]
        last = records[-1].event
        self.step, self.epoch = last.step, last.epoch  # type: ignore[union-attr]
        self.version += len(records)

    def _rows(self, records: list[Record]) -> list[tuple[float, ...]]:
        events: list[Any] = [record.event for record in records]
        names = self.metrics
        if len(names) > 1:  # of one name `itemgetter` makes no tuple
            metrics = itemgetter(*names)
            with suppress(KeyError):
                return [_place(e) + metrics(e.metrics) + _step_values(e) for e in events]
        return [(*_place(e), *map(e.value, names), *_step_values(e)) for e in events]

    def _gaps(self, records: list[Record]) -> Floats:
        """Return the seconds before each of these that count."""
        times = np.array([record.time for record in records])
        if self.paused:
            return np.zeros(len(times))
        return np.maximum(0.0, np.diff(times, prepend=self._clock or times[0]))

    def _take_eval(self, event: EvalCompleted) -> None:
        tokens = self.steps.last("tokens")
        values = (
            event.step, self._seconds, *map(event.value, self.metrics),
            0.0 if math.isnan(tokens) else tokens,
        )  # fmt: skip
        self.evals.append(tuple(map(float, values)))
        self.eval_seconds.append(event.seconds)
        if event.is_best:
            self.best = event

    def _take_drift(self, event: DriftMeasured) -> None:
        tokens = self.steps.last("tokens")
        tokens = 0.0 if math.isnan(tokens) else tokens
        self.drift.append((float(event.step), self._seconds, tokens, event.kl_per_token))

    def _resume(self, event: Resumed) -> None:
        self.paused = False
        self.marks.append(Mark(event.step, "resume"))

    def _take_up(self, step: int) -> None:
        """Go on after a step with what a process does not compute again."""
        self.ended, self.evaluated, self.step = None, None, step
        for table in (self.steps, self.evals, self.drift):
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
            rows = shown(event.metrics, ("loss", "log_odds_ratio", "preference_accuracy"))
            said = [f"{row.short} {row.brief(event.value(row.name))}" for row in rows[1:]]
            return "  ".join([f"step {event.step}", f"loss {event.value('loss'):.4f}{best}", *said])
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
            by = f", {hosts_text(event.hosts)}" if event.hosts else ""
            return f"{what}, {event.total_steps} steps{by}{again}"
        case _:
            return "; ".join(line.strip() for line in plain_lines(event)[:3])


_KINDS: dict[type, str] = {
    EvalCompleted: "valid",
    DriftMeasured: "drift",
    RunEvaluated: "result",
    CheckpointSaved: "saved",
    SampleGenerated: "sample",
    RunFailed: "error",
}
