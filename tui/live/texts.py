"""The live screen's texts: title, numbers, tabs; pure functions of state and width."""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Sequence
from itertools import zip_longest

from rich.cells import set_cell_size

from orpo_mlx.runs.directory import Status
from orpo_mlx.runs.events import SampleGenerated
from orpo_mlx.runs.metrics import Metric, metric, shown
from orpo_mlx.text.formatting import format_bytes, format_duration, visible
from orpo_mlx.text.ticks import format_value
from tui.charts.sparkline import gauge
from tui.live.peers import peers_line
from tui.run.state import RunState
from tui.run.status import ALIVE, status_text
from tui.run.time_left import time_left
from tui.shell.charset import CharsetName
from tui.shell.lines import TextLine


def title_text(
    run_id: str, status: Status, state: RunState, asked: str, charset: CharsetName
) -> str:
    """Return the title of the live screen; `asked` is a request not yet answered, "" for none."""
    sign, word, _ = status_text(status, charset)
    parts = [f"{sign} {asked.upper() if asked else word.upper()}", run_id]
    if state.total_steps:
        parts.append(f"{state.step:,}/{state.total_steps:,}")
    epochs = state.setting("epochs", 0)
    if state.epoch and epochs:
        parts.append(f"epoch {min(math.floor(state.epoch) + 1, max(1, math.ceil(epochs)))}")
    if status == "running" and (left := time_left(state)):
        parts.append(f"left {left}")
    return "  ".join(parts)


def title_end(status: Status, state: RunState, pause_key: str) -> str:
    """Return what stands at the right of the title: how a pause ends, what is saved."""
    hint = f"{pause_key} goes on  " if status == "paused" else ""
    return hint + saved_text(state)


def saved_text(state: RunState) -> str:
    """Return "saved @1100", or that nothing is saved yet."""
    if state.checkpoints:
        return f"saved @{state.checkpoints[-1].step:,}"
    return "nothing saved yet" if state.step else ""


def number_rows(state: RunState) -> list[tuple[str, str]]:
    """Return (name, value) of the newest step."""
    last = state.steps.last
    if not len(state.steps):
        return []
    return [
        *(_number_row(state, metric(name)) for name in state.metrics),
        ("learning rate", f"{last('learning_rate'):.2e}"),
        ("gradient norm", format_value(last("grad_norm"))),
        ("", ""),
        ("tokens/s", f"{last('tokens_per_second'):,.0f}"),
        ("step time", format_duration(last("step_seconds"))),
        ("tokens seen", f"{last('tokens'):,.0f}"),
    ]


def _number_row(state: RunState, row: Metric) -> tuple[str, str]:
    value = state.steps.last(row.name)
    if row.name == "nll_loss":
        return "  nll", format_value(value)
    if row.name == "odds_ratio_loss":
        return "  λ·odds-ratio", format_value(state.lam * value)
    # What falls towards 0 keeps its digits.
    text = format_value(value) if row.better == "lower" else row.brief(value, 3)
    return row.label.removesuffix(" log-prob"), text


def brief_text(state: RunState, limit_bytes: int) -> str:
    """Return the newest numbers on one line."""
    if not len(state.steps):
        return ""
    last = state.steps.last
    peak = last("peak_memory_bytes")
    memory = f"  mem {format_bytes(peak)}" if peak and limit_bytes else ""
    usual = ("loss", "nll_loss", "log_odds_ratio", "preference_accuracy")
    said = [
        f"{row.short.removeprefix('log-')} {_brief(state, row)}"
        for row in shown(state.metrics, usual)
    ]
    return "  ".join([*said, f"{last('tokens_per_second'):,.0f} tok/s{memory}"])


def _brief(state: RunState, row: Metric) -> str:
    return row.brief(state.steps.last(row.name), 2 if row.format.startswith("+") else 3)


def memory_lines(state: RunState, limit_bytes: int, width: int, charset: CharsetName) -> list[str]:
    """Return how much of the memory the run uses."""
    peak = state.steps.last("peak_memory_bytes")
    if math.isnan(peak) or not peak or not limit_bytes:
        return []
    share = peak / limit_bytes
    lines = [
        f"peak {format_bytes(peak)} of {format_bytes(limit_bytes)}",
        f"{gauge(share, max(6, width - 5), charset)} {share:4.0%}",
    ]
    if state.started and state.started.estimated_peak_bytes:
        lines.append(f"estimated {format_bytes(state.started.estimated_peak_bytes)}")
    return lines


_EVENT_COLUMN = len("12:00:00 ") + 8
"""Where the text of an event begins, behind its time and its kind."""


