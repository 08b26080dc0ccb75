"""Which charts there are and what they draw from a run; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from orpo_mlx.runs.metrics import METRICS, Metric, metric
from tui.charts.picture import Line
from tui.run.state import RunState

XAxis = Literal["step", "tokens", "time"]
X_AXES: tuple[XAxis, ...] = ("step", "tokens", "time")

X_COLUMNS = {"step": "step", "tokens": "tokens", "time": "seconds"}


@dataclass(frozen=True)
class ChartLine:
    """One line of a chart: a column of a run's steps, of its evaluations or of its drift."""

    name: str
    column: str
    marker: str
    colour: int
    is_eval: bool = False
    is_drift: bool = False
    may_smooth: bool = True
    scale: float = 1.0
    times: str = ""
    """A setting of the run whose value it is multiplied by."""


@dataclass(frozen=True)
class ChartKind:
    """A chart by its stable name (it stands in the user's settings) and its title."""

    id: str
    title: str
    what: str
    sources: tuple[ChartLine, ...]


_COMBINED = (
    ChartKind("logps", "Log-probs", "of a response: per token, or its sum under dpo and cpo", (
        ChartLine("chosen", "chosen_logps", "c", 0),
        ChartLine("rejected", "rejected_logps", "r", 1),
        ChartLine("validation", "chosen_logps", "C", 0, is_eval=True),
        ChartLine("validation", "rejected_logps", "R", 1, is_eval=True),
    )),
    ChartKind("rewards", "Rewards", "of chosen and rejected, mean over pairs", (
        ChartLine("chosen", "chosen_rewards", "c", 0),
        ChartLine("rejected", "rejected_rewards", "r", 1),
        ChartLine("validation", "chosen_rewards", "C", 0, is_eval=True),
        ChartLine("validation", "rejected_rewards", "R", 1, is_eval=True),
    )),
    ChartKind("parts", "Loss parts", "NLL of chosen, and λ times the odds-ratio loss", (
        ChartLine("NLL", "nll_loss", "n", 0),
        ChartLine("λ·odds-ratio", "odds_ratio_loss", "o", 1, times="lam"),
    )),
)  # fmt: skip
"""Charts of several metrics, for runs that have them all."""

_SHARED = ChartKind("peers", "Waiting", "seconds of a step: for the slowest process, the network", (
    ChartLine("slowest", "wait_seconds", "w", 0),
    ChartLine("network", "exchange_seconds", "n", 1),
))  # fmt: skip
"""For runs of several processes."""

_OTHERS = (
    ChartKind("drift", "Drift", "KL per token from the base, on neutral prompts", (
        ChartLine("KL", "kl_per_token", "x", 1, is_drift=True, may_smooth=False),
    )),
    ChartKind("rate", "Learning rate", "never smoothed", (
        ChartLine("rate", "learning_rate", "o", 0, may_smooth=False),
    )),
    ChartKind("grad", "Gradient norm", "before clipping", (
        ChartLine("norm", "grad_norm", "o", 0),
    )),
    ChartKind("speed", "Speed", "tokens per second", (
        ChartLine("tok/s", "tokens_per_second", "o", 0),
    )),
    ChartKind("memory", "Memory", "GB in use and at most so far", (
        ChartLine("active", "active_memory_bytes", "o", 0, may_smooth=False, scale=1e-9),
        ChartLine("peak", "peak_memory_bytes", "x", 1, may_smooth=False, scale=1e-9),
    )),
)  # fmt: skip


def _own_chart(row: Metric) -> ChartKind:
    sources = [ChartLine("train", row.name, "t", 0)]
    if row.is_drawn_valid:
        sources.append(ChartLine("validation", row.name, "v", 1, is_eval=True))
    return ChartKind(row.id, row.title, row.what, tuple(sources))


def chart_kinds(metrics: Iterable[str] = METRICS, *, is_shared: bool = False) -> list[ChartKind]:
    """Return the charts there are of runs with these metrics, those of metrics first.

    They come in the order of the table of metrics; without an argument, all that it knows.

    Args:
        metrics: the run's.
        is_shared: whether several processes share its steps.
    """
    names = tuple(metrics)
    found = [_own_chart(row) for row in map(metric, names) if row.is_charted]
    found += [kind for kind in _COMBINED if all(s.column in names for s in kind.sources)]
    place = {name: index for index, name in enumerate(METRICS)}
    found.sort(key=lambda kind: place.get(kind.sources[0].column, len(place)))
    return [*found, *_OTHERS, *([_SHARED] if is_shared else [])]


def chart_lines(kind: ChartKind, state: RunState, x_axis: XAxis = "step") -> list[Line]:
    """Return what a chart shows of a run; sources without data are left out."""
    lines = []
    for source in kind.sources:
        has_points = source.is_eval or source.is_drift
        table = state.drift if source.is_drift else state.evals if source.is_eval else state.steps
        if source.column not in table or (has_points and not len(table)):
            continue
        ys = table.column(source.column)
        scale = source.scale * (state.setting(source.times, 1.0) if source.times else 1.0)
        lines.append(
            Line(
                source.name,
                source.marker,
                source.colour,
                table.column(X_COLUMNS[x_axis]),
                ys if scale == 1.0 else ys * scale,
                points=has_points,
                may_smooth=source.may_smooth,
            )
        )
    return lines


def chart_marks(state: RunState, x_axis: XAxis = "step") -> list[tuple[float, str]]:
    """Return the marks of a run on the x axis; only steps have a place for each of them."""
    if x_axis != "step":
        return []
    return [(mark.step, mark.kind) for mark in state.marks]


def chart_end(state: RunState, x_axis: XAxis = "step") -> float:
    """Return where the x axis of a run ends, 0 if nobody knows: of steps it is known beforehand."""
    if x_axis != "step":
        return 0
    return state.step if state.ended else state.total_steps


def chosen_charts(
    names: str | Sequence[str], metrics: Iterable[str] = METRICS, *, is_shared: bool = False
) -> list[ChartKind]:
    """Return the charts of a comma-separated setting; those that a run cannot have give way to its
    own, unknown names are left out, never all."""
    metrics = tuple(metrics)
    words = [w.strip() for w in (names.split(",") if isinstance(names, str) else names)]
    kinds = chart_kinds(metrics, is_shared=is_shared)
    known = {kind.id for kind in chart_kinds(is_shared=True)}
    by_id = {kind.id: kind for kind in kinds}
    wanted = [word for word in words if word in known]
    chosen = [by_id[word] for word in wanted if word in by_id]
    others = [kind for kind in kinds if kind not in chosen and kind not in (*_OTHERS, _SHARED)]
    return [*chosen, *others[: len(wanted) - len(chosen)]] or kinds[:4]
