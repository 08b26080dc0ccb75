"""Choosing one of a list, however long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets.option_list import Option

from tui.parts.fields.option_list import OptionList
from tui.parts.harmless import plain
from tui.shell.commands import dialog_bindings


class PickOneScreen(ModalScreen[str]):
    """Returns the id of what was chosen, "" to change nothing.

    Args:
        title: what is chosen.
        choices: text by id.
        chosen: id of the present one, or of what is proposed.
        else_: what escape does.
    """

    DEFAULT_CSS = """
    PickOneScreen { align: center middle; }
    PickOneScreen > Vertical {
        width: 44; max-width: 96%; height: auto; max-height: 96%;
        background: $surface; border: round $foreground 70%; padding: 0 1;
    }
    PickOneScreen OptionList, PickOneScreen OptionList:focus {
        height: auto; max-height: 20; border: none; background: $surface;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss('')", "Cancel", show=False),
        *dialog_bindings(),
    ]

    def __init__(
        self, title: str, choices: Mapping[str, str], chosen: str, else_: str = "changes nothing"
    ) -> None:
        super().__init__()
        self.question, self.choices, self.chosen = title, dict(choices), chosen
        self.else_ = else_

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = plain(self.question)
            box.border_subtitle = plain(f"enter takes it, esc {self.else_}")
            yield OptionList(*(Option(Content(t), id=name) for name, t in self.choices.items()))

    def on_mount(self) -> None:
        if self.chosen in self.choices:
            self.query_one(OptionList).highlighted = list(self.choices).index(self.chosen)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id or "")

    def sentence(self) -> str:
        """Return the question."""
        return f"{self.question}? " + ", ".join(self.choices.values())
