"""Models in rows: name, number format, size, and whether each fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from textual.coordinate import Coordinate
from textual.message import Message

from orpo_mlx.text.formatting import format_bytes, visible
from tui.new_run.fit_facts import verdict_of
from tui.new_run.models.catalogue import ModelRow
from tui.parts.row_table import RowTable
from tui.processes.children import ChildFailed
from tui.shell.charset import CharsetName
from tui.shell.names import cut_start

_WIDTHS = {"Weights": 8, "Size": 8, "Fit": 13}
"""Columns besides the name, which gets the rest."""

_FIT_COLUMN = 3
_STYLES = {"good": "", "warn": "bold", "bad": "bold {error}"}

FitOf = Callable[[str], Mapping[str, Any] | ChildFailed | None]
"""The answer of `orpo-mlx fit` for a model, or why there is none; None while it is not known."""


class ModelTable(RowTable):
    """Shows models; `in_view` are those whose fit is wanted."""

    DEFAULT_CSS = "ModelTable { height: auto; max-height: 100%; background: $background; }"

    @dataclass
    class Scrolled(Message):
        """Other rows are in view."""

    def __init__(self, fit_of: FitOf, charset: CharsetName, *, id: str) -> None:
        super().__init__(id=id)
        self.fit_of = fit_of
        self.charset: CharsetName = charset
        self.shown: Sequence[ModelRow] = ()
        self.chosen = ""
        self._wanted = ""
        self._title_width = 20

    def on_mount(self) -> None:
        self._set_columns()
        # Cells keep the colour they were written in.
        self.app.theme_changed_signal.subscribe(self, lambda _: self.refresh_fits())

    def on_resize(self) -> None:
        if self._room != self._title_width:
            pointed = self.pointed
            self._set_columns()
            self._fill(pointed)
        self.post_message(self.Scrolled())

    @property
    def _room(self) -> int:
        """Columns for the name."""
        return max(20, self.size.width - sum(_WIDTHS.values()) - 10)

    def _set_columns(self) -> None:
        self.clear(columns=True)
        self._title_width = self._room
        for name, width in {"Model": self._title_width, **_WIDTHS}.items():
            self.add_column(name, key=name, width=width)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self.post_message(self.Scrolled())

    @property
    def pointed(self) -> ModelRow | None:
        """The model under the cursor."""
        return self.shown[self.cursor_row] if 0 <= self.cursor_row < len(self.shown) else None

    @property
    def in_view(self) -> Sequence[ModelRow]:
        """The models one sees."""
        first = int(self.scroll_y)
        return self.shown[first : first + max(0, self.size.height - self.header_height)]

    def show(self, rows: Sequence[ModelRow], chosen: str = "") -> None:
        """Show other models; the cursor stays on its model, else goes to the chosen one."""
        before = self.pointed
        self.shown, self.chosen = rows, chosen
        self._fill(before)

    def point_at(self, name: str) -> None:
        """Put the cursor on a model, now or as soon as it is listed."""
        self._wanted = name
        self._fill(self.pointed)

    def _fill(self, pointed: ModelRow | None) -> None:
        self.clear()
        for row in self.shown:
            self.add_row(*self._cells(row))
        names = [row.name for row in self.shown]
        stays = pointed.name if pointed and pointed.name in names else self.chosen
        wanted = self._wanted if self._wanted in names else stays
        if wanted in names:
            self.move_cursor(row=names.index(wanted))
        if wanted == self._wanted:
            self._wanted = ""

    def refresh_fits(self) -> None:
        """Show what has become known of rows."""
        for index, row in enumerate(self.shown):
            self.update_cell_at(Coordinate(index, _FIT_COLUMN), self._fit(row))

    def _cells(self, row: ModelRow) -> list[Text]:
        mark = "* " if row.name == self.chosen else "  "
        title = cut_start(visible(row.title), self._title_width - len(mark))
        size = format_bytes(row.size) if row.size else "?"
        return [Text(mark + title), Text(row.quant), Text(size, justify="right"), self._fit(row)]

    def _fit(self, row: ModelRow) -> Text:
        answer = self.fit_of(row.name)
        if answer is None:
            return Text("")
        if isinstance(answer, ChildFailed):
            return Text("? not known")
        found = verdict_of(answer, self.charset)
        return Text(
            f"{found.sign} {found.word}",
            style=_STYLES[found.tone].format(**self.app.theme_variables),
        )
