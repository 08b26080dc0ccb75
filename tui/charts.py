"""Which charts there are and what they draw from a run; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tui.picture import Line
from tui.run_state import RunState

XAxis = Literal["step", "tokens", "time"]
X_AXES: tuple[XAxis, ...] = ("step", "tokens", "time")

X_COLUMNS = {"step": "step", "tokens": "tokens", "time": "seconds"}


@dataclass(frozen=True)
class Source:
    """One line of a chart: a column of a run's steps or evaluations."""

    name: str
    column: str
    marker: str
    colour: int
    is_eval: bool = False
    may_smooth: bool = True
    scale: float = 1.0


@dataclass(frozen=True)
class ChartKind:
    """A chart by its stable name (it stands in the user's settings) and its title."""

    id: str
    title: str
    what: str
    sources: tuple[Source, ...]


CHARTS: tuple[ChartKind, ...] = (
    ChartKind("loss", "Loss", "what is trained on, and the same on held-out pairs", (
        Source("train", "loss", "o", 0),
        Source("valid", "loss", "x", 1, is_eval=True),
    )),
    ChartKind("log_odds", "Log-odds ratio", "above 0: chosen is likelier", (
        Source("train", "log_odds_ratio", "o", 0),
        Source("valid", "log_odds_ratio", "x", 1, is_eval=True),
    )),
    ChartKind("logps", "Log-probs", "mean per response token", (
        Source("chosen", "chosen_logps", "o", 0),
        Source("rejected", "rejected_logps", "x", 1),
    )),
    ChartKind("accuracy", "Accuracy", "share of pairs with chosen likelier", (
        Source("train", "preference_accuracy", "o", 0),
        Source("valid", "preference_accuracy", "x", 1, is_eval=True),
    )),
    ChartKind("parts", "Loss parts", "NLL of chosen, and λ times the odds-ratio loss", (
        Source("nll", "nll_loss", "o", 0),
        Source("λ·OR", "preference_term", "x", 1),
    )),
    ChartKind("margin", "Margin", "chosen minus rejected log-prob", (
        Source("train", "logps_margin", "o", 0),
        Source("valid", "logps_margin", "x", 1, is_eval=True),
    )),
    ChartKind("rate", "Learning rate", "never smoothed", (
        Source("rate", "learning_rate", "o", 0, may_smooth=False),
    )),
    ChartKind("grad", "Gradient norm", "before clipping", (
        Source("norm", "grad_norm", "o", 0),
    )),
    ChartKind("speed", "Speed", "tokens per second", (
        Source("tok/s", "tokens_per_second", "o", 0),
    )),
    ChartKind("memory", "Memory", "GB in use and at most so far", (
        Source("active", "active_memory_bytes", "o", 0, may_smooth=False, scale=1e-9),
        Source("peak", "peak_memory_bytes", "x", 1, may_smooth=False, scale=1e-9),
    )),
)  # fmt: skip

CHARTS_BY_ID = {chart.id: chart for chart in CHARTS}


def chart_lines(kind: ChartKind, state: RunState, x_axis: XAxis = "step") -> list[Line]:
    """Return what a chart shows of a run; sources without data are left out."""
    lines = []
    for source in kind.sources:
        table = state.evals if source.is_eval else state.steps
        if source.is_eval and not len(table):
            continue
        ys = table.column(source.column)
        lines.append(
            Line(
                source.name,
                source.marker,
                source.colour,
                table.column(X_COLUMNS[x_axis]),
                ys if source.scale == 1.0 else ys * source.scale,
                points=source.is_eval,
                may_smooth=source.may_smooth,
            )
        )
    return lines


def chart_marks(state: RunState, x_axis: XAxis = "step") -> list[tuple[float, str]]:
    """Return the marks of a run on the x axis; only steps have a place for each of them."""
    if x_axis != "step":
        return []
    return [(mark.step, mark.kind) for mark in state.marks]


def chosen_charts(names: str | Sequence[str]) -> list[ChartKind]:
    """Return the charts of a comma-separated setting; unknown names are left out, never all."""
    words = names.split(",") if isinstance(names, str) else names
    found = [CHARTS_BY_ID[word.strip()] for word in words if word.strip() in CHARTS_BY_ID]
    return found or list(CHARTS[:4])
