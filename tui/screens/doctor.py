"""This machine: what a training would find here, and a self-test on request."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from textual import on, work
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static
from textual.widgets.option_list import Option

from orpo_mlx.text.formatting import counted, visible
from tui.parts.base_screen import AppScreen, pane
from tui.parts.fields.option_list import OptionList
from tui.parts.harmless import plain
from tui.processes.children import JsonLinesChild
from tui.shell.commands import bindings, key_of

SIGNS = {"ok": "✓v", "info": "  ", "warning": "!!", "error": "✗x"}
"""Sign of a level; the second without Unicode."""

_MEANINGS = {
    "ok": "As it should be.",
    "info": "Only to know.",
    "warning": "Worth a look.",
    "error": "In the way of a training.",
}

_SELF_TEST = "self-test"
_ABOUT_SELF_TEST = (
    "trains the built-in model a few steps, several times: twice the same, and once stopped and "
    "resumed. The results must be equal bit for bit. It takes less than a minute and leaves "
    "nothing behind; its results come last in the list."
)
_TEXT_AT = 26
"""Column of a fact's text, behind its sign and name."""


class DoctorScreen(AppScreen):
    """Lists the facts that `orpo-mlx doctor` finds, as they come."""

    AREA = "doctor"
    HELP = (
        "What this machine is: chip, memory, power, versions, caches, disk, and what is not "
        f"supported here. The self-test {_ABOUT_SELF_TEST}"
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
        self._listed: list[tuple[str, Content]] = []
        """Ids and texts of the list as it is shown; a group's name has no id."""

    def compose_body(self) -> Iterable[Widget]:
        with Horizontal(id="body"):
            with pane(Vertical(id="checks"), "This machine"):
                yield OptionList(id="facts")
            with Vertical(id="beside"):
                yield pane(Static("", id="about", markup=False), "Check")
                key = key_of("doctor.self-test", self.orpo.keymap)
                text = Static(f"{key} {_ABOUT_SELF_TEST}", id="about-test", markup=False)
                yield pane(text, "Self-test")
        yield Static(self.status, id="status", markup=False)

    def on_mount(self) -> None:
        self.list.focus()
        self._look([])

    @property
    def list(self) -> OptionList:
        """The checks."""
        return self.query_one("#facts", OptionList)

    @property
    def selected(self) -> dict[str, Any] | None:
        """The check under the cursor."""
        option = self.list.highlighted_option
        return next((one for one in self.facts if option and _id_of(one) == option.id), None)

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
        ids = [_id_of(one) for one in self.facts]
        if (id := _id_of(fact)) in ids:
            self.facts[ids.index(id)] = fact
        else:
            self.facts.append(fact)

    def action_self_test(self) -> None:
        """Train the built-in model three times, and compare."""
        self.facts = [fact for fact in self.facts if fact["group"] != _SELF_TEST]
        self._is_testing = True
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
        self.orpo.copy("\n".join(text.plain for _, text in self._entries(100, has_advice=True)))

    def _show(self) -> None:
        if not self.is_open:
            return
        has_beside = self.query_one("#beside").display
        width = max(40, self.list.scrollable_content_region.width - 2)
        self._list(self._entries(width, has_advice=not has_beside))
        self.query_one("#status", Static).update(self.status)
        self._tell_selected()
        self.refresh_bindings()
        self._show_small()

    def on_resize(self) -> None:
        super().on_resize()
        self.call_after_refresh(self._show)  # lines are broken at the new width

    def _list(self, entries: list[tuple[str, Content]]) -> None:
        """Fill the list anew if it differs, the cursor staying on its check."""
        if entries == self._listed:
            return
        view, kept = self.list, self.list.highlighted_option
        self._listed = entries
        view.set_options(Option(text, id=id or None, disabled=not id) for id, text in entries)
        ids = [id for id, _ in entries]
        place = ids.index(kept.id) if kept and kept.id in ids else 1
        # Results of a self-test come at the end, where one looks for them.
        view.highlighted = len(ids) - 1 if self._is_testing else place

    def _entries(self, width: int, has_advice: bool) -> list[tuple[str, Content]]:
        """Return the names of groups and their checks, lines broken at a width."""
        entries: list[tuple[str, Content]] = []
        group = ""
        for fact in self.facts:
            if fact["group"] != group:
                group = fact["group"]
                entries.append(("", Content.styled(group.capitalize(), "bold")))
            entries.append((_id_of(fact), self._fact_text(fact, width, has_advice)))
        return entries

    def _fact_text(self, fact: dict[str, Any], width: int, has_advice: bool) -> Content:
        style = "bold $error" if fact["level"] == "error" else ""
        first, *more = textwrap.wrap(visible(fact["text"]), width - _TEXT_AT) or [""]
        text = "\n".join([first, *(" " * _TEXT_AT + line for line in more)])
        advice = textwrap.wrap(visible(fact["what_to_do"]), width - 5) if has_advice else []
        return Content.assemble(
            (f" {self._sign(fact['level'])} ", style or "bold"),
            (f"{visible(fact['name']):<22} ", "$foreground 70%"),
            (text, style),
            *((f"\n     {line}", "$foreground 70%") for line in advice),
        )

    @on(OptionList.OptionHighlighted)
    def _tell_selected(self) -> None:
        """Say all that is known of the check under the cursor."""
        fact, about = self.selected, self.query_one("#about", Static)
        if fact is None:
            about.update(self.status)
            return
        about.border_title = plain(visible(f"{fact['group'].capitalize()}: {fact['name']}"))
        meaning = _MEANINGS.get(fact["level"], _MEANINGS["info"])
        said = (fact["text"], f"{self._sign(fact['level'])} {meaning}".strip(), fact["what_to_do"])
        about.update("\n\n".join(visible(text) for text in said if text))

    def _sign(self, level: str) -> str:
        return SIGNS.get(level, SIGNS["info"])[self.orpo.charset == "ascii"]

    def sentence(self) -> str:
        chip = next((fact["text"] for fact in self.facts if fact["name"] == "chip"), "this machine")
        return f"Doctor: {chip}. {self.status}"


def _id_of(fact: dict[str, Any]) -> str:
    return f"{fact['group']}/{fact['name']}"
