"""Which setting has which values; each makes a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.group.sweep import parse_sweeps, swept_setting
from tui.new_run.draft import SETTINGS, Draft
from tui.parts.fields.dialog import FieldsDialog
from tui.parts.fields.text_field import TextField

Sweeps = Mapping[str, Sequence[str]]


class SweepScreen(FieldsDialog[Sweeps]):
    """Returns the values by setting, {} for one run as usual, None to change nothing.

    Args:
        draft: what is planned, with what was said so far.
    """

    DEFAULT_CSS = """
    SweepScreen Label { width: 9; }
    SweepScreen #sweep-about { margin: 0 0 1 0; }
    """

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self.draft = draft
        self.sweeps = {name: list(values) for name, values in draft.sweeps.items()}

    def compose(self) -> ComposeResult:
        said = "".join(f"Now: {name} {', '.join(v)}. " for name, v in self.sweeps.items())
        text = f"{said}Each value makes a run; of two settings each combination does."
        first = next(iter(self.sweeps), "lam")
        with Vertical() as box:
            box.border_title = "Several values of a setting"
            box.border_subtitle = "enter takes them, no value takes a setting out"
            yield Static(text, id="sweep-about", markup=False)
            suggester = SuggestFromList(list(SETTINGS))
            name = TextField(first, id="sweep-name", compact=True, suggester=suggester)
            yield from self.row("Setting", name)
            values = TextField(
                ",".join(self.sweeps.get(first, [])), id="sweep-values", compact=True,
                placeholder="0.1,0.25,0.5",
            )  # fmt: skip
            yield from self.row("Values", values)
            yield from self.ending("Use these", none="One run as usual")

    def on_mount(self) -> None:
        self.query_one("#sweep-values").focus()

    def press(self, button: str) -> None:
        self.dismiss({})

    def use(self) -> None:
        name, values = (self.query_one(f"#sweep-{n}", Input).value for n in ("name", "values"))
        try:
            setting = swept_setting(name).name
            rest = {n: v for n, v in self.sweeps.items() if n != setting}
            texts = [f"{n}={','.join(v)}" for n, v in rest.items()]
            found = parse_sweeps([*texts, f"{setting}={values}"] if values.strip() else texts)
        except ConfigError as error:
            self.refuse(error.message.removeprefix("--sweep "))
            return
        alone = replace(self.draft, sweeps={}).problems()
        problems = [] if alone else replace(self.draft, sweeps=found).problems()
        if problems:
            self.refuse(problems[0].text)
        else:
            self.dismiss(found)

    def sentence(self) -> str:
        """Return what is asked."""
        return "Several values of a setting: each makes a run. Fields: setting, values."
