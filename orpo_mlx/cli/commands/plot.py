"""`orpo-mlx plot`: the course of runs as SVG or HTML, for a report outside the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_runs_dir_option,
    number_option,
)
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.errors import ConfigError, RunError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import (
    DriftMeasured,
    EvalCompleted,
    RunStarted,
    StepCompleted,
    read_events,
)
from orpo_mlx.runs.history import valid_events
from orpo_mlx.runs.listing import find_run
from orpo_mlx.runs.metrics import TOGETHER, metric, shown
from orpo_mlx.storage.atomic import write_atomically
from orpo_mlx.text.formatting import visible
from orpo_mlx.text.smoothing import smooth
from orpo_mlx.text.spelling import near_hint
from orpo_mlx.text.svg_chart import HEIGHT, Series, chart_svg, svg_page

USUAL = ("loss", "log_odds_ratio", "chosen_logps", "rejected_logps")
OTHER_NAMES = ("learning_rate", "grad_norm", "tokens_per_second", "peak_memory_bytes")
DRIFT = "drift"
"""KL per token from the base; `DriftMeasured`."""
ENDINGS = (".svg", ".html")
_BELOW_1 = math.nextafter(1, 0)


@dataclass(frozen=True)
class Course:
    """The numbers of one run: rows of steps, of evaluations and of drift."""

    id: str
    steps: list[StepCompleted]
    evals: list[EvalCompleted]
    objective: str
    drift: list[DriftMeasured]

    @property
    def metrics(self) -> list[str]:
        """What the run measures, in order."""
        return list(self.steps[-1].metrics)

    def has(self, name: str) -> bool:
        """Tell whether there is something to draw by this name."""
        return bool(self.drift) if name == DRIFT else name in (*self.metrics, *OTHER_NAMES)


def read_course(run: RunDirectory) -> Course:
    """Return a run's numbers; what a resumed process computed again counts once.

    Raises:
        RunError: there are none.
    """
    events = list(valid_events(record.event for record in read_events(run.events_file)))
    steps = [event for event in events if isinstance(event, StepCompleted)]
    evals = [event for event in events if isinstance(event, EvalCompleted)]
    if not steps:
        raise RunError(f"run {run.id} has no steps yet: nothing to draw", "Choose another run.")
    drift = [event for event in events if isinstance(event, DriftMeasured)]
    started = next((event for event in events if isinstance(event, RunStarted)), None)
    return Course(run.id, steps, evals, started.objective if started else "", drift)


@dataclass(frozen=True)
class Pane:
    """One chart: metrics of like kind, of runs that can be compared by them."""

    metrics: tuple[str, ...]
    courses: tuple[Course, ...]
    objective: str = ""
    """Of these runs, where the same metric means something else in others."""

    def title(self, weight: float) -> str:
        """Return what is drawn, and how it was smoothed."""
        kind = f" of {self.objective}" if self.objective else ""
        smoothed = weight > 0 and self.metrics[0] not in ("learning_rate", DRIFT)
        return f"{' and '.join(self.metrics)}{kind}" + (
            f", smoothed {weight:g}, raw values behind" if smoothed else ""
        )


def panes(courses: Sequence[Course], metrics: Sequence[str]) -> list[Pane]:
    """Return the charts of some metrics: a loss is compared only among runs of one objective."""
    found = []
    for name in metrics:
        names = TOGETHER if name in TOGETHER and set(TOGETHER) <= set(metrics) else (name,)
        if name != names[0]:
            continue
        having = [one for one in courses if one.has(name)]
        kinds = dict.fromkeys(one.objective for one in having)
        if name == "loss" and len(kinds) > 1:
            for kind in kinds:
                same = tuple(one for one in having if one.objective == kind)
                found.append(Pane(names, same, kind))
        else:
            found.append(Pane(names, tuple(having)))
    return found


def pane_series(pane: Pane, weight: float) -> list[Series]:
    """Return the lines of one chart: each run's steps, and its evaluations where it has them."""
    found = []
    sides = [(course, name) for course in pane.courses for name in pane.metrics]
    for colour, (course, name) in enumerate(sides):
        words = [course.id] if len(pane.courses) > 1 else []
        words += [metric(name).short] if len(pane.metrics) > 1 else []
        label = "".join(f"{word} " for word in words)
        if name == DRIFT:
            xs = [float(event.step) for event in course.drift]
            ys = [event.kl_per_token for event in course.drift]
            found.append(Series(f"{label}drift", xs, ys, points=True, colour=colour))
            continue
        ys = [_value(event, name) for event in course.steps]
        xs = [float(event.step) for event in course.steps]
        if weight and name != "learning_rate":
            line = smooth(np.array(ys), weight).tolist()
            found.append(Series(f"{label}train", xs, line, ys, colour=colour))
        else:
            found.append(Series(f"{label}train", xs, ys, colour=colour))
        if course.evals and name in course.metrics:
            places = [float(event.step) for event in course.evals]
            values = [event.value(name) for event in course.evals]
            found.append(Series(f"{label}valid", places, values, points=True, colour=colour))
    return found


