"""This machine: what a training would find here, and a self-test on request."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from textual import work
from textual.widget import Widget
from textual.widgets import Static

from orpo_mlx.text.formatting import counted, visible
from tui.parts.base_screen import AppScreen
from tui.parts.line_view import LineView
from tui.processes.children import JsonLinesChild
from tui.shell.commands import bindings, key_of
from tui.shell.lines import TextLine

SIGNS = {"ok": "✓v", "info": "  ", "warning": "!!", "error": "✗x"}
"""Sign of a level; the second without Unicode."""

_SELF_TEST = "self-test"
_TEXT_AT = 26
"""Column of a fact's text, behind its sign and name."""


class DoctorScreen(AppScreen):
    """Lists the facts that `orpo-mlx doctor` finds, as they come."""

    AREA = "doctor"
    HELP = (
        "What this machine is: chip, memory, power, versions, caches, disk, and what is not "
        "supported here. The self-test trains the built-in model a few steps, several times: twice "
        "the same and once stopped and resumed; the results must be equal bit for bit. It takes "
        "less than a minute and leaves nothing behind."
    )
    TITLE = "orpo-mlx · Doctor"
    CSS_PATH = "doctor.tcss"
    BINDINGS = bindings("doctor", "screen")

    def __init__(self) -> None:
        super().__init__()
        self.facts: list[dict[str, Any]] = []
        self.words = ["-m", "orpo_mlx", "doctor", "--json"]
        self.status = "Looking ..."
        self._is_testing = False

    def compose_body(self) -> Iterable[Widget]:
        yield LineView(id="facts")
        yield Static(self.status, id="status", markup=False)

    def on_mount(self) -> None:
        view = self.query_one("#facts", LineView)
        view.following = False
        view.focus()
        self._look([])

    @work(exclusive=True, group="doctor")
    async def _look(self, more: list[str]) -> None:
        """Show what a doctor in its own process says."""
        async with JsonLinesChild([*self.words, *more]) as child:
            async for fact in child:
                self._take(fact)
                self._show_progress()
        self._is_testing = False
        bad = sum(fact["level"] == "error" for fact in self.facts)
        warnings = sum(fact["level"] == "warning" for fact in self.facts)
        if not self.facts:
            self.status = child.complaint or "The doctor said nothing."
        elif bad or warnings:
            said = f"{counted(bad, 'error')}, {counted(warnings, 'warning')}"
            self.status = f"{said}: see the lines with {self._sign('error')} and !."
        else:
            self.status = "All is well."
        if not more:
            key = key_of("doctor.self-test", self.orpo.keymap)
            self.status += f" {key} trains the demo as a test."
        self._show()

    def _take(self, fact: dict[str, Any]) -> None:
        """Add a fact, in place of what was said of the same thing before."""
        keys = [(one["group"], one["name"]) for one in self.facts]
        key = (fact["group"], fact["name"])
        if key in keys:
            self.facts[keys.index(key)] = fact
        else:
            self.facts.append(fact)

    def action_self_test(self) -> None:
        """Train the built-in model three times, and compare."""
        self.facts = [fact for fact in self.facts if fact["group"] != _SELF_TEST]
        self._is_testing = True
        self.query_one("#facts", LineView).following = True  # its results come at the end
        self._show_progress()
        self._look(["--self-test"])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """One self-test at a time."""
        return not (action == "self_test" and self._is_testing)

    def _show_progress(self) -> None:
        if self._is_testing:
            done = sum(fact["group"] == _SELF_TEST for fact in self.facts)
            part = ("twice, the same", "stopped and resumed", "with kept outputs")[min(done, 2)]
            key = key_of("screen.back", self.orpo.keymap)
            self.status = f"Training the built-in model {part} ... {key} leaves and ends it."
        self._show()

    def action_copy(self) -> None:
        """Copy all lines, for a report."""
        self.orpo.copy("\n".join("".join(text for _, text in line) for line in self._lines()))

    def _show(self) -> None:
        if not self.is_open:
            return
        self.query_one("#facts", LineView).show(self._lines())
        self.query_one("#status", Static).update(self.status)
        self.refresh_bindings()
        self.on_resize()

    def _lines(self) -> list[TextLine]:
        lines: list[TextLine] = []
        group = ""
        for fact in self.facts:
            if fact["group"] != group:
                group = fact["group"]
                lines.append((("kind", group.capitalize()),))
            kind = "bad" if fact["level"] == "error" else "text"
            sign = self._sign(fact["level"])
            width = max(40, self.query_one("#facts", LineView).size.width - 2)
            first, *more = textwrap.wrap(visible(fact["text"]), width - _TEXT_AT) or [""]
            name = ("quiet", f"{fact['name']:<22} ")
            lines.append(((kind, f" {sign} "), name, (kind, first)))
            lines += [((kind, " " * _TEXT_AT + line),) for line in more]
            advice = textwrap.wrap(visible(fact["what_to_do"]), width - 5)
            lines += [(("quiet", f"     {line}"),) for line in advice]
        return lines

    def _sign(self, level: str) -> str:
        return SIGNS.get(level, SIGNS["info"])[self.orpo.charset == "ascii"]

    def sentence(self) -> str:
        chip = next((fact["text"] for fact in self.facts if fact["name"] == "chip"), "this machine")
        return f"Doctor: {chip}. {self.status}"
