"""Step 4: all of it in words, and the start."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Static

from orpo_mlx.text.formatting import counted, format_duration, visible
from tui.new_run import fit_facts
from tui.new_run.advice import warnings
from tui.new_run.draft import SETTINGS, Draft
from tui.new_run.fit_card import ESTIMATING
from tui.new_run.presets import ELSEWHERE, PRESETS
from tui.parts.base_screen import pane
from tui.parts.hanging import hung
from tui.shell.charset import CharsetName

Answer = Mapping[str, Any] | None


def review_text(
    draft: Draft,
    fit: Answer,
    check: Answer,
    note: str = "",
    charset: CharsetName = "braille",
    refusal: str = "",
) -> str:
    """Return a planned run in plain text.

    Args:
        draft: what was chosen.
        fit: answer of `orpo-mlx fit`, None while there is none.
        check: answer of `orpo-mlx data check`, likewise.
        note: what is to be said of the fit.
        charset: of marks.
        refusal: why the data cannot be trained on, "" if they can.
    """
    problems = [_problem_line(*problem) for problem in draft.problems()]
    blocking = [draft.missing(), *refusal.split("\n"), *problems]
    lines = [f"! {text}" for text in blocking if text]
    note = note.replace("\n", "\n" + " " * 10)
    memory = fit_facts.memory_text(fit, charset) if fit else note or "being estimated ..."
    if not lines:
        lines = [line for doubt in warnings(draft) for line in _wrapped(f"! {doubt.text}")]
    lines += [""] if lines else []
    lines += [
        *_course_lines(draft, fit, check),
        *_time_lines(fit),
        f"Memory    {memory}",
    ]
    if fit and note and note != ESTIMATING:
        lines.append(f"          {note}")
    if fit and fit_facts.verdict_of(fit).tone == "bad":
        better = fit_facts.settings_text(fit_facts.first_suggestion(fit))
        lines += [f"          F7 takes settings that fit: {better}"] if better else []
    lines += [
        f"Model     {_short(draft.model, draft.is_demo_model)}",
        f"Data      {_short(draft.data, draft.is_demo_data)}",
        *(f"          {text}" for text in _data_lines(check)),
    ]
    lines += _setting_lines(draft)
    lines += [*_sweep_lines(draft), *_shared_lines(draft, fit)]
    return "\n".join([*lines, "", "Same as (^y copies):", f"  {visible(draft.command())}"])


def _course_lines(draft: Draft, fit: Answer, check: Answer) -> list[str]:
    """Return steps, evaluations and checkpoints of the run, once they are known."""
    course = (fit or {}).get("course")
    if not course:
        return []
    # The check has cut every prompt; the estimate knows lengths only, and may count pairs more.
    split = (check or {}).get("split") or {}
    pairs = split.get("train", course["pairs"])
    held_out = min(course["evaluated_pairs"], split.get("valid", course["evaluated_pairs"]))
    evaluations = (
        f"{counted(course['evaluations'], 'evaluation')}, each on "
        f"{counted(held_out, 'held-out pair')}"
        if course["evaluations"]
        else "no evaluations: no pairs are held out"
    )
    return [
        f"Steps     {_steps_text(draft, course, pairs)} on {counted(pairs, 'pair')}",
        f"          {evaluations}",
        f"          {counted(course['checkpoints'], 'checkpoint')} of "
        f"{fit_facts.format_bytes(course['checkpoint_bytes'])}, "
        f"at most {course['kept_checkpoints']} kept",
    ]


def _steps_text(draft: Draft, course: Mapping[str, Any], pairs: int) -> str:
    """Return how many steps so many pairs take, where the estimate counted others."""
    if draft.get("steps") is not None or pairs == course["pairs"]:
        return f"{course['steps']:,}"
    return f"about {math.ceil(course['steps'] * pairs / course['pairs']):,}"


def _problem_line(names: tuple[str, ...], text: str) -> str:
    return text if text.startswith("--") else f"{SETTINGS[names[0]].flag}: {text}"


def _data_lines(check: Answer) -> list[str]:
    if check is None:
        return []
    split = check["split"] or {}
    lines = [visible(check["verdict"]["text"])]
    if split:
        lines.append(f"{split['train']:,} pairs train, {split['valid']:,} validate")
    for found in check["findings"]:
        if found["level"] != "info":
            lines += _wrapped(f"! {visible(found['text'])}", 52)
    return lines


def _wrapped(text: str, width: int = 62) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ")


def _setting_lines(draft: Draft) -> list[str]:
    hidden = {*ELSEWHERE, *(["valid_data"] if draft.is_demo_data else [])}
    own = {n: v for n, v in draft.own.items() if n not in hidden}
    preset = {n: v for n, v in draft.values.items() if n not in draft.own}
    shown = {f"Preset    {PRESETS[draft.preset].title}: ": preset, "Changed   ": own}
    lines = []
    for title, settings in shown.items():
        none = "nothing" if settings is own else "the defaults"
        texts = fit_facts.settings_lines(settings, 50) or [none]
        lines += [title + texts[0], *(" " * 10 + text for text in texts[1:])]
    return lines


def _sweep_lines(draft: Draft) -> list[str]:
    if not draft.sweeps:
        return []
    count = math.prod(map(len, draft.sweeps.values()))
    values = " · ".join(f"{name} {', '.join(v)}" for name, v in draft.sweeps.items())
    return [f"Sweep     {visible(values)}", f"          {count} runs, one after the other"]


def _shared_lines(draft: Draft, fit: Answer) -> list[str]:
    if draft.hostfile:
        return [f"Shared    by the machines of {visible(draft.hostfile)}; Start copies the command"]
    if draft.processes == 1:
        return ["Shared    no, one process here; p: more processes, or several Macs"]
    evenness = fit_facts.share_text(fit)
    lines = [f"Shared    by {draft.processes} processes here; each holds the model"]
    return [*lines, f"          {evenness}"] if evenness else lines


def _short(name: str, is_demo: bool) -> str:
    """Return a path from the home folder on; a Hub id as it is."""
    home = str(Path.home())
    text = "~" + name[len(home) :] if name.startswith(home + "/") else name
    return "built in, for trying out" if is_demo else visible(text) or "none yet"


def _time_lines(fit: Answer) -> list[str]:
    time = fit_facts.time_of(fit or {})
    if not fit or not time:
        return ["Time      not known before it is measured; F4 takes 3 steps"]
    steps = f"{fit['time']['steps']:,} steps of {time.step:.3g} s"
    peak = fit_facts.format_bytes(fit["time"]["peak_memory_bytes"])
    said = f"Time      about {format_duration(time.total)}: {steps}; measured peak {peak}"
    assumed = _wrapped(fit_facts.assumed_text(fit), 50)
    return [said, *(f"          {line.strip()}" for line in assumed)]


class ReviewStep(Vertical):
    """Plain text and two buttons."""

    DEFAULT_CSS = """
    ReviewStep #review { height: 1fr; scrollbar-gutter: stable; }
    ReviewStep #review Static { height: auto; }
    ReviewStep Horizontal { height: 1; padding: 0 1; }
    ReviewStep Button { margin: 0 2 0 0; }
    """

    def __init__(self) -> None:
        super().__init__(id="review-step")
        self.text = ""

    def compose(self) -> ComposeResult:
        with pane(VerticalScroll(id="review"), "The run"):
            yield Static("", id="review-text", markup=False)
        with Horizontal():
            yield Button("Start training", id="start", variant="primary", compact=True)
            yield Button("Measure 3 steps", id="probe", compact=True)

    def focus_first(self) -> None:
        """Put the focus on the start."""
        start = self.query_one("#start", Button)
        (self.query_one("#review") if start.disabled else start).focus()

    def show(self, text: str, may_start: bool) -> None:
        """Show a planned run."""
        self.text = text
        self._write()
        self.query_one("#start", Button).disabled = not may_start

    def on_resize(self) -> None:
        self._write()

    def _write(self) -> None:
        if width := self.query_one("#review").scrollable_content_region.width:
            self.query_one("#review-text", Static).update(hung(self.text, width, 10))

    def sentence(self) -> str:
        """Return the step as running text."""
        return " ".join(" ".join(self.text.split()).split("Same as")[:1])
