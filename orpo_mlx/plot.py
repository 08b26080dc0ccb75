"""`orpo-mlx plot`: the course of runs as SVG, HTML or PNG, for a report outside the terminal."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from orpo_mlx import report
from orpo_mlx.chart_svg import HEIGHT, Series, chart_svg, svg_page
from orpo_mlx.command_line import Parser, add_help_option
from orpo_mlx.durable import write_atomically
from orpo_mlx.errors import ConfigError, RunError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import (
    METRIC_NAMES,
    EvalCompleted,
    Resumed,
    StepCompleted,
    read_events,
)
from orpo_mlx.runs.listing import find_run
from orpo_mlx.suggestions import nearest_name

DEFAULT_METRICS = ("loss", "log_odds_ratio", "chosen_logps", "rejected_logps")
OTHER_NAMES = ("learning_rate", "grad_norm", "tokens_per_second", "peak_memory_bytes")
ENDINGS = (".svg", ".html", ".png")


@dataclass
class Course:
    """The numbers of one run: rows of steps and of evaluations."""

    id: str
    steps: list[StepCompleted] = field(default_factory=list)
    evals: list[EvalCompleted] = field(default_factory=list)


def read_course(run: RunDirectory) -> Course:
    """Return a run's numbers; what a resumed process computed again counts once.

    Raises:
        RunError: there are none.
    """
    course = Course(run.id)
    records = read_events(run.events_file) if run.events_file.exists() else ()
    for record in records:
        match record.event:
            case StepCompleted() as event:
                course.steps.append(event)
            case EvalCompleted() as event:
                course.evals.append(event)
            case Resumed(step=step, new_process=True):
                course.steps = [event for event in course.steps if event.step <= step]
                course.evals = [event for event in course.evals if event.step <= step]
            case _:
                pass
    if not course.steps:
        raise RunError(f"run {run.id} has no steps yet: nothing to draw", "Choose another run.")
    return course


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Return the debiased exponential moving average of finite values."""
    result, average = [], 0.0
    for count, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        result.append(average / (1 - weight**count))
    return result


def metric_series(courses: Sequence[Course], metric: str, weight: float) -> list[Series]:
    """Return the lines of one chart: each run's steps, and its evaluations where it has them."""
    found = []
    for number, course in enumerate(courses):
        label = f"{course.id} " if len(courses) > 1 else ""
        ys = [float(getattr(event, metric)) for event in course.steps]
        xs = [float(event.step) for event in course.steps]
        if weight and metric != "learning_rate":
            found.append(Series(f"{label}train", xs, smoothed(ys, weight), ys, colour=number))
        else:
            found.append(Series(f"{label}train", xs, ys, colour=number))
        if course.evals and metric in METRIC_NAMES:
            found.append(
                Series(
                    f"{label}valid",
                    [float(event.step) for event in course.evals],
                    [float(getattr(event, metric)) for event in course.evals],
                    points=True,
                    colour=number,
                )
            )
    return found


def draw_svg(courses: Sequence[Course], metrics: Sequence[str], weight: float) -> str:
    """Return one chart per metric, below each other."""
    charts = [
        chart_svg(metric, "step", metric_series(courses, metric, weight), top=index * HEIGHT)
        for index, metric in enumerate(metrics)
    ]
    return svg_page(charts)


def draw_html(courses: Sequence[Course], svg: str) -> str:
    """Return a page of its own with the charts; no script, nothing loaded from elsewhere."""
    title = escape(", ".join(course.id for course in courses))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"</head>\n<body><h1>{title}</h1>\n{svg}</body></html>\n"
    )


def write_png(courses: Sequence[Course], metrics: Sequence[str], weight: float, out: Path) -> None:
    """Draw with matplotlib.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            f"{out}: drawing PNG needs matplotlib, which is not installed",
            "Install it with `pip install matplotlib`, or write an .svg or .html file.",
        )
    figures: Any = importlib.import_module("matplotlib.figure")
    figure = figures.Figure(figsize=(9, 3.6 * len(metrics)), layout="constrained")
    for index, metric in enumerate(metrics):
        axes = figure.add_subplot(len(metrics), 1, index + 1, title=metric, xlabel="step")
        for one in metric_series(courses, metric, weight):
            axes.plot(one.xs, one.ys, "o" if one.points else "-", label=one.name)
        axes.legend()
    figure.savefig(out)


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx plot`."""
    given = _parser().parse(argv)
    if not given.get("runs") or "out" not in given:
        missing = "which run?" if not given.get("runs") else "--out is missing"
        raise ConfigError(f"orpo-mlx plot: {missing}", "Write: orpo-mlx plot RUN --out run.svg")
    out = Path(given["out"]).expanduser()
    if out.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"--out {out}: ends in {out.suffix or 'nothing'}, needs {', '.join(ENDINGS)}",
            "The ending says what is drawn: write --out run.svg",
        )
    metrics, weight = _metrics(given.get("metrics")), _weight(given.get("smooth", "0.9"))
    runs = [find_run(name, given.get("runs_dir")) for name in given["runs"]]
    courses = [read_course(run) for run in runs]
    try:
        _write(courses, metrics, weight, out)
    except OSError as error:
        raise ConfigError(
            f"--out {out}: cannot be written ({error.strerror})", "Choose another place."
        ) from None
    return report.print_text(f"{out}\n")


def _write(courses: Sequence[Course], metrics: Sequence[str], weight: float, out: Path) -> None:
    if out.suffix.lower() == ".png":
        return write_png(courses, metrics, weight, out)
    svg = draw_svg(courses, metrics, weight)
    text = svg if out.suffix.lower() == ".svg" else draw_html(courses, svg)
    write_atomically(out, text.encode())
    return None


def _metrics(text: str | None) -> list[str]:
    chosen: Sequence[str] = text.split(",") if text else DEFAULT_METRICS
    names = [name.strip() for name in chosen]
    known = [*METRIC_NAMES, *OTHER_NAMES]
    for name in names:
        if name not in known:
            near = nearest_name(name, known)
            hint = f"; did you mean {near}?" if near else ""
            raise ConfigError(
                f"--metrics: there is no metric {name!r}{hint}", f"Known: {', '.join(known)}."
            )
    return names


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < 1:
        raise ConfigError(f"--smooth: {text} is not a number from 0 to below 1", "Write 0.9.")
    return weight


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx plot",
        "Draw the course of one or more runs: a chart per metric, raw values behind smoothed ones.",
        usage="orpo-mlx plot RUN... --out FILE.svg|html|png [options]",
    )
    add_help_option(parser)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="Ids, their beginnings, or paths.")
    parser.add_argument(
        "--out", metavar="FILE", help="Ends in .svg, .html, or .png (which needs matplotlib)."
    )
    parser.add_argument(
        "--metrics", metavar="NAMES", help=f"Comma-separated. [default {','.join(DEFAULT_METRICS)}]"
    )
    parser.add_argument(
        "--smooth", metavar="X", help="Weight of the past, 0 to below 1. [default 0.9]"
    )
    parser.add_argument("--runs-dir", metavar="FOLDER", help="Folder of all runs.")
    parser.add_argument("--debug", action="store_true", help="Show tracebacks of errors.")
    return parser
