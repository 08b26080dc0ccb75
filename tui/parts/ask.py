"""A question with a few answers; the safe one has the focus, escape gives none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from tui.parts.harmless import plain
from tui.shell.commands import dialog_bindings

_MARK, _UNMARKED = "> ", "  "


class AskChoice(NamedTuple):
    """One button."""

    id: str
    label: str
    is_dangerous: bool = False


class AskScreen(ModalScreen[str]):
    """Returns the id of the answer, "" for none.

    Args:
        title: the question.
        text: what follows from the answers; plain text.
        answers: the first one has the focus.
    """

    DEFAULT_CSS = """
    AskScreen { align: center middle; }
    AskScreen > Vertical {
        width: 76;
        max-width: 96%;
        height: auto;
        max-height: 90%;
        background: $surface;
        border: round $foreground 70%;
        padding: 0 1;
    }
    AskScreen #text { height: auto; margin: 0 0 1 0; }
    AskScreen Horizontal { height: auto; align-horizontal: right; }
    AskScreen Button { margin: 0 0 0 1; min-width: 10; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss('')", "Cancel", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
        *dialog_bindings(),
    ]

    def __init__(self, title: str, text: str, answers: Sequence[AskChoice]) -> None:
        super().__init__()
        self.question, self.text, self.answers = title, text, answers

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = plain(self.question)
            yield Static(self.text, id="text", markup=False)
            with Horizontal():
                for answer in self.answers:
                    variant = "error" if answer.is_dangerous else "default"
                    yield Button(
                        _UNMARKED + answer.label, id=answer.id, variant=variant, compact=True
                    )

    def on_mount(self) -> None:
        self.query_one(f"#{self.answers[0].id}", Button).focus()

    def on_descendant_focus(self) -> None:
        """Mark the answer that enter gives with a sign: a colour alone does not say it."""
        for answer in self.answers:
            button = self.query_one(f"#{answer.id}", Button)
            button.label = (_MARK if button.has_focus else _UNMARKED) + answer.label

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id or "")

    def sentence(self) -> str:
        """Return the question and its answers."""
        return f"{self.question}: {self.text} Answers: " + ", ".join(a.label for a in self.answers)
