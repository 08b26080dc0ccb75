"""Which setting has which values; each makes a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, Label, Static

from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.group.sweep import parse_sweeps, swept_setting
from tui.new_run.draft import SETTINGS, Draft
from tui.parts.fields.text_field import TextField

Sweeps = Mapping[str, Sequence[str]]


class SweepScreen(ModalScreen[Sweeps | None]):
    """Returns the values by setting, {} for one run as usual, None to change nothing.

    Args:
        draft: what is planned, with what was said so far.
    """

    DEFAULT_CSS = """
    SweepScreen { align: center middle; }
    SweepScreen > Vertical {
        width: 72; max-width: 96%; height: auto; background: $surface;
        border: round $foreground 70%; padding: 0 1;
    }
    SweepScreen Vertical > Horizontal { height: 1; }
    SweepScreen Label { width: 9; }
    SweepScreen Input { border: none; background: $background; width: 1fr; }
    SweepScreen Static { height: auto; margin: 0 0 1 0; }
    SweepScreen #sweep-problem { color: $error; margin: 0; }
    SweepScreen .buttons { margin: 1 0 0 0; align-horizontal: right; }
    SweepScreen Button { margin: 0 0 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

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
            yield Static(text, markup=False)
            with Horizontal():
                yield Label("Setting")
                suggester = SuggestFromList(list(SETTINGS))
                yield TextField(first, id="sweep-name", compact=True, suggester=suggester)
            with Horizontal():
                yield Label("Values")
                values = ",".join(self.sweeps.get(first, []))
                yield TextField(values, id="sweep-values", compact=True, placeholder="0.1,0.25,0.5")
            yield Static("", id="sweep-problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="cancel", compact=True)
                yield Button("One run as usual", id="none", compact=True)
                yield Button("Use these", id="use", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one("#sweep-values").focus()

    @on(Input.Submitted)
    def _next_field(self, event: Input.Submitted) -> None:
        if event.input.id == "sweep-values":
            self._use()
        else:
            self.focus_next()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "use":
            self._use()
        else:
            self.dismiss({} if event.button.id == "none" else None)

    def _use(self) -> None:
        name, values = (self.query_one(f"#sweep-{n}", Input).value for n in ("name", "values"))
        try:
            setting = swept_setting(name).name
            rest = {n: v for n, v in self.sweeps.items() if n != setting}
            texts = [f"{n}={','.join(v)}" for n, v in rest.items()]
            found = parse_sweeps([*texts, f"{setting}={values}"] if values.strip() else texts)
        except ConfigError as error:
            self._refuse(error.message.removeprefix("--sweep "))
            return
        alone = replace(self.draft, sweeps={}).problems()
        problems = [] if alone else replace(self.draft, sweeps=found).problems()
        if problems:
            self._refuse(problems[0].text)
        else:
            self.dismiss(found)

    def _refuse(self, why: str) -> None:
        self.query_one("#sweep-problem", Static).update(why)

    def sentence(self) -> str:
        """Return what is asked."""
        return "Several values of a setting: each makes a run. Fields: setting, values."
