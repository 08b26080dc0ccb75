"""What a person says about a run: name, tags, note."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label

from orpo_mlx.runs.label import RunLabel, parse_tags
from tui.parts.fields.line_field import LineField
from tui.parts.fields.text_field import TextField


class LabelScreen(ModalScreen[RunLabel | None]):
    """Returns what was said, None to change nothing.

    Args:
        run: its id.
        label: what was said so far.
    """

    DEFAULT_CSS = """
    LabelScreen { align: center middle; }
    LabelScreen > Vertical {
        width: 72; max-width: 96%; height: auto; background: $surface;
        border: round $foreground 70%; padding: 0 1;
    }
    LabelScreen Vertical > Horizontal { height: 1; }
    LabelScreen Label { width: 8; }
    LabelScreen Input { border: none; background: $background; width: 1fr; }
    LabelScreen .buttons { margin: 1 0 0 0; align-horizontal: right; }
    LabelScreen Button { margin: 0 0 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

    def __init__(self, run: str, label: RunLabel, is_ascii: bool = False) -> None:
        super().__init__()
        self.run, self.label, self.is_ascii = run, label, is_ascii

    def compose(self) -> ComposeResult:
        label = self.label
        with Vertical() as box:
            box.border_title = self.run
            box.border_subtitle = "enter goes on, at the end it keeps all; esc changes nothing"
            with Horizontal():
                yield Label("Name")
                yield TextField(label.name, id="label-name", compact=True)
            with Horizontal():
                yield Label("Tags")
                tags = " ".join(label.tags)
                yield TextField(tags, id="label-tags", compact=True, placeholder="words")
            with Horizontal():
                yield Label("Note")
                yield LineField("", id="label-note", is_ascii=self.is_ascii)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="cancel", compact=True)
                yield Button("Keep", id="keep", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one("#label-note", LineField).text = self.label.note
        self.query_one("#label-name").focus()

    @on(Input.Submitted)
    def _next_field(self, event: Input.Submitted) -> None:
        if event.input.id == "label-note":
            self._keep()
        else:
            self.focus_next()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "keep":
            self._keep()
        else:
            self.dismiss(None)

    def _keep(self) -> None:
        name, tags = (self.query_one(f"#label-{n}", Input).value for n in ("name", "tags"))
        note = self.query_one("#label-note", LineField).text
        self.dismiss(RunLabel(" ".join(name.split()), parse_tags(tags), note.strip()))

    def sentence(self) -> str:
        """Return what is asked."""
        return f"Name, tags and note of {self.run}. {self.label.short}".strip()
