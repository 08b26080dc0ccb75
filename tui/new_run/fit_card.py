"""How much memory the planned run needs, beside what is there; follows every change."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual import work
from textual.app import RenderResult
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from orpo_mlx.text.formatting import format_bytes, visible
from tui.new_run import fit_facts
from tui.processes.answers import Answers
from tui.processes.children import ChildFailed
from tui.shell.charset import CharsetName

_COLOURS = {"good": "$success", "warn": "$warning", "bad": "$error"}

ESTIMATING = "estimating ..."


class FitCard(Widget):
    """Parts, peak, what is there and a verdict; one line where there is no room."""

    DEFAULT_CSS = """
    FitCard { height: 1; padding: 0 1; background: $surface; }
    FitCard.-full { width: 36; height: 1fr; border-left: solid $foreground 25%; }
    """

    @dataclass
    class Answered(Message):
        """There is an answer, or a reason why there is none."""

    def __init__(
        self,
        charset: CharsetName = "braille",
        runs_dir: Path | None = None,
        *,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.charset: CharsetName = charset
        # Runs of this folder say how good estimates are, and what is taken.
        where = ("--runs-dir", str(runs_dir)) if runs_dir else ()
        self.answers = Answers(("-m", "orpo_mlx", "fit", *where))
        self.answer: Mapping[str, Any] | None = None
        self.note = ""

    # Asking

    def ask(self, words: Sequence[str], also: Sequence[Sequence[str]] = ()) -> None:
        """Show what `orpo-mlx fit` says to these words.

        Args:
            words: the question that is shown.
            also: questions to be asked afterwards, one by one, until something else is asked.
        """
        known = self.answers.known(words)
        self._show(known or self.answer, "" if known else ESTIMATING)
        self._estimate(words, also)  # ends an older question

    def ask_nothing(self, why: str) -> None:
        """Say why there is nothing to estimate."""
        self.workers.cancel_node(self)
        self._show(None, why)

    def probe(self, words: Sequence[str]) -> None:
        """Have 3 steps measured; that answer then counts for these words."""
        self._show(self.answer, "measuring 3 steps on the longest batch ...")
        self._measure(words)

    @work(exclusive=True, group="fit")
    async def _estimate(self, words: Sequence[str], also: Sequence[Sequence[str]]) -> None:
        try:
            answer = await self.answers.ask(words)
        except ChildFailed as failed:
            self._show(None, str(failed))
        else:
            self._show(answer)
        self.post_message(self.Answered())
        for one in also:
            if self.answers.kept_for(one) is None:
                with contextlib.suppress(ChildFailed):  # is kept, and shown where it belongs
                    await self.answers.ask(one)
                self.post_message(self.Answered())

    @work(exclusive=True, group="fit")
    async def _measure(self, words: Sequence[str]) -> None:
        try:
            answer = await self.answers.ask([*words, "--probe"])
        except ChildFailed as failed:
            self.answers.forget([*words, "--probe"])
            cannot = "--probe: there is no such option" in str(failed)
            why = "this version cannot measure before a training" if cannot else str(failed)
            self._show(self.answer, f"No measurement: {why}")
        else:
            self.answers.kept[tuple(words)] = answer
            self._show(answer)
        self.post_message(self.Answered())

    # Showing

    def _show(self, answer: Mapping[str, Any] | None, note: str = "") -> None:
        self.answer, self.note = answer, note
        self.refresh()

    def set_full(self, full: bool) -> None:
        """Show all parts, or one line."""
        self.set_class(full, "-full")
        self.set_class(full, "pane")
        self.border_title = "Will it fit" if full else ""
        self.refresh()

    def render(self) -> RenderResult:
        full = self.has_class("-full")
        if self.answer is None:
            text = visible(self.note if full else self.note.split("\n")[0])
            return Content(f"Memory\n{text}" if full else f"Memory: {text}")
        return self._full(self.answer) if full else self._line(self.answer)

    def _line(self, answer: Mapping[str, Any]) -> Content:
        tone = fit_facts.verdict_of(answer, self.charset).tone
        text = f"Memory: {fit_facts.summary(answer, self.charset)}"
        line = Content(text).stylize(_COLOURS[tone])
        return line.append(Content(f"  {visible(self.note)}").stylize("$foreground 70%"))

    def _full(self, answer: Mapping[str, Any]) -> Content:
        width = max(20, self.size.width)
        needed, there = fit_facts.needed_bytes(answer), answer["available_bytes"]
        found = fit_facts.verdict_of(answer, self.charset)
        colour = _COLOURS[found.tone]
        amount = f"about {fit_facts.needed_text(answer)} of {format_bytes(there)}"
        label = "all" if answer.get("processes") else "peak"
        share = needed / there if there else 1.0
        said = [fit_facts.assumed_text(answer), f"\n{visible(self.note)}"]
        rows = [
            Content("Memory, estimated").stylize("bold"),
            *(Content(line) for line in fit_facts.part_lines(answer, width)),
            Content(("-" if self.charset == "ascii" else "─") * width).stylize("$foreground 40%"),
            Content(f"{label:<{max(0, width - len(amount))}}{amount}"),
            Content(fit_facts.bar(share, width, self.charset)).stylize(colour),
            Content(f"{found.sign} {found.word}").stylize(f"bold {colour}"),
            Content(fit_facts.basis(answer)).stylize("$foreground 70%"),
            Content(""),
            Content("Time").stylize("bold"),
            Content(fit_facts.time_text(answer)),
            *(Content(text).stylize("$foreground 70%") for text in said if text),
        ]
        return Content("\n").join(rows)

    def sentence(self) -> str:
        """Return the card as a sentence."""
        if self.answer is None:
            return f"Memory: {self.note.split(chr(10))[0]}"
        return f"Memory: {fit_facts.summary(self.answer, self.charset)}."