def _value(event: StepCompleted, name: str) -> float:
    return float(getattr(event, name)) if name in OTHER_NAMES else event.value(name)


def draw_svg(courses: Sequence[Course], metrics: Sequence[str], weight: float) -> str:
    """Return the charts of some metrics, below each other."""
    charts = [
        chart_svg(pane.title(weight), "step", pane_series(pane, weight), top=index * HEIGHT)
        for index, pane in enumerate(panes(courses, metrics))
    ]
    return svg_page(charts)


def draw_html(courses: Sequence[Course], svg: str) -> str:
    """Return a page of its own with the charts; no script, nothing loaded from elsewhere."""
    title = escape(visible(", ".join(course.id for course in courses)))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"</head>\n<body><h1>{title}</h1>\n{svg}</body></html>\n"
    )


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx plot`."""
    given = _parser().parse(argv)
    if not given.get("runs") or "out" not in given:
        missing = "which run?" if not given.get("runs") else "--out is missing"
        raise ConfigError(f"orpo-mlx plot: {missing}", "Write: orpo-mlx plot RUN --out run.svg")
    out = Path(given["out"]).expanduser()
    if out.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"--out {out}: ends in {out.suffix or 'nothing'}, needs {' or '.join(ENDINGS)}",
            "The ending says what is drawn: write --out run.svg",
        )
    weight = number_option(
        given, "smooth", 0.9, 0, _BELOW_1, bounds="from 0 to below 1", advice="Write 0.9."
    )
    runs = [find_run(name, given.get("runs_dir")) for name in given["runs"]]
    courses = [read_course(run) for run in runs]
    metrics = _metrics(given.get("metrics"), courses)
    try:
        _write(courses, metrics, weight, out)
    except OSError as error:
        raise ConfigError(
            f"--out {out}: cannot be written ({error.strerror})", "Choose another place."
        ) from None
    return print_text(f"{out}\n")


def _write(courses: Sequence[Course], metrics: Sequence[str], weight: float, out: Path) -> None:
    svg = draw_svg(courses, metrics, weight)
    text = svg if out.suffix.lower() == ".svg" else draw_html(courses, svg)
    write_atomically(out, text.encode())


def _metrics(text: str | None, courses: Sequence[Course]) -> list[str]:
    measured = dict.fromkeys(name for course in courses for name in course.metrics)
    if not text:
        drift = [DRIFT] * any(course.drift for course in courses)
        return [*(row.name for row in shown(measured, USUAL)), *drift]
    names = [name.strip() for name in text.split(",")]
    known = [*measured, *OTHER_NAMES, DRIFT]
    for name in names:
        if name not in known:
            hint = near_hint(name, known)
            raise ConfigError(
                f"--metrics: there is no metric {name!r}{hint}", f"Known: {', '.join(known)}."
            )
    return names


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx plot",
        "Draw the course of one or more runs: a chart per metric, raw values behind smoothed ones.",
        usage="orpo-mlx plot RUN... --out FILE.svg|html [options]",
    )
    add_help_option(parser)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="Ids, their beginnings, or paths.")
    parser.add_argument("--out", metavar="FILE", help="Ends in .svg or .html.")
    parser.add_argument(
        "--metrics", metavar="NAMES", help=f"Comma-separated. [default {','.join(USUAL)}]"
    )
    parser.add_argument(
        "--smooth", metavar="X", help="Weight of the past, 0 to below 1. [default 0.9]"
    )
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser
