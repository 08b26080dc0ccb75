"""What someone sees who has no run yet: three ways to begin."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Static
from textual.widgets.option_list import Option

from tui.parts.fields.option_list import OptionList

_CHOICES = (
    ("demo", "Try the demo", "Trains a tiny built-in model in about a minute. No download."),
    ("data", "Train on my data", "Pick a model and preference pairs, check both, start."),
    ("doctor", "Check this machine", "What it can do, how much memory there is, what is missing."),
)


class Welcome(Vertical):
    """Three choices."""

    DEFAULT_CSS = """
    Welcome { align: center middle; }
    Welcome > Static { width: 66; max-width: 96%; height: auto; margin: 0 0 1 0; }
    Welcome > OptionList { width: 66; max-width: 96%; height: auto; border: round $primary; }
    """

    @dataclass
    class Chosen(Message):
        """One way was chosen: demo, data or doctor."""

        choice: str

    def compose(self) -> ComposeResult:
        yield Static(
            "Teach a language model your preferences, on this machine. A run takes pairs of "
            "answers, a better and a worse one, and trains a small adapter that prefers the "
            "better kind."
        )
        yield OptionList(
            *(Option(f"[b]{title}[/b]\n  {text}", id=id) for id, title, text in _CHOICES)
        )

    def focus_first(self) -> None:
        """Put the focus on the choices."""
        choices = self.query_one(OptionList)
        if not choices.has_focus:
            choices.focus()
        if choices.highlighted is None:
            choices.highlighted = 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option.id:
            self.post_message(self.Chosen(event.option.id))
