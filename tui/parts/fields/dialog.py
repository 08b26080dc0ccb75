"""A question of several fields, one below the other."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Input, Label, Static

Result = TypeVar("Result")


class FieldsDialog(ModalScreen[Result | None], Generic[Result]):
    """Returns what the fields say, None to change nothing: with escape, or the button Cancel.

    Enter goes to the next field; in the last one it takes them, as the button "use" does.
    """

    DEFAULT_CSS = """
    FieldsDialog { align: center middle; }
    FieldsDialog > Vertical {
        width: 72; max-width: 96%; height: auto; max-height: 100%; overflow-y: auto;
        background: $surface; border: round $foreground 70%; padding: 0 1;
    }
    FieldsDialog Vertical > Horizontal { height: 1; }
    FieldsDialog Input { border: none; background: $background; width: 1fr; }
    FieldsDialog Static { height: auto; }
    FieldsDialog #dialog-problem { color: $error; }
    FieldsDialog .buttons { margin: 1 0 0 0; align-horizontal: right; }
    FieldsDialog Button { margin: 0 0 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

    def row(self, label: str, field: Widget) -> ComposeResult:
        """Compose a field behind its label."""
        with Horizontal():
            yield Label(label)
            yield field

    def ending(self, use: str, **others: str) -> ComposeResult:
        """Compose the place of a refusal and the buttons, by id; `use` takes the fields."""
        yield Static("", id="dialog-problem", classes="-empty", markup=False)
        with Horizontal(classes="buttons"):
            yield Button("Cancel", id="cancel", compact=True)
            for name, text in others.items():
                yield Button(text, id=name, compact=True)
            yield Button(use, id="use", variant="primary", compact=True)

    def refuse(self, why: str) -> None:
        """Say below the fields why they cannot be used; "" takes that back."""
        problem = self.query_one("#dialog-problem", Static)
        problem.update(why)
        problem.set_class(not why, "-empty")

    def use(self) -> None:
        """Dismiss the dialog with what the fields say, or refuse them."""
        raise NotImplementedError

    def press(self, button: str) -> None:
        """Do what a button of its own is for."""

    def go_on(self, field: Input) -> None:
        """Go to the next field, or take all."""
        if field is list(self.query(Input))[-1]:
            self.use()
        else:
            self.focus_next()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.go_on(event.input)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "cancel":
            self.dismiss(None)
        elif event.button.id == "use":
            self.use()
        else:
            self.press(event.button.id or "")
