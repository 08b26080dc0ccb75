"""What is known of one run: how it goes, its course, its settings; a chart and an answer if there
is room."""

from __future__ import annotations

import math
from pathlib import Path

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import RunFailed
from orpo_mlx.runs.listing import RunSummary
from orpo_mlx.runs.metrics import shown
from orpo_mlx.runs.peers.hosts import hosts_text
from orpo_mlx.text.formatting import format_bytes, format_duration, visible
from orpo_mlx.text.ticks import format_value
from tui.charts.kinds import chart_end, chart_lines, chart_marks, chosen_charts
from tui.charts.line_chart import LineChart
from tui.charts.sparkline import trend
from tui.parts.harmless import plain
from tui.run.columns import Floats
from tui.run.follow import follow_run
from tui.run.state import RunState
from tui.run.status import status_text
from tui.run.time_left import time_left
from tui.shell.charset import CharsetName
from tui.shell.messages import EventsArrived
from tui.shell.names import place_text

_TREND_WIDTH = 24


class RunSummaryPanel(Horizontal):
    """The selected run; app.tcss says where chart and answers have room."""

    DEFAULT_CSS = """
    RunSummaryPanel { height: auto; max-height: 9; }
    RunSummaryPanel Static { width: 1fr; height: auto; }
    RunSummaryPanel LineChart, RunSummaryPanel #summary-answers { display: none; }
    """

    def __init__(self) -> None:
        super().__init__(classes="pane")
        self.state = RunState()
        """What is known of the run so far."""
        self._resume_key = ""
        self._shown: tuple[RunSummary, CharsetName] | None = None

    def compose(self) -> ComposeResult:
        yield Static("", id="summary-lines", markup=False)
        chart = LineChart("Log-odds ratio")
        chart.can_focus = False  # the list keeps the keys
        yield chart
        yield Static("", id="summary-answers", markup=False)

    def show(self, run: RunSummary, charset: CharsetName, resume_key: str) -> None:
        """Show a run, and what happens to it from now on."""
        self._resume_key = resume_key
        is_other = self._shown is None or self._shown[0].path != run.path
        self._shown = run, charset
        if is_other:
            self.state = RunState()
            self.query_one(LineChart).painter.forget()
            self._follow(run.path)
        self._draw()

    @work(exclusive=True, group="follow")
    async def _follow(self, path: Path) -> None:
        await follow_run(RunDirectory(path), self.post_message, poll_seconds=1.0)

    def on_events_arrived(self, message: EventsArrived) -> None:
        if self._shown and message.run == self._shown[0].path:
            self.state.apply_all(message.records)
            self._draw()

    def _draw(self) -> None:
        if self._shown is None:
            return
        run, charset = self._shown
        status = status_text(run.status, charset)
        self.border_title = plain(f"{run.id} · {status.sign} {status.word}")
        lines = summary_lines(run, self.state, charset, self._resume_key)
        self.query_one("#summary-lines", Static).update("\n".join(lines))
        chart, kind = self.query_one(LineChart), chosen_charts("log_odds", self.state.metrics)[0]
        chart.border_title = plain(kind.title)
        chart.set_charset(charset)
        end = chart_end(self.state)
        chart.plot(chart_lines(kind, self.state), chart_marks(self.state), end=end)
        self.query_one("#summary-answers", Static).update("\n".join(answer_lines(self.state)))


def summary_lines(
    run: RunSummary, state: RunState, charset: CharsetName, resume_key: str
) -> list[str]:
    """Return the lines of the panel."""
    label = run.label
    said = [label.short, *([label.note.splitlines()[0]] if label.note.strip() else [])]
    lines = [_how(run, state)]
    lines += [visible(" · ".join(filter(None, said)))] if any(said) else []
    lines += [
        _course(row.short, state.steps.column(row.name), charset)
        for row in shown(state.metrics, ("loss", "log_odds_ratio"))
        if len(state.steps)
    ]
    if settings := _settings(state):
        lines.append(settings)
    if state.checkpoints:
        last = state.checkpoints[-1]
        best = (
            f" · best validation {state.best.value('loss'):.4f} at {state.best.step}"
            if state.best
            else ""
        )
        lines.append(f"last checkpoint at step {last.step} ({format_bytes(last.bytes)}){best}")
    if isinstance(state.ended, RunFailed) and run.status == "failed":
        lines.append(f"{state.ended.message}. {state.ended.what_to_do}")
    elif run.status == "waiting":
        lines.append("waits for its turn in the queue")
    elif run.status == "failed" and run.damage:
        lines.append(visible(run.damage))
    elif run.damage:
        lines.append(f"damaged: {run.damage}; what could be read is shown")
    elif run.status == "crashed":
        how = "goes on from the last checkpoint" if state.checkpoints else "begins again"
        lines.append(f"its process ended without a word; {resume_key} {how}")
    return lines


def answer_lines(state: RunState) -> list[str]:
    """Return one prompt with its first answer and its newest, [] without samples."""
    if not state.samples:
        return []
    index = min(sample.index for sample in state.samples)
    first, *_, last = [s for s in state.samples if s.index == index] * 2
    said = [f"> {last.prompt}", "", f"step {first.step:,}", first.response]
    if last.step > first.step:
        said += ["", f"step {last.step:,}", last.response]
    return [visible(line) for text in said for line in text.split("\n")]


def _how(run: RunSummary, state: RunState) -> str:
    parts = [f"step {run.step} of {run.total_steps}" if run.total_steps else f"step {run.step}"]
    if state.training_seconds:
        parts.append(f"trained for {format_duration(state.training_seconds)}")
    if run.status == "running" and (left := time_left(state)):
        parts.append(f"left {left}")
    if run.model:
        parts.append(place_text(run.model))
    return " · ".join(parts)


def _course(name: str, values: Floats, charset: CharsetName) -> str:
    course = trend(values, _TREND_WIDTH, charset)
    ends = f"{format_value(values[0])} -> {format_value(values[-1])}"
    return f"{name:<9} {course:<{_TREND_WIDTH}}  {ends}"


def _settings(state: RunState) -> str:
    if state.started is None:
        return ""
    batch = f"{_number(state, 'micro_batch_size')} x {_number(state, 'grad_accumulation_steps')}"
    return (
        f"rank {_number(state, 'rank')} · lambda {_number(state, 'lam')} · "
        f"lr {_number(state, 'learning_rate')} · batch {batch}"
        + (f" · {hosts_text(state.hosts)}" if state.hosts else "")
    )


def _number(state: RunState, name: str) -> str:
    value = state.setting(name)
    return "?" if math.isnan(value) else f"{value:g}"
