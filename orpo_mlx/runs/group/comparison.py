"""Several runs as rows: settings in which they differ, and a result each with its interval.

A result is that of the run's evaluation (`runs/evaluation.py`), which has a 95 % interval; where a
run has none it is that of its best held-out evaluation while it trained, without one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo_mlx.config.file import overruled_settings
from orpo_mlx.config.objective import OWN_SETTINGS
from orpo_mlx.errors import ConfigError, OrpoError
from orpo_mlx.runs.directory import RunDirectory, Status
from orpo_mlx.runs.evaluation import Measured, RunEvaluation, interval_text, read_evaluation
from orpo_mlx.runs.events import EvalCompleted, RunStarted, read_events
from orpo_mlx.runs.history import valid_events
from orpo_mlx.runs.listing import summarise
from orpo_mlx.runs.metrics import metric
from orpo_mlx.text.formatting import visible
from orpo_mlx.text.spelling import near_hint

USUAL_METRIC = "preference_accuracy"
PLACES = ("run_dir", "runs_dir")
"""Settings that say where a run lies: they differ always and mean nothing."""


@dataclass(frozen=True)
class Result:
    """A metric of one run; low and high are its 95 % interval, None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ComparedRow:
    """What is known of one run of a comparison.

    Attributes:
        settings: all of them, by name.
        best: the best held-out evaluation while it trained, None before the first.
        evaluation: of its end, None where there is none.
        trouble: what of its files cannot be read, "" for nothing.
    """

    path: Path
    status: Status
    step: int = 0
    total_steps: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    best: EvalCompleted | None = None
    evaluation: RunEvaluation | None = None
    trouble: str = ""

    @property
    def id(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def metrics(self) -> list[str]:
        """What there is a result of, in order."""
        said = self.evaluation.metrics if self.evaluation else {}
        evaluated = [name for name, sides in said.items() if "adapter" in sides]
        return list(dict.fromkeys([*evaluated, *(self.best.metrics if self.best else ())]))

    def result(self, name: str) -> Result | None:
        """Return the result of a metric, None if it was not measured."""
        sides = self.evaluation.metrics.get(name, {}) if self.evaluation else {}
        if isinstance(found := sides.get("adapter"), Measured):
            return Result(found.value, found.low, found.high)
        if self.best and name in self.best.metrics:
            return Result(self.best.metrics[name])
        return None


def read_row(run: RunDirectory) -> ComparedRow:
    """Return what is known of a run; what is damaged costs itself only."""
    summary = summarise(run)
    settings, best, evaluation, trouble = {}, None, None, [summary.damage]
    try:
        for event in valid_events(record.event for record in read_events(run.events_file)):
            if isinstance(event, RunStarted):
                settings = event.config
            if isinstance(event, EvalCompleted) and event.is_best:
                best = event
    except OrpoError as error:
        trouble.append(error.message)
    try:
        config = run.read_config()
        unused = overruled_settings(config)
        settings = {n: v for n, v in config.model_dump().items() if n not in unused}
    except OrpoError as error:
        trouble.append(error.message)
    try:
        evaluation = read_evaluation(run.evaluation_file)
    except OrpoError as error:
        trouble.append(error.message)
    said = next(filter(None, trouble), "")
    return ComparedRow(
        run.path, summary.status, summary.step, summary.total_steps, settings, best, evaluation,
        said,
    )  # fmt: skip


def differing(rows: Sequence[ComparedRow]) -> list[str]:
    """Return the settings in which runs are not alike, in the order of their declaration; what only
    says where a run lies is left out."""
    names = dict.fromkeys(name for row in rows for name in row.settings if name not in PLACES)
    return [name for name in names if len({setting_text(r.settings.get(name)) for r in rows}) > 1]


def setting_text(value: object) -> str:
    """Return a setting's value in a table; "-" where it is not set."""
    match value:
        case None:
            return "-"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return visible(", ".join(map(str, value))) or "-"
        case _:
            return visible(str(value))


def all_results(rows: Sequence[ComparedRow]) -> list[str]:
    """Return the metrics that any of the runs has a result of, in order."""
    return list(dict.fromkeys(name for row in rows for name in row.metrics))


def usual_metric(rows: Sequence[ComparedRow]) -> str:
    """Return the metric runs are sorted by unless another is asked for."""
    names = all_results(rows)
    return next(iter(names), USUAL_METRIC) if USUAL_METRIC not in names else USUAL_METRIC


def require_metric(rows: Sequence[ComparedRow], name: str) -> str:
    """Return the name of a metric that there is a result of.

    Raises:
        ConfigError: no run has it; those there are are named.
    """
    known = all_results(rows)
    if name not in known:
        there = ", ".join(known) or "no results yet"
        raise ConfigError(
            f"--sort {name}: no run has this metric{near_hint(name, known)}",
            f"There are: {there}.",
        )
    return name


def by_result(rows: Sequence[ComparedRow], name: str) -> list[ComparedRow]:
    """Return runs by a metric, the best first; those without it last, in the order given."""
    with_it = [(found, row) for row in rows if (found := row.result(name)) is not None]
    lower_is_better = metric(name).better == "lower" or name.endswith("nll")
    with_it.sort(key=lambda pair: pair[0].value, reverse=not lower_is_better)
    return [row for _, row in with_it] + [row for row in rows if row.result(name) is None]


def result_text(row: ComparedRow, name: str) -> str:
    """Return a result with its interval: "83.0 % (78.0 to 88.0)"; "-" where there is none."""
    found = row.result(name)
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return value_text(name, found.value)
    return interval_text(name, {"value": found.value, "low": found.low, "high": found.high})


def value_text(name: str, value: float) -> str:
    """Return a value of a metric: "83.0 %", "0.123"."""
    return f"{100 * value:.1f} %" if metric(name).is_share else metric(name).text(value)


_MAKE_THE_LOSS = ("objective", *sorted({name for own in OWN_SETTINGS.values() for name in own}))


def counted_by(
    name: str, settings: Mapping[str, Any], measured: Collection[str]
) -> tuple[str, ...]:
    """Return what a metric of a training counts; only where it is the same may runs be ranked.

    A loss is its objective's, with its weights. Objectives with rewards judge pairs by them, and
    have log-probs as their rewards need them, sums or means. NLL is NLL.

    Args:
        settings: of the run.
        measured: names of its metrics.
    """
    if name == "loss":
        return tuple(setting_text(settings.get(own)) for own in _MAKE_THE_LOSS)
    is_of_rewards = "chosen_rewards" in measured and name in measured
    if not is_of_rewards or name.endswith(("nll", "nll_loss")):
        return ()
    return (setting_text(settings.get("objective")),)


def results_differ_in_kind(rows: Sequence[ComparedRow], name: str) -> bool:
    """Tell whether a metric is compared that these runs do not count alike."""
    kinds = {_kind(row, name) for row in rows if row.result(name) is not None}
    return len(kinds) > 1


def _kind(row: ComparedRow, name: str) -> tuple[str, ...]:
    evaluated = row.evaluation.metrics if row.evaluation else {}
    if "adapter" not in evaluated.get(name, {}):
        return counted_by(name, row.settings, row.best.metrics if row.best else ())
    # An evaluation measures log-probs of every model that has some, whatever it was trained by.
    return () if "log_odds_ratio" in evaluated else counted_by(name, row.settings, evaluated)


def difference_in_kind(name: str) -> str:
    """Return what is to be known of runs that do not count a metric alike."""
    title = metric(name).full
    if name == "loss":
        return f"these runs do not count their {title} alike, which ranks nothing"
    return (
        f"these runs do not count {title} alike: by rewards of their objective, or by log-probs; "
        "`orpo-mlx evaluate RUN` measures all by log-probs"
    )
