"""What a person says about a run: name, tags, note."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from orpo_mlx.runs.label import RunLabel, parse_tags
from tui.parts.fields.dialog import FieldsDialog
from tui.parts.fields.line_field import LineField
from tui.parts.fields.text_field import TextField
from tui.parts.harmless import plain


class LabelScreen(FieldsDialog[RunLabel]):
    """Returns what was said, None to change nothing.

    Args:
        run: its id.
        label: what was said so far.
    """

    DEFAULT_CSS = """
    LabelScreen Label { width: 8; }
    """

    def __init__(self, run: str, label: RunLabel, is_ascii: bool = False) -> None:
        super().__init__()
        self.run, self.label, self.is_ascii = run, label, is_ascii

    def compose(self) -> ComposeResult:
        label = self.label
        with Vertical() as box:
            box.border_title = plain(self.run)
            box.border_subtitle = "enter goes on, at the end it keeps all; esc changes nothing"
            yield from self.row("Name", TextField(label.name, id="label-name", compact=True))
            tags = TextField(
                " ".join(label.tags), id="label-tags", compact=True, placeholder="words"
            )
            yield from self.row("Tags", tags)
            yield from self.row("Note", LineField("", id="label-note", is_ascii=self.is_ascii))
            yield from self.ending("Keep")

    def on_mount(self) -> None:
        self.query_one("#label-note", LineField).text = self.label.note
        self.query_one("#label-name").focus()

    def use(self) -> None:
        name, tags = (self.query_one(f"#label-{n}", Input).value for n in ("name", "tags"))
        note = self.query_one("#label-note", LineField).text
        self.dismiss(RunLabel(" ".join(name.split()), parse_tags(tags), note.strip()))

    def sentence(self) -> str:
        """Return what is asked."""
        return f"Name, tags and note of {self.run}. {self.label.short}".strip()
