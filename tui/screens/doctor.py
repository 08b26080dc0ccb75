"""This machine: what a training would find here, and a self-test on request."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from textual import work
from textual.widget import Widget
from textual.widgets import Static

from orpo_mlx.formatting import counted
from tui.children import JsonLinesChild
from tui.commands import bindings
from tui.screens.base import AppScreen
from tui.widgets.line_view import LineView, TextLine

SIGNS = {"ok": "✓", "info": " ", "warning": "!", "error": "✗"}
_SELF_TEST = "self-test"


class DoctorScreen(AppScreen):
    """Lists the facts that `orpo-mlx doctor` finds, as they come."""

    AREA = "doctor"
    HELP = (
        "What this machine is: chip, memory, power, versions, caches, disk, and what is not "
        "supported here. The self-test trains the built-in model for 20 steps, three times: twice "
        "the same and once killed and resumed; the results must be equal bit for bit. It takes "
        "about a minute and leaves nothing behind."
    )
    TITLE = "orpo-mlx · Doctor"
    CSS_PATH = "doctor.tcss"
    BINDINGS = bindings("doctor", "screen")

    def __init__(self) -> None:
        super().__init__()
        self.facts: list[dict[str, Any]] = []
        self.status = "Looking ..."

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
        """Show what a doctor in its own process says; nothing is repeated."""
        words = ["-m", "orpo_mlx", "doctor", "--json", *more]
        async with JsonLinesChild(words) as child:
            async for fact in child:
                if fact not in self.facts:
                    self.facts.append(fact)
                    self._show()
        bad = sum(fact["level"] == "error" for fact in self.facts)
        warnings = sum(fact["level"] == "warning" for fact in self.facts)
        if not self.facts:
            self.status = child.complaint or "The doctor said nothing."
        elif bad or warnings:
            said = f"{counted(bad, 'error')}, {counted(warnings, 'warning')}"
            self.status = f"{said}: see the lines with ✗ and !."
        else:
            self.status = "All is well."
        if not more:
            self.status += " T trains the demo as a test."
        self._show()

    def action_self_test(self) -> None:
        """Train the built-in model three times, and compare."""
        self.facts = [fact for fact in self.facts if fact["group"] != _SELF_TEST]
        self.status = "Training the built-in model three times; esc leaves and ends it ..."
        self._show()
        self._look(["--self-test"])

    def action_copy(self) -> None:
        """Copy all lines, for a report."""
        self.orpo.copy("\n".join("".join(text for _, text in line) for line in self._lines()))

    def _show(self) -> None:
        self.query_one("#facts", LineView).show(self._lines())
        self.query_one("#status", Static).update(self.status)
        self.on_resize()

    def _lines(self) -> list[TextLine]:
        lines: list[TextLine] = []
        group = ""
        for fact in self.facts:
            if fact["group"] != group:
                group = fact["group"]
                lines.append((("kind", group.capitalize()),))
            kind = "bad" if fact["level"] == "error" else "text"
            sign = SIGNS.get(fact["level"], " ")
            lines.append(
                ((kind, f" {sign} "), ("quiet", f"{fact['name']:<22} "), (kind, fact["text"]))
            )
            width = max(20, self.query_one("#facts", LineView).size.width - 6)
            advice = textwrap.wrap(fact["what_to_do"], width)
            lines += [(("quiet", f"     {line}"),) for line in advice]
        return lines

    def sentence(self) -> str:
        chip = next((fact["text"] for fact in self.facts if fact["name"] == "chip"), "this machine")
        return f"Doctor: {chip}. {self.status}"
