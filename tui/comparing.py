"""Several runs beside each other: what a chart draws of them and where their settings differ; pure.

Up to four, because there are four colours; every run also has a letter.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo_mlx.axes import format_value
from orpo_mlx.chart_svg import Series, chart_svg, svg_page
from orpo_mlx.formatting import format_bytes, format_duration, visible
from orpo_mlx.runs.directory import Status
from tui.charts import X_COLUMNS, XAxis
from tui.painting import clock_text, drawn_values, value_at
from tui.picture import Line, View
from tui.plotting import smooth
from tui.run_state import RunState
from tui.table import Table

LETTERS = "ABCD"
MAX_RUNS = len(LETTERS)

_PLACES = ("run_dir", "runs_dir")
"""Settings that say where a run lies: they differ always and mean nothing."""


@dataclass(frozen=True)
class Metric:
    """Something that can be drawn of every run."""

    id: str
    title: str
    column: str
    is_eval: bool = False
    is_better_high: bool | None = None
    may_smooth: bool = True


METRICS: tuple[Metric, ...] = (
    Metric("valid_loss", "Validation loss", "loss", True, False),
    Metric("loss", "Training loss", "loss", False, False),
    Metric("valid_log_odds", "Validation log-odds ratio", "log_odds_ratio", True, True),
    Metric("log_odds", "Log-odds ratio", "log_odds_ratio", False, True),
    Metric("valid_accuracy", "Validation accuracy", "preference_accuracy", True, True),
    Metric("accuracy", "Accuracy", "preference_accuracy", False, True),
    Metric("valid_margin", "Validation margin", "logps_margin", True, True),
    Metric("margin", "Margin", "logps_margin", False, True),
    Metric("valid_nll", "Validation NLL", "nll_loss", True, False),
    Metric("nll", "NLL", "nll_loss", False, False),
    Metric("odds_loss", "Odds-ratio loss", "odds_ratio_loss", False, False),
    Metric("chosen", "Log-prob of chosen", "chosen_logps", False, True),
    Metric("rejected", "Log-prob of rejected", "rejected_logps"),
    Metric("rate", "Learning rate", "learning_rate", may_smooth=False),
    Metric("grad", "Gradient norm", "grad_norm"),
    Metric("speed", "Tokens per second", "tokens_per_second", is_better_high=True),
    Metric("step_time", "Seconds per step", "step_seconds", is_better_high=False),
    Metric("memory", "Memory in use", "active_memory_bytes", may_smooth=False),
)
METRICS_BY_ID = {metric.id: metric for metric in METRICS}


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

    def table(self, metric: Metric) -> Table:
        """Return where the metric's values are."""
        return self.state.evals if metric.is_eval else self.state.steps

    def config(self) -> dict[str, Any]:
        """Return the settings it was started with."""
        return self.state.started.config if self.state.started else {}


def compared_lines(runs: Sequence[ComparedRun], metric: Metric, x_axis: XAxis) -> list[Line]:
    """Return one line per run; a run without values has an empty one, so that it is not forgotten.

    Evaluations are few and are never smoothed.
    """
    return [
        Line(
            run.id,
            run.letter,
            run.colour,
            run.table(metric).column(X_COLUMNS[x_axis]),
            run.table(metric).column(metric.column),
            may_smooth=metric.may_smooth and not metric.is_eval,
        )
        for run in runs
    ]


def default_metric(runs: Sequence[ComparedRun]) -> Metric:
    """Return the validation loss, or the training loss where nothing was evaluated."""
    return METRICS[0] if any(len(run.state.evals) > 1 for run in runs) else METRICS[1]


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


def value_row(runs: Sequence[ComparedRun], metric: Metric, x_axis: XAxis, view: View) -> CompareRow:
    """Return every run's value at the crosshair, or its newest one, as the chart says it."""
    lines = compared_lines(runs, metric, x_axis)
    values = [value_at(line, view, drawn_values(line, view)) for line in lines]
    return CompareRow(metric.title.lower(), _texts(values), _best(values, metric))


def where_text(x_axis: XAxis, view: View) -> str:
    """Return where the values of `value_row` are read."""
    if view.cursor is None:
        return "newest"
    if x_axis == "time":
        return f"after {clock_text(view.cursor)}"
    return f"at {x_axis} {view.cursor:,.0f}"


def _texts(values: Sequence[float]) -> tuple[str, ...]:
    return tuple("-" if math.isnan(value) else format_value(value) for value in values)


def _best(values: Sequence[float], metric: Metric) -> int | None:
    usable = [value for value in values if not math.isnan(value)]
    if metric.is_better_high is None or len(usable) < 2 or len(set(usable)) < 2:
        return None
    return values.index(max(usable) if metric.is_better_high else min(usable))


def result_rows(runs: Sequence[ComparedRun]) -> list[CompareRow]:
    """Return how the runs went: status, steps, best evaluation, time, memory, speed."""
    states = [run.state for run in runs]
    best = [state.best for state in states]
    losses = [event.loss if event else math.nan for event in best]
    seconds = [state.elapsed_seconds for state in states]
    peaks = [state.steps.last("peak_memory_bytes") for state in states]
    return [
        CompareRow("status", tuple(run.status for run in runs)),
        CompareRow("steps", tuple(f"{s.step:,}/{s.total_steps:,}" for s in states)),
        CompareRow(
            "best validation",
            tuple(f"{e.loss:.4f} @{e.step:,}" if e else "-" for e in best),
            _best(losses, METRICS[0]),
        ),
        CompareRow(
            "  log-odds, acc",
            tuple(
                f"{e.log_odds_ratio:+.2f}, {e.preference_accuracy:.0%}" if e else "-" for e in best
            ),
        ),
        CompareRow("time", tuple(format_duration(s) if s else "-" for s in seconds)),
        CompareRow(
            "peak memory",
            tuple("-" if math.isnan(peak) or not peak else format_bytes(peak) for peak in peaks),
        ),
    ]


def setting_rows(runs: Sequence[ComparedRun]) -> list[CompareRow]:
    """Return all settings in the order of the declaration; those that only name places left out."""
    names = dict.fromkeys(name for run in runs for name in run.config() if name not in _PLACES)
    return [
        CompareRow(
            name.replace("_", " "),
            tuple(_setting(run.config().get(name)) for run in runs),
            is_setting=True,
        )
        for name in names
    ]


def _setting(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(map(str, value)) or "-"
        case _:
            return visible(str(value))


# Files


def compare_csv(runs: Sequence[ComparedRun], metric: Metric) -> str:
    """Return the metric of all runs, one row per value, numbers in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "step", "tokens", "seconds", metric.column])
    for run in runs:
        table = run.table(metric)
        names = ("step", "tokens", "seconds", metric.column)
        columns = [table.column(name).tolist() for name in names]
        writer.writerows([run.id, *row] for row in zip(*columns, strict=True))
    return out.getvalue()


def compare_svg(
    runs: Sequence[ComparedRun], metric: Metric, x_axis: XAxis, smoothing: float
) -> str:
    """Return the chart as an SVG; lines differ by dashes, too."""
    series = []
    for line in compared_lines(runs, metric, x_axis):
        is_smooth = smoothing > 0 and line.may_smooth
        ys = smooth(line.ys, smoothing) if is_smooth else line.ys
        faint = line.ys.tolist() if is_smooth else []
        series.append(
            Series(
                f"{line.marker} {line.name}", line.xs.tolist(), ys.tolist(), faint,
                colour=line.colour,
            )
        )  # fmt: skip
    return svg_page([chart_svg(metric.title, x_axis, series)])
