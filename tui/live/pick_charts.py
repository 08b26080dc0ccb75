"""Choosing which charts are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static
from textual.widgets.selection_list import Selection

from tui.charts.kinds import ChartKind
from tui.parts.choices import Choices
from tui.shell.commands import dialog_bindings


class PickChartsScreen(ModalScreen[list[str]]):
    """Returns the ids of the chosen charts in their usual order; [] changes nothing."""

    DEFAULT_CSS = """
    PickChartsScreen { align: center middle; }
    PickChartsScreen > Vertical {
        width: 78; max-width: 100%; height: auto; max-height: 96%;
        background: $surface; border: round $foreground 70%; padding: 0 1;
    }
    PickChartsScreen Choices, PickChartsScreen Choices:focus {
        height: auto; max-height: 16; border: none;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,v", "done", "Done", show=False),
        *dialog_bindings(),
    ]

    def __init__(self, kinds: Sequence[ChartKind], chosen: Sequence[str]) -> None:
        super().__init__()
        self.kinds = kinds
        self.chosen = chosen

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Charts"
            yield Choices(
                *(
                    Selection(f"{chart.title:<16} {chart.what}", chart.id, chart.id in self.chosen)
                    for chart in self.kinds
                )
            )
            yield Static("Space chooses, esc is done. A narrow window shows the first two.")

    def action_done(self) -> None:
        """Close with what is chosen, in the order of the list."""
        selected = set(self.query_one(Choices).selected)
        self.dismiss([chart.id for chart in self.kinds if chart.id in selected])
