"""Preference datasets of the Hub: searched by words, the one under the cursor told about."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Static

from orpo_mlx.data.catalogue.card import DatasetCard, ask_card
from orpo_mlx.data.catalogue.curated import find_curated
from orpo_mlx.data.catalogue.search import FoundDataset, SearchResult, from_list, search_datasets
from orpo_mlx.errors import DataError
from orpo_mlx.text.formatting import visible
from tui.new_run.data.dataset_text import (
    about_lines,
    downloads_text,
    licence_text,
    needed_settings,
    rows_text,
)
from tui.parts.row_table import RowTable
from tui.processes.background import ask_aside
from tui.shell.names import cut_start

_WIDTHS = {"Rows": 9, "Downloads": 9, "Licence": 12}
"""Columns besides the name, which gets the rest."""

_NARROW = {"Rows": 8, "Downl.": 6, "Licence": 10}
"""The same where names could not be told apart beside them."""

_LEAST_FOR_WIDE = 70
"""Cells below which they are narrow."""

_DWELL_SECONDS = 0.4
"""How long the cursor rests on a dataset before the Hub is asked about it."""


class DatasetTable(Vertical):
    """A table of datasets; nothing of one is downloaded before it is chosen."""

    DEFAULT_CSS = """
    DatasetTable DataTable { height: 1fr; background: $background; }
    DatasetTable #hub-about { height: auto; max-height: 8; padding: 0 1; color: $primary; }
    """

    @dataclass
    class Chosen(Message):
        """A dataset was chosen, with the settings it needs."""

        id: str
        settings: dict[str, str]

    @dataclass
    class Found(Message):
        """A search has ended."""

        text: str
        result: SearchResult

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.shown: list[FoundDataset] = []
        self.cards: dict[str, DatasetCard | str] = {}
        self.note = ""
        self._has_searched = False
        self._is_reached = True
        self._name_width = 20

    def compose(self) -> ComposeResult:
        yield RowTable(id="hub-data")
        yield Static("", id="hub-about", markup=False)

    def on_resize(self) -> None:
        self._fill()

    @property
    def table(self) -> RowTable:
        """The rows."""
        return self.query_one(RowTable)

    @property
    def pointed(self) -> FoundDataset | None:
        """The dataset under the cursor."""
        row = self.table.cursor_row
        return self.shown[row] if 0 <= row < len(self.shown) else None

    def open(self) -> None:
        """Show the best known ones at once, and ask the Hub for the most used."""
        if not self._has_searched:
            self.search("")

    def search(self, text: str) -> None:
        """Show what a text names: of the built-in list at once, of the Hub when it answers."""
        self._has_searched = True
        self.shown = [from_list(entry) for entry in find_curated(text)]
        self.note = "Asking the Hub ..."
        self._fill()
        self._search(text)

    @work(exclusive=True, group="search")
    async def _search(self, text: str) -> None:
        self.post_message(self.Found(text, await ask_aside(search_datasets, text)))

    @on(Found)
    def _show_found(self, message: Found) -> None:
        message.stop()
        result = message.result
        self.shown = result.datasets
        self._is_reached = not result.problem
        if result.problem:
            self.note = f"The Hub was not searched: {result.problem}. {result.what_to_do}"
        else:
            nothing = f"The Hub has no preference dataset named like {message.text!r}."
            self.note = "" if result.datasets else nothing
        self._fill()

    @property
    def _is_wide(self) -> bool:
        return self.size.width >= _LEAST_FOR_WIDE

    def _fill(self) -> None:
        """Show the rows; the cursor stays on the dataset it was on."""
        table, before = self.table, self.pointed
        name = before.id if before else ""
        widths = _WIDTHS if self._is_wide else _NARROW
        # A cell of padding on both sides of each, and the scroll bar.
        self._name_width = max(20, self.size.width - sum(widths.values()) - 2 * len(widths) - 4)
        table.clear(columns=True)
        for title, width in {"Dataset": self._name_width, **widths}.items():
            table.add_column(title, key=title, width=width)
        for found in self.shown:
            table.add_row(*self._cells(found))
        names = [found.id for found in self.shown]
        if name in names:
            table.move_cursor(row=names.index(name))
        self._describe()

    def _cells(self, found: FoundDataset) -> list[Text]:
        card = self.cards.get(found.id)
        known = card if isinstance(card, DatasetCard) else None
        downloads, licence = downloads_text(found), visible(licence_text(found, known))
        if not self._is_wide:
            downloads = downloads.replace(" ", "")
            licence = licence[: _NARROW["Licence"]]
        return [
            Text(cut_start(visible(found.id), self._name_width)),
            Text(rows_text(found, known), justify="right"),
            Text(downloads, justify="right"),
            Text(licence[: _WIDTHS["Licence"]]),
        ]

    # The one under the cursor

    def _describe(self) -> None:
        found = self.pointed
        lines = self._about(found) if found else []
        lines += [self.note] if self.note else []
        self.query_one("#hub-about", Static).update(visible("\n".join(lines)))

    def _about(self, found: FoundDataset) -> list[str]:
        # A Hub that was not searched is not asked about one either; the note says why.
        return about_lines(found, self.cards.get(found.id, None if self._is_reached else ""))

    @on(DataTable.RowHighlighted)
    def _highlighted(self, message: DataTable.RowHighlighted) -> None:
        message.stop()
        self._describe()
        found = self.pointed
        if found and found.id not in self.cards and self._is_reached and not self.note:
            self._ask_card(found)

    @work(exclusive=True, group="card")
    async def _ask_card(self, found: FoundDataset) -> None:
        await asyncio.sleep(_DWELL_SECONDS)
        meant = needed_settings(found)
        words = found.id, meant.get("data_subset", ""), meant.get("data_split", "")
        try:
            self.cards[found.id] = await ask_aside(ask_card, *words)
        except DataError as error:
            self.cards[found.id] = error.message.removeprefix(f"{found.id}: ")
        names = [one.id for one in self.shown]
        if found.id in names:
            row = names.index(found.id)
            for column, cell in enumerate(self._cells(found)):
                self.table.update_cell_at((row, column), cell)  # type: ignore[arg-type]
        self._describe()

    @on(DataTable.RowSelected)
    def _selected(self, message: DataTable.RowSelected) -> None:
        message.stop()
        if found := self.pointed:
            self.post_message(self.Chosen(found.id, needed_settings(found)))

    def sentence(self) -> str:
        """Return the list as a sentence."""
        found = self.pointed
        about = self._about(found) if found else []
        under = f"; under the cursor: {found.id}: {'; '.join(about)}" if found else ""
        note = f" {self.note}" if self.note else ""
        return f"{len(self.shown)} datasets of the Hub{under}.{note}"
