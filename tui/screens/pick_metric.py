"""Choosing the metric that runs are compared by."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui.comparing import METRICS


class PickMetricScreen(ModalScreen[str]):
    """Returns the id of the chosen metric, "" to change nothing."""

    DEFAULT_CSS = """
    PickMetricScreen { align: center middle; }
    PickMetricScreen > Vertical {
        width: 44; max-width: 96%; height: auto; max-height: 96%;
        background: $surface; border: round $foreground 60%; padding: 0 1;
    }
    PickMetricScreen OptionList, PickMetricScreen OptionList:focus {
        height: auto; max-height: 20; border: none; background: $surface;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,m", "dismiss('')", "Cancel", show=False),
    ]

    def __init__(self, chosen: str) -> None:
        super().__init__()
        self.chosen = chosen

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Metric"
            yield OptionList(*(Option(metric.title, id=metric.id) for metric in METRICS))

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        options.highlighted = options.get_option_index(self.chosen)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id or "")

    def sentence(self) -> str:
        """Return the question."""
        return "Which metric? " + ", ".join(metric.title for metric in METRICS)
