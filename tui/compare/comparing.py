"""Several runs beside each other: what a chart draws of them and where their settings differ; pure.

Up to four, because there are four colours; every run also has a letter.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orpo_mlx.runs.directory import Status
from orpo_mlx.runs.events import EvalCompleted
from orpo_mlx.runs.group.comparison import PLACES, counted_by, setting_text
from orpo_mlx.runs.metrics import Metric, metric, shown
from orpo_mlx.text.formatting import format_bytes, format_duration
from orpo_mlx.text.smoothing import smooth
from orpo_mlx.text.svg_chart import Series, chart_svg, svg_page
from orpo_mlx.text.ticks import format_value
from tui.charts.kinds import X_COLUMNS, XAxis
from tui.charts.painting import clock_text, drawn_values, value_at
from tui.charts.picture import Line, View
from tui.run.columns import Table
from tui.run.state import RunState

LETTERS = "ABCD"
MAX_RUNS = len(LETTERS)


@dataclass(frozen=True)
class Curve:
    """Something that can be drawn of every run: a metric, or what else a step has."""

    id: str
    title: str
    column: str
    is_eval: bool = False
    better: Literal["higher", "lower"] | None = None
    may_smooth: bool = True


def _curve(row: Metric) -> Curve:
    title = "Training loss" if row.name == "loss" else row.title
    return Curve(row.id, title, row.name, False, row.better)


def _valid_curve(row: Metric) -> Curve:
    name = row.title if row.title.isupper() else row.title[0].lower() + row.title[1:]
    return Curve(f"valid_{row.id}", f"Validation {name}", row.name, True, row.better)


VALID_LOSS = _valid_curve(metric("loss"))

_OTHERS = (
    Curve("rate", "Learning rate", "learning_rate", may_smooth=False),
    Curve("grad", "Gradient norm", "grad_norm"),
    Curve("speed", "Tokens per second", "tokens_per_second", better="higher"),
    Curve("step_time", "Seconds per step", "step_seconds", better="lower"),
    Curve("memory", "Memory in use", "active_memory_bytes", may_smooth=False),
)


def curves(metrics: Iterable[str]) -> dict[str, Curve]:
    """Return by id what can be drawn of runs with these metrics; those with a chart come first."""
    found: list[Curve] = []
    for row in sorted(map(metric, metrics), key=lambda row: not row.is_charted):
        found += [_valid_curve(row)] if row.is_drawn_valid else []
        found.append(_curve(row))
    return {curve.id: curve for curve in (*found, *_OTHERS)}


@dataclass
class ComparedRun:
    """One run of the comparison."""

    path: Path
    letter: str
    state: RunState = field(default_factory=RunState)
    status: Status = "preparing"
    caught_up: bool = False

    @property
    def id(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def colour(self) -> int:
        """Which of the palette's colours."""
        return LETTERS.index(self.letter)

    def table(self, curve: Curve) -> Table:
        """Return where the curve's values are."""
        return self.state.evals if curve.is_eval else self.state.steps

    @property
    def objective(self) -> str:
        """What it was trained on, "" before it has said so."""
        return self.state.started.objective if self.state.started else ""

    def config(self) -> dict[str, Any]:
        """Return the settings it was started with."""
        return self.state.started.config if self.state.started else {}


def compared_lines(runs: Sequence[ComparedRun], curve: Curve, x_axis: XAxis) -> list[Line]:
    """Return one line per run; a run without values has an empty one, so that it is not forgotten.

    Evaluations are few and are never smoothed.
    """
    lines = []
    for run in runs:
        ys = run.table(curve).column(curve.column)
        xs = run.table(curve).column(X_COLUMNS[x_axis])[: len(ys)]
        may_smooth = curve.may_smooth and not curve.is_eval
        lines.append(Line(run.id, run.letter, run.colour, xs, ys, may_smooth=may_smooth))
    return lines


def all_metrics(runs: Sequence[ComparedRun]) -> list[str]:
    """Return what any of the runs measures, in order."""
    return list(dict.fromkeys(name for run in runs for name in run.state.metrics))


def are_of_one_objective(runs: Sequence[ComparedRun]) -> bool:
    """Tell whether these runs have the same objective, as far as they have said so."""
    return len({run.objective for run in runs} - {""}) < 2


def are_counted_alike(runs: Sequence[ComparedRun], name: str) -> bool:
    """Tell whether these runs count a metric alike; others say nothing together."""
    started = [run for run in runs if run.state.started]
    counted = {
        counted_by(name, run.config() | {"objective": run.objective}, run.state.metrics)
        for run in started
    }
    return len(counted) < 2


def default_curve(runs: Sequence[ComparedRun]) -> Curve:
    """Return the validation loss, or the training loss where nothing was evaluated; of runs whose
    losses are not counted alike their accuracy."""
    row = metric("loss" if are_counted_alike(runs, "loss") else "preference_accuracy")
    was_evaluated = any(len(run.state.evals) > 1 for run in runs)
    return _valid_curve(row) if was_evaluated else _curve(row)


