"""Which columns of a dataset are prompt, chosen and rejected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from orpo_mlx.text.formatting import visible
from tui.parts.fields.dialog import FieldsDialog
from tui.parts.fields.text_field import TextField

NAMES = ("prompt", "chosen", "rejected")


_WORDS = {
    "prompt": r"prompt|question|instruction|query|input",
    "chosen": r"chosen|good|better|best|(?<!dis)prefer|win|accept|positive",
    "rejected": r"reject|bad|worse|worst|dispref|los[et]|negative",
}


def guess_columns(columns: Sequence[str]) -> dict[str, str]:
    """Return which columns may be meant, by words in their names; only where one alone fits.

    >>> guess_columns(["question_text", "good", "bad", "id"])
    {'prompt': 'question_text', 'chosen': 'good', 'rejected': 'bad'}
    """
    found = {}
    for name, words in _WORDS.items():
        fitting = [column for column in columns if re.search(words, column, re.IGNORECASE)]
        if len(fitting) == 1:
            found[name] = fitting[0]
    return found


def complete_column(text: str, columns: Sequence[str]) -> str:
    """Return the only column that begins with a text; else the text, which may be a path.

    >>> complete_column("ques", ["question", "good"]), complete_column("a.b", ["question"])
    ('question', 'a.b')
    """
    text = text.strip()
    fitting = [column for column in columns if column.lower().startswith(text.lower())]
    return fitting[0] if text and text not in columns and len(fitting) == 1 else text


class MapColumnsScreen(FieldsDialog[dict[str, str]]):
    """Returns name to column, {} for "as told by the columns", None if nothing was decided.

    Args:
        columns: names that are known.
        mapped: what was said so far.
    """

    DEFAULT_CSS = """
    MapColumnsScreen Label { width: 12; }
    MapColumnsScreen #map-about { margin: 0 0 1 0; }
    """

    def __init__(self, columns: Sequence[str], mapped: Mapping[str, str]) -> None:
        super().__init__()
        self.columns, self.mapped = list(columns), dict(mapped)
        self.offered = self.mapped or guess_columns(columns)

    def compose(self) -> ComposeResult:
        suggester = SuggestFromList(self.columns, case_sensitive=False)
        known = f"Columns: {', '.join(self.columns)}. " if self.columns else ""
        text = f"{known}A path such as messages.1.content leads into lists and objects."
        with Vertical() as box:
            box.border_title = "Which column is what?"
            yield Static(visible(text), id="map-about", markup=False)
            for name in NAMES:
                field = TextField(
                    self.offered.get(name, ""), id=f"map-{name}", compact=True,
                    placeholder="a column", suggester=suggester,
                )  # fmt: skip
                yield from self.row(name, field)
            yield from self.ending("Use these", clear="As told by the columns")

    def on_mount(self) -> None:
        self.query_one("#map-prompt").focus()

    def go_on(self, field: Input) -> None:
        field.value = complete_column(field.value, self.columns)
        super().go_on(field)

    def press(self, button: str) -> None:
        self.dismiss({})

    def use(self) -> None:
        fields = {name: self.query_one(f"#map-{name}", Input) for name in NAMES}
        given = {n: complete_column(field.value, self.columns) for n, field in fields.items()}
        given = {name: column for name, column in given.items() if column}
        # Other names of the mapping (system, score, ...) were given by hand and stay.
        rest = {name: column for name, column in self.mapped.items() if name not in NAMES}
        if "chosen" in given and "rejected" in given:
            self.dismiss({**rest, **given})
        else:
            self.refuse("Both chosen and rejected need a column.")

    def sentence(self) -> str:
        """Return the question as a sentence."""
        return f"Which column is what? Columns: {', '.join(self.columns) or 'not known'}."
