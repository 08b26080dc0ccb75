"""Step 1: which model is trained."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Input, Static

from orpo_mlx.errors import ModelError
from orpo_mlx.text.formatting import visible
from tui.new_run.draft import Draft
from tui.new_run.hint_view import FirstWords
from tui.new_run.hints import MODELS_HERE, MODELS_ON_HUB
from tui.new_run.models.catalogue import ModelRow, local_models, models_below, search_hub
from tui.new_run.models.facts import ModelFacts, about_lines, hub_facts, local_facts
from tui.new_run.models.table import FitOf, ModelTable
from tui.parts.fields.path_field import PathField
from tui.parts.tab_strip import TabStrip
from tui.processes.background import ask_aside
from tui.shell.charset import CharsetName

SOURCES = ("On this machine", "Hub")
_WAITING = "Type a part of a name and press enter to search the Hub."
_DWELL_SECONDS = 0.4
"""How long the cursor rests on a model before the Hub is asked about it."""


class ModelStep(Vertical):
    """A field for a name, an id or a folder, and a table of what there is.

    Args:
        fit_of: what is known of a model's fit.
        charset: of marks.
    """

    DEFAULT_CSS = """
    ModelStep Input.-textual-compact { background: $surface; padding: 0 1; }
    ModelStep #model-list { height: 1fr; }
    ModelStep #model-about { height: auto; max-height: 5; padding: 0 1; color: $primary; }
    """

    @dataclass
    class FitsWanted(Message):
        """Another model is under the cursor, or others are in view: their fit is wanted."""

        is_new_list: bool = False

    @dataclass
    class Chosen(Message):
        """A model was chosen."""

        model: str

    @dataclass
    class Found(Message):
        """Models of a source were listed."""

        source: int
        rows: list[ModelRow]
        note: str = ""

    def __init__(self, fit_of: FitOf, charset: CharsetName = "braille") -> None:
        super().__init__(id="model")
        self._fit_of = fit_of
        self._charset: CharsetName = charset
        self.rows: dict[int, list[ModelRow]] = {0: [], 1: []}
        self.notes = {0: "Looking for models on this machine ...", 1: _WAITING}
        self.facts: dict[str, ModelFacts | str] = {}
        self.chosen = self._searched = ""
        self.folders: list[Path] = []

    def compose(self) -> ComposeResult:
        yield PathField(
            placeholder="Type a part of a name, a Hub id, or a folder",
            id="model-text",
            compact=True,
        )
        yield TabStrip(SOURCES, is_numbered=False, id="model-source")
        with Vertical(id="model-list"):
            yield ModelTable(self._fit_of, self._charset, id="model-table")
            yield FirstWords()
        yield Static("", id="model-about", markup=False)

    def on_mount(self) -> None:
        self.query_one(TabStrip).hint = "F2 the other · enter chooses"
        self._fill()
        self._list_models()

    def on_key(self, event: events.Key) -> None:
        text = self.query_one(PathField)
        if event.key == "down" and text.has_focus and self.shown:
            event.stop()
            self.table.focus()

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Letters and digits are no keys here: over the list they go into the field, too."""
        return bool(character and character.isprintable())

    @property
    def table(self) -> ModelTable:
        """The rows."""
        return self.query_one(ModelTable)

    @property
    def source(self) -> int:
        """0: this machine, 1: the Hub."""
        return self.query_one(TabStrip).active

    @property
    def shown(self) -> Sequence[ModelRow]:
        """The models of the list as it is filtered."""
        return self.table.shown

    @property
    def pointed(self) -> ModelRow | None:
        """The model under the cursor."""
        return self.table.pointed

    @property
    def in_view(self) -> Sequence[ModelRow]:
        """The models one sees."""
        return self.table.in_view

    def focus_first(self) -> None:
        """Put the focus where typing and choosing begin."""
        (self.table if self.shown else self.query_one("#model-text")).focus()

    def show(self, draft: Draft) -> None:
        """Mark what is chosen, and point at it when it is another than before."""
        is_other, self.chosen = draft.model != self.chosen, draft.model
        self._fill()
        if is_other:
            self.table.point_at(self.chosen)

    def remember(self, folder: Path) -> None:
        """List a folder that was typed, as those that are found."""
        self.query_one(PathField).value = ""
        if all(row.name != str(folder) for row in self.rows[0]):
            self.folders.append(folder)
            self._list_models()

    def show_rows(self, source: int, rows: Sequence[ModelRow], note: str = "") -> None:
        """Show other models of a source."""
        self.rows[source], self.notes[source] = list(rows), note
        if source == self.source:
            self._fill()
            self.call_after_refresh(self.post_message, self.FitsWanted(is_new_list=True))

    def switch_source(self, source: int | None = None) -> None:
        """Show the other source, or this one."""
        self.query_one(TabStrip).active = 1 - self.source if source is None else source
        self._fill()
        if self.source == 1 and not self.rows[1]:
            self.query_one("#model-text").focus()
        self.call_after_refresh(self.post_message, self.FitsWanted())

    def refresh_fits(self) -> None:
        """Show what has become known of rows."""
        self.table.refresh_fits()

    def _fill(self) -> None:
        words = self.query_one("#model-text", Input).value.lower().split()
        rows = self.rows[self.source]
        if self.source == 0:
            rows = [row for row in rows if all(word in row.title.lower() for word in words)]
        self.table.show(rows, self.chosen)
        self.query_one(FirstWords).paragraphs = MODELS_ON_HUB if self.source else MODELS_HERE
        self._describe()

    # The one under the cursor

    def _describe(self) -> None:
        note, row = self.notes[self.source], self.pointed
        if row is None:
            typed = self.query_one("#model-text", Input).value.strip()
            text = note or _nothing_text(typed)
        else:
            lines = about_lines(row, self.facts.get(row.name))
            text = "\n".join([*lines, *([note] if note else [])])
        self.query_one("#model-about", Static).update(visible(text))

    @on(ModelTable.RowHighlighted)
    def _highlighted(self, message: ModelTable.RowHighlighted) -> None:
        message.stop()
        row = self.pointed
        if row and row.name not in self.facts:
            self._learn(row)
        self._describe()
        if row:
            self.post_message(self.FitsWanted())

    @on(ModelTable.Scrolled)
    def _scrolled(self, message: ModelTable.Scrolled) -> None:
        message.stop()
        self.post_message(self.FitsWanted())

    @work(exclusive=True, group="facts")
    async def _learn(self, row: ModelRow) -> None:
        if row.folder:
            self.facts[row.name] = await ask_aside(local_facts, Path(row.folder))
        else:
            await asyncio.sleep(_DWELL_SECONDS)
            try:
                self.facts[row.name] = await ask_aside(hub_facts, row.name)
            except ModelError as error:
                self.facts[row.name] = error.message.removeprefix(f"{row.name}: ")
        self._describe()

    # Looking for models

    @work(exclusive=True, group="models")
    async def _list_models(self) -> None:
        self.post_message(self.Found(0, await ask_aside(local_models, self.folders)))

    @work(exclusive=True, group="hub")
    async def _search_hub(self, text: str) -> None:
        try:
            found = self.Found(1, await ask_aside(search_hub, text))
            found.note = "" if found.rows else f"The Hub has no MLX model named like {text!r}."
        except ModelError as error:
            found = self.Found(1, [], f"{error.message} {error.what_to_do}")
        self.post_message(found)

    @on(Found)
    def _show_found(self, message: Found) -> None:
        message.stop()
        self.show_rows(message.source, message.rows, message.note)
        field = self.query_one("#model-text", Input)
        if self.display and message.rows and (field.has_focus or not self.screen.focused):
            is_typing = field.value.strip() != (self._searched if message.source else "")
            (field if is_typing else self.table).focus()

    @work(exclusive=True, group="browse")
    async def browse(self) -> None:
        """Choose a folder: a model, or models somewhere in it."""
        from textual_fspicker import SelectDirectory

        chosen = await self.app.push_screen_wait(SelectDirectory(title="A folder with models"))
        if not chosen:
            return
        folder = Path(chosen)
        found = [row.name for row in models_below(folder)]
        if found == [str(folder.absolute())]:
            self.post_message(self.Chosen(str(folder)))
        elif found:
            self.folders.append(folder)
            self.switch_source(0)
            self._list_models()
        else:
            text = f"{folder}: no model in it; one has config.json and .safetensors files."
            self.notify(text, severity="warning", markup=False)

    @on(TabStrip.Picked)
    def _source_picked(self, message: TabStrip.Picked) -> None:
        message.stop()
        self.switch_source(message.index)

    @on(Input.Changed, "#model-text")
    def _filter(self) -> None:
        if self.source == 0:
            self._fill()

    @on(Input.Submitted, "#model-text")
    def _submitted(self, event: Input.Submitted) -> None:
        """Search on the Hub; else take the only row left, or what is typed."""
        text = event.value.strip()
        if self.source == 1 and "/" not in text:
            self._searched = text
            self.show_rows(1, [], "Searching the Hub ...")
            self._search_hub(text)
        elif text and (len(self.shown) != 1 or "/" in text or self.source == 1):
            self.post_message(self.Chosen(text))
        elif self.shown:
            self.table.focus()

    @on(DataTable.RowSelected)
    def _selected(self) -> None:
        if row := self.pointed:
            self.post_message(self.Chosen(row.name))

    def sentence(self) -> str:
        """Return the step as a sentence."""
        row = self.pointed
        about = "; ".join(about_lines(row, self.facts.get(row.name))) if row else ""
        under = f"; under the cursor: {row.title} {row.quant}, {about}" if row else ""
        where = f"{len(self.shown)} models shown, {SOURCES[self.source].lower()}"
        return f"{where}{under}. Chosen: {self.chosen or 'none'}."


def _nothing_text(typed: str) -> str:
    """Return what is said where no row fits what is typed."""
    if not typed:
        return "No model is here. F2 searches the Hub."
    if os.path.isdir(os.path.expanduser(typed)):
        return "A folder on this machine. Enter takes it."
    return "No model of this name is here. Enter takes what is typed as it stands."