# The table


@dataclass(frozen=True)
class CompareRow:
    """One row: a name and a text per run.

    Attributes:
        best: index of the best run, None where there is none.
        differs: whether the texts are not all the same.
    """

    name: str
    texts: tuple[str, ...]
    best: int | None = None
    is_setting: bool = False

    @property
    def differs(self) -> bool:
        """Whether the runs are not alike in it."""
        return len(set(self.texts)) > 1


def value_row(runs: Sequence[ComparedRun], curve: Curve, x_axis: XAxis, view: View) -> CompareRow:
    """Return every run's value at the crosshair, or its newest one, as the chart says it."""
    lines = compared_lines(runs, curve, x_axis)
    values = [value_at(line, view, drawn_values(line, view)) for line in lines]
    may_rank = are_counted_alike(runs, curve.column)
    return CompareRow(
        curve.title.lower(), _texts(values), _best(values, curve) if may_rank else None
    )


def where_text(x_axis: XAxis, view: View) -> str:
    """Return where the values of `value_row` are read."""
    if view.cursor is None:
        return "newest"
    if x_axis == "time":
        return f"after {clock_text(view.cursor)}"
    return f"at {x_axis} {view.cursor:,.0f}"


def _texts(values: Sequence[float]) -> tuple[str, ...]:
    return tuple("-" if math.isnan(value) else format_value(value) for value in values)


def _best(values: Sequence[float], curve: Curve) -> int | None:
    usable = [value for value in values if not math.isnan(value)]
    if curve.better is None or len(usable) < 2 or len(set(usable)) < 2:
        return None
    return values.index(max(usable) if curve.better == "higher" else min(usable))


def result_rows(runs: Sequence[ComparedRun]) -> list[CompareRow]:
    """Return how the runs went: status, steps, best evaluation, time, memory, speed."""
    states = [run.state for run in runs]
    best = [state.best for state in states]
    losses = [event.value("loss") if event else math.nan for event in best]
    beside = shown(all_metrics(runs), ("loss", "log_odds_ratio", "preference_accuracy"))[1:]
    seconds = [state.training_seconds for state in states]
    peaks = [state.steps.last("peak_memory_bytes") for state in states]
    is_one = are_of_one_objective(runs)
    objectives = [] if is_one else [CompareRow("objective", tuple(run.objective for run in runs))]
    return [
        *objectives,
        CompareRow("status", tuple(run.status for run in runs)),
        CompareRow("steps", tuple(f"{s.step:,}/{s.total_steps:,}" for s in states)),
        CompareRow(
            "best validation",
            tuple(f"{e.value('loss'):.4f} @{e.step:,}" if e else "-" for e in best),
            _best(losses, VALID_LOSS) if are_counted_alike(runs, "loss") else None,
        ),
        *([_beside_row(beside, best)] if beside else []),
        CompareRow("time trained", tuple(format_duration(s) if s else "-" for s in seconds)),
        CompareRow(
            "peak memory",
            tuple("-" if math.isnan(peak) or not peak else format_bytes(peak) for peak in peaks),
        ),
    ]


def _beside_row(rows: Sequence[Metric], best: Sequence[EvalCompleted | None]) -> CompareRow:
    texts = (
        ", ".join(row.brief(event.value(row.name)) for row in rows) if event else "-"
        for event in best
    )
    return CompareRow("  " + ", ".join(row.short for row in rows), tuple(texts))


def setting_rows(runs: Sequence[ComparedRun]) -> list[CompareRow]:
    """Return all settings in the order of the declaration; those that only name places left out."""
    names = dict.fromkeys(name for run in runs for name in run.config() if name not in PLACES)
    return [
        CompareRow(
            name.replace("_", " "),
            tuple(setting_text(run.config().get(name)) for run in runs),
            is_setting=True,
        )
        for name in names
    ]


# Files


def compare_csv(runs: Sequence[ComparedRun], curve: Curve) -> str:
    """Return the metric of all runs, one row per value, numbers in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "step", "tokens", "seconds", curve.column])
    for run in runs:
        table = run.table(curve)
        if curve.column not in table:
            continue
        names = ("step", "tokens", "seconds", curve.column)
        columns = [table.column(name).tolist() for name in names]
        writer.writerows([run.id, *row] for row in zip(*columns, strict=True))
    return out.getvalue()


def compare_svg(runs: Sequence[ComparedRun], curve: Curve, x_axis: XAxis, smoothing: float) -> str:
    """Return the chart as an SVG; lines differ by dashes, too."""
    series = []
    for line in compared_lines(runs, curve, x_axis):
        is_smooth = smoothing > 0 and line.may_smooth
        ys = smooth(line.ys, smoothing) if is_smooth else line.ys
        faint = line.ys.tolist() if is_smooth else []
        series.append(
            Series(
                f"{line.marker} {line.name}", line.xs.tolist(), ys.tolist(), faint,
                colour=line.colour,
            )
        )  # fmt: skip
    return svg_page([chart_svg(curve.title, x_axis, series)])
