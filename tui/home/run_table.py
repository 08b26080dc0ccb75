"""The runs as a table: sorted by any column, the cursor staying on its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.cells import cell_len
from rich.text import Text
from textual.coordinate import Coordinate
from textual.message import Message
from textual.widgets import DataTable

from orpo_mlx.runs.listing import RunSummary
from orpo_mlx.text.formatting import visible
from tui.home.run_list import Order, RunRow, row_of
from tui.parts.row_table import RowTable
from tui.run.status import status_text
from tui.shell.charset import CharsetName
from tui.shell.names import shortened

WIDE = 96
"""Columns of the window from which on model, data and log-odds ratio are shown."""

_NAME_CELLS = 16
"""Fewest of a run's name with its status."""


class RunTable(RowTable):
    """Shows runs; opens none itself."""

    DEFAULT_CSS = """
    RunTable { height: 1fr; background: $background; }
    RunTable > .datatable--header {
        background: $surface; color: $foreground; text-style: bold;
    }
    RunTable > .datatable--cursor {
        background: $foreground 18%; color: $foreground; text-style: bold;
    }
    """

    @dataclass
    class Sorted(Message):
        """Another order was asked for, by a click on a header."""

        order: Order

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.runs: list[RunSummary] = []
        """What is shown, in order."""
        self.order = Order()
        self._look: tuple[object, ...] = ()
        self._wanted: Path | None = None

    @property
    def selected(self) -> RunSummary | None:
        """The run under the cursor."""
        index = self.cursor_row
        return self.runs[index] if 0 <= index < len(self.runs) else None

    def want(self, path: Path) -> None:
        """Put the cursor on a run, now or as soon as it is there."""
        self._wanted = path
        self._move_to(path)

    def columns_for(self, width: int) -> list[str]:
        """Return the columns that fit a window; model and data need a wide one."""
        if width < WIDE:
            return ["Status", "Run", "Step", "Loss", "Acc", "When"]
        return ["Status", "Run", "Model", "Data", "Step", "Loss", "Log-odds", "Acc", "When"]

    def show(
        self,
        runs: Sequence[RunSummary],
        *,
        marked: set[Path],
        now: float,
        charset: CharsetName,
        width: int,
    ) -> None:
        """Show these runs, in the present order.

        Args:
            now: Unix seconds, for the times of day.
            width: of the window.
        """
        kept = self.selected
        shown = self.order.apply(runs)
        is_same = [run.path for run in shown] == [run.path for run in self.runs]
        self.runs = shown
        columns = self.columns_for(width)
        headers = self._headers(columns, charset)
        rows = [self._cells(run, row_of(run, now), columns, marked, charset) for run in shown]
        names = [partial(self._name_text, run, row_of(run, now), charset) for run in shown]
        # Measured here: what the table measures itself it shows a frame later.
        widths = self._put_names(columns.index("Run"), headers, rows, names, width)
        look = headers, widths
        if look != self._look:
            self._look = look
            self.clear(columns=True)
            for name, header, cells in zip(columns, headers, widths, strict=True):
                self.add_column(header, key=name, width=cells)
            is_same = False
        if is_same:
            self._change(rows)
        else:
            self._refill(rows)
            if kept is not None:
                self._move_to(kept.path)
        if self._wanted is not None:
            self._move_to(self._wanted)

    def _put_names(
        self,
        place: int,
        headers: Sequence[str],
        rows: Sequence[list[Text]],
        names: Sequence[Callable[[int], Text]],
        width: int,
    ) -> list[int]:
        """Put names into a column as long as all others leave room, and return the widths."""
        widths = [
            max([cell_len(head), *(row[i].cell_len for row in rows)])
            for i, head in enumerate(headers)
        ]
        between = 2 * self.cell_padding * len(headers) + self.styles.scrollbar_size_vertical
        room = max(_NAME_CELLS, width - between - sum(widths) + widths[place])
        for row, name in zip(rows, names, strict=True):
            row[place] = name(room)
            widths[place] = max(widths[place], row[place].cell_len)
        return widths

    def _headers(self, columns: Sequence[str], charset: CharsetName) -> list[str]:
        """Return the headers; the one that is sorted by carries a sign, the rest its room."""
        down, up = ("v", "^") if charset == "ascii" else ("▼", "▲")
        sign = down if self.order.is_down else up
        headers = [f"{name} {sign if name == self.order.column else ' '}" for name in columns]
        # The signs of status and mark take two cells; so does their header.
        headers[0] = f"S{sign}" if self.order.column == "Status" else "St"
        return headers

    def _change(self, rows: list[list[Text]]) -> None:
        for index, cells in enumerate(rows):
            for column, cell in enumerate(cells):
                if self.get_cell_at(Coordinate(index, column)) != cell:
                    self.update_cell_at(Coordinate(index, column), cell)

    def _refill(self, rows: list[list[Text]]) -> None:
        self.clear()
        for run, cells in zip(self.runs, rows, strict=True):
            self.add_row(*cells, key=str(run.path))

    def _move_to(self, path: Path) -> None:
        for index, run in enumerate(self.runs):
            if run.path == path:
                self.move_cursor(row=index)
                if path == self._wanted:
                    self._wanted = None

    def _cells(
        self,
        run: RunSummary,
        row: RunRow,
        columns: Sequence[str],
        marked: set[Path],
        charset: CharsetName,
    ) -> list[Text]:
        status = status_text(run.status, charset)
        mark = "*" if run.path in marked else " "
        cells = {
            "Status": Text(mark + status.sign),
            "Run": Text(""),
            "Model": Text(row.model[:24]),
            "Data": Text(row.data[:18]),
            "Step": Text(row.step, justify="right"),
            "Loss": Text(row.loss, justify="right"),
            "Log-odds": Text(row.log_odds_ratio, justify="right"),
            "Acc": Text(row.accuracy, justify="right"),
            "When": Text(row.when),
        }
        return [cells[name] for name in columns]

    def _name_text(self, run: RunSummary, row: RunRow, charset: CharsetName, room: int) -> Text:
        """Return a run's name with its status, which stays whole, in so many cells."""
        status = status_text(run.status, charset)
        word = "" if run.status == "completed" else f" {status.word}"
        title = visible(f"{row.label.name} · {row.id}" if row.label.name else row.id)
        name = Text(shortened(title, room - len(word), charset))
        bad = f"bold {self.app.theme_variables['error']}"
        name.append(word, style=bad if status.tone == "bad" else "italic")
        return name

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        event.stop()
        name = event.column_key.value or ""
        same = name == self.order.column
        self.post_message(self.Sorted(self.order.turned() if same else Order.first_by(name)))
