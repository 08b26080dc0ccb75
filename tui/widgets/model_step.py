"""Step 1: which model is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.coordinate import Coordinate
from textual.message import Message
from textual.widgets import DataTable, Input, Static
from textual.worker import get_current_worker

from orpo_mlx.errors import ModelError
from orpo_mlx.formatting import format_bytes, format_count, visible
from tui.draft import Draft
from tui.fit_facts import verdict_of
from tui.model_list import ModelRow, local_models, models_below, search_hub
from tui.widgets.path_field import PathField
from tui.widgets.tab_strip import TabStrip

SOURCES = ("On this machine", "Hub")
_WIDTHS = {"Weights": 8, "Size": 8, "Fit": 13}
"""Columns besides the name, which gets the rest."""
_WAITING = {"hub": "Type a part of a name and press enter to search the Hub.", "": "Looking ..."}


class ModelStep(Vertical):
    """A field for a name, an id or a folder, and a table of what there is.

    Args:
        fit_of: the answer of `orpo-mlx fit` for a model, None while it is not known.
    """

    DEFAULT_CSS = """
    ModelStep Input { border: none; background: $surface; margin: 0 1; }
    ModelStep DataTable { height: 1fr; background: $background; }
    ModelStep #model-detail { height: auto; max-height: 3; padding: 0 1; color: $primary; }
    """

    @dataclass
    class Pointed(Message):
        """Another model is under the cursor: its fit is wanted."""

        model: str

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

    def __init__(self, fit_of: Callable[[str], Mapping[str, Any] | None]) -> None:
        super().__init__(id="model")
        self.fit_of = fit_of
        self.rows: dict[int, list[ModelRow]] = {0: [], 1: []}
        self.shown: list[ModelRow] = []
        self.notes = {0: "Looking for models on this machine ...", 1: _WAITING["hub"]}
        self.chosen = ""
        self.folders: list[Path] = []
        self._title_width = 20

    def compose(self) -> ComposeResult:
        yield PathField(
            placeholder="Filter, or a Hub id, or a folder", id="model-text", compact=True
        )
        yield TabStrip(SOURCES, id="model-source")
        yield DataTable(id="model-table", cursor_type="row")
        yield Static("", id="model-detail", markup=False)

    def on_mount(self) -> None:
        self._set_columns()
        self.query_one(TabStrip).hint = "F2 the other · enter chooses"
        self._fill()
        self._list_models()

    def _set_columns(self) -> None:
        table = self.query_one("#model-table", DataTable)
        table.clear(columns=True)
        self._title_width = max(20, self.size.width - sum(_WIDTHS.values()) - 10)
        for name, width in {"Model": self._title_width, **_WIDTHS}.items():
            table.add_column(name, key=name, width=width)

    def on_resize(self) -> None:
        self._set_columns()
        self._fill()

    def on_key(self, event: events.Key) -> None:
        self.query_one(PathField).begin(event)

    def on_paste(self, event: events.Paste) -> None:
        self.query_one(PathField).begin_with(event)

    @property
    def source(self) -> int:
        """0: this machine, 1: the Hub."""
        return self.query_one(TabStrip).active

    @property
    def pointed(self) -> ModelRow | None:
        """The model under the cursor."""
        row = self.query_one("#model-table", DataTable).cursor_row
        return self.shown[row] if 0 <= row < len(self.shown) else None

    def focus_first(self) -> None:
        """Put the focus where typing and choosing begin."""
        self.query_one("#model-table" if self.shown else "#model-text").focus()

    def show(self, draft: Draft) -> None:
        """Mark what is chosen."""
        self.chosen = draft.model
        self._fill()

    def show_rows(self, source: int, rows: Sequence[ModelRow], note: str = "") -> None:
        """Show other models of a source."""
        self.rows[source], self.notes[source] = list(rows), note
        if source == self.source:
            self._fill()

    def switch_source(self, source: int | None = None) -> None:
        """Show the other source, or this one."""
        self.query_one(TabStrip).active = 1 - self.source if source is None else source
        self._fill()
        if self.source == 1 and not self.rows[1]:
            self.query_one("#model-text").focus()

    def refresh_fits(self) -> None:
        """Show what has become known of rows."""
        table = self.query_one("#model-table", DataTable)
        for index, row in enumerate(self.shown):
            table.update_cell_at(Coordinate(index, 3), self._fit(row))
        self._describe()

    def _fill(self) -> None:
        text = self.query_one("#model-text", Input).value.strip().lower()
        rows = self.rows[self.source]
        if self.source == 0 and text:
            rows = [row for row in rows if all(word in row.title.lower() for word in text.split())]
        before = self.pointed
        self.shown = rows
        table = self.query_one("#model-table", DataTable)
        table.clear()
        for row in rows:
            table.add_row(*self._cells(row))
        names = [row.name for row in rows]
        wanted = before.name if before and before.name in names else self.chosen
        if wanted in names:
            table.move_cursor(row=names.index(wanted))
        self._describe()

    def _cells(self, row: ModelRow) -> list[Text]:
        mark = "* " if row.name == self.chosen else "  "
        title = visible(row.title)
        width = self._title_width - 2
        if len(title) > width:
            title = "..." + title[len(title) - width + 3 :]
        size = format_bytes(row.size) if row.size else "?"
        return [Text(mark + title), Text(row.quant), Text(size, justify="right"), self._fit(row)]

    def _fit(self, row: ModelRow) -> Text:
        answer = self.fit_of(row.name)
        if answer is None:
            return Text("")
        found = verdict_of(answer, self.app.charset)  # type: ignore[attr-defined]
        style = {"good": "", "warn": "bold", "bad": "bold red"}[found.tone]
        return Text(f"{found.sign} {found.word}", style=style)

    def _describe(self) -> None:
        note, row = self.notes[self.source], self.pointed
        typed = self.query_one("#model-text", Input).value.strip()
        if row is None:
            text = note or "No model of this name is here. Enter takes what is typed as it stands."
            text = text if typed or note else "No model is on this machine. F2 searches the Hub."
        else:
            parts = [row.kind, _PLACES[row.place]]
            if row.place == "hub" and row.size:
                parts[1] = f"not on this machine: {format_bytes(row.size)} are downloaded at start"
            if row.downloads:
                parts.append(f"{format_count(row.downloads)} downloads")
            text = " · ".join(part for part in parts if part) + (f"\n{note}" if note else "")
        self.query_one("#model-detail", Static).update(visible(text))

    # Looking for models

    @work(thread=True, exclusive=True, group="models")
    def _list_models(self) -> None:
        rows = local_models(self.folders)
        if not get_current_worker().is_cancelled:
            self.post_message(self.Found(0, rows))

    @work(thread=True, exclusive=True, group="hub")
    def _search_hub(self, text: str) -> None:
        try:
            found = self.Found(1, search_hub(text))
            found.note = "" if found.rows else f"The Hub has no MLX model named like {text!r}."
        except ModelError as error:
            found = self.Found(1, [], f"{error.message} {error.what_to_do}")
        if not get_current_worker().is_cancelled:
            self.post_message(found)

    @on(Found)
    def _show_found(self, message: Found) -> None:
        message.stop()
        self.show_rows(message.source, message.rows, message.note)
        field = self.query_one("#model-text", Input)
        if self.display and message.rows and (field.has_focus or not self.screen.focused):
            keeps = message.source == 0 and field.value
            (field if keeps else self.query_one("#model-table")).focus()

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
            self.show_rows(1, [], "Searching the Hub ...")
            self._search_hub(text)
        elif text and (len(self.shown) != 1 or "/" in text or self.source == 1):
            self.post_message(self.Chosen(text))
        elif self.shown:
            self.query_one("#model-table").focus()

    @on(DataTable.RowHighlighted)
    def _highlighted(self) -> None:
        self._describe()
        if row := self.pointed:
            self.post_message(self.Pointed(row.name))

    @on(DataTable.RowSelected)
    def _selected(self) -> None:
        if row := self.pointed:
            self.post_message(self.Chosen(row.name))

    def sentence(self) -> str:
        """Return the step as a sentence."""
        row = self.pointed
        where = f"{len(self.shown)} models shown, {SOURCES[self.source].lower()}"
        under = f"; under the cursor: {row.title} {row.quant}" if row else ""
        return f"{where}{under}. Chosen: {self.chosen or 'none'}."


_PLACES = {
    "built-in": "comes with the program, for trying out",
    "cache": "in the Hub's cache on this machine",
    "folder": "a folder on this machine",
    "hub": "on the Hub",
}