def event_lines(state: RunState, width: int) -> list[TextLine]:
    """Return the events tab, oldest first; what is too long goes on below itself."""
    lines: list[TextLine] = []
    for line in state.lines:
        parts = _event_parts(visible(line.text).replace("\n", " "), width - _EVENT_COLUMN)
        lines.append(
            (
                ("quiet", time.strftime("%H:%M:%S ", time.localtime(line.time))),
                ("bad" if line.kind in ("error", "warning") else "kind", f"{line.kind:<8}"),
                ("text", parts[0]),
            )
        )
        lines += [(("text", " " * _EVENT_COLUMN + part),) for part in parts[1:]]
    return lines


def _event_parts(text: str, room: int) -> list[str]:
    # Most fit, and a long run has thousands.
    if len(text) < room:
        return [text]
    return textwrap.wrap(text, max(20, room - 1), break_on_hyphens=False) or [""]


def sample_lines(state: RunState, width: int, key: str) -> list[TextLine]:
    """Return the samples tab: of each prompt the first answer and the newest.

    Args:
        key: asks for samples while a trainer is there.
    """
    if not state.samples:
        none = (
            "This run has no samples." if state.ended else f"No samples yet; {key} asks for some."
        )
        return [(("quiet", none),)]
    lines: list[TextLine] = []
    for index in sorted({sample.index for sample in state.samples}):
        of_prompt = sorted(
            (sample for sample in state.samples if sample.index == index),
            key=lambda sample: sample.step,
        )
        first, last = of_prompt[0], of_prompt[-1]
        lines += _wrapped("> " + last.prompt, width, "quiet")
        lines += _beside(first, last, width) if last.step > first.step else _answer(last, width)
        lines.append(())
    return lines


_BESIDE_FROM = 80
"""Columns from which on two answers stand beside each other."""


def _answer(sample: SampleGenerated, width: int) -> list[TextLine]:
    heading = "before, step 0" if sample.step == 0 else f"step {sample.step:,}"
    return [(("kind", heading),), *_wrapped(sample.response, width, "text")]


def _beside(first: SampleGenerated, last: SampleGenerated, width: int) -> list[TextLine]:
    """Return the first and the newest answer to a prompt, beside each other if there is room."""
    if width < _BESIDE_FROM:
        return [*_answer(first, width), *_answer(last, width)]
    half = (width - 3) // 2
    pairs = zip_longest(_answer(first, half), _answer(last, half), fillvalue=(("text", ""),))
    lines: list[TextLine] = []
    for left, right in pairs:
        kind, text = left[0]
        lines.append(((kind, set_cell_size(text, half)), ("quiet", " │ "), right[0]))
    return lines


def text_lines(text: str, width: int) -> list[TextLine]:
    """Return a file's text, wrapped."""
    return _wrapped(text, width, "text")


def _wrapped(text: str, width: int, kind: str) -> list[TextLine]:
    parts: Sequence[str] = visible(text).split("\n")
    return [
        ((kind, line),)
        for part in parts
        for line in (textwrap.wrap(part, max(10, width - 2), drop_whitespace=False) or [""])
    ]


def progress_bar(state: RunState, width: int, charset: CharsetName) -> str:
    """Return the course of the run as a bar with its percentage."""
    share = state.step / state.total_steps if state.total_steps else 0.0
    full, empty = ("=", "-") if charset == "ascii" else ("━", "─")
    room = max(0, width - 6)
    filled = round(room * min(1.0, share))
    return f"{full * filled}{empty * (room - filled)} {share:4.0%}"


def live_sentence(run_id: str, status: Status, state: RunState) -> str:
    """Return the live screen as one sentence."""
    parts = [f"Run {run_id} {'is' if status in ALIVE else 'has'} {status}"]
    if state.total_steps:
        parts.append(f"step {state.step} of {state.total_steps}")
    if len(state.steps):
        usual = ("loss", "log_odds_ratio", "preference_accuracy")
        rows = shown(state.metrics, usual)
        parts += [f"{row.label} {_brief(state, row)}" for row in rows]
    if state.hosts:
        parts.append(peers_line(state, 400).replace("  ", ", "))
    if state.best and state.best.step:
        parts.append(
            f"best validation loss {state.best.value('loss'):.3f} at step {state.best.step}"
        )
    if status == "running" and (left := time_left(state)):
        parts.append(f"{left} left")
    if saved := saved_text(state):
        parts.append(saved.replace("@", "at step "))
    return ", ".join(parts) + "."
