"""Step 3: a form made from the declared settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Button, Input, Label, Select, Static

from orpo_mlx.config.declaration import GROUPS, Setting
from tui.new_run.advice import warnings
from tui.new_run.draft import SETTINGS, Draft, Problem, value_text
from tui.new_run.presets import BASIC, BASIC_GROUPS, ELSEWHERE, PRESETS
from tui.new_run.setting_text import (
    EXPLANATION_ROWS,
    command_text,
    explanation,
    label_of,
    preset_text,
)
from tui.parts.base_screen import pane
from tui.parts.fields.text_field import TextField
from tui.parts.form import Form, OneOf
from tui.parts.harmless import plain

_TALL = 24
"""Rows from which on the command has a third line."""
_BESIDE = 100
"""Columns from which on a setting is explained beside its field."""


class SettingRow(Vertical):
    """One setting: its name, a field, and what is wrong with it."""

    DEFAULT_CSS = """
    SettingRow { height: auto; }
    SettingRow > Horizontal { height: 1; }
    SettingRow Label { width: 33; }
    SettingRow .-changed { text-style: bold; }
    SettingRow:focus-within Label { text-style: bold underline; }
    SettingRow Input, SettingRow Select { width: 1fr; max-width: 40; }
    SettingRow Input { border: none; background: $surface; }
    SettingRow .problem { height: auto; color: $error; padding: 0 0 0 2; }
    SettingRow .problem.-warning { color: $warning; }
    """

    @dataclass
    class Changed(Message):
        """The user gave another value."""

        name: str
        value: str

    def __init__(self, setting: Setting) -> None:
        super().__init__(id=f"row-{setting.name}")
        self.setting = setting
        self._shown = value_text(setting.default)
        self.is_ready = False

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Label(label_of(self.setting.name), markup=False)
            yield self._field()
        yield Static("", classes="problem -empty", markup=False)

    def _field(self) -> Widget:
        setting = self.setting
        choices = [(choice, choice) for choice in setting.choices]
        if setting.kind == "bool":
            choices = [("on", "true"), ("off", "false")]
        if choices:
            text = value_text(setting.default)
            return OneOf(choices, value=text, allow_blank=False, compact=True, classes="field")
        return TextField(placeholder=self._hint, compact=True, classes="field")

    @property
    def field(self) -> Widget:
        """What is typed or chosen in."""
        return self.query_one(".field")

    @property
    def _hint(self) -> str:
        return self.setting.unit or ("not set" if self.setting.default is None else "")

    def on_mount(self) -> None:
        self.is_ready = True

    def show(self, draft: Draft, problem: str, warning: str = "") -> None:
        """Show the present value, what is wrong with it or doubtful; not while it is being made."""
        if not self.is_ready:
            return
        name, field = self.setting.name, self.field
        self._shown = value_text(draft.get(name))
        if isinstance(field, Input):  # emptied, it shows what counts then
            field.placeholder = self._shown or self._hint
        # A field one is typing in keeps what was typed.
        if not (isinstance(field, Input) and field.has_focus):
            self.write(self._shown)
        label = self.query_one(Label)
        label.update(Content(f"{'* ' if name in draft.own else '  '}{label_of(name)}"))
        label.set_class(name in draft.own, "-changed")
        said = self.query_one(".problem", Static)
        said.set_class(not (problem or warning), "-empty")
        said.set_class(not problem, "-warning")
        said.update(f"! {problem}" if problem else f"warning: {warning}")

    def write(self, text: str) -> None:
        """Write a value into the field."""
        field = self.field
        with field.prevent(Input.Changed, Select.Changed):
            if isinstance(field, Select) and self.setting.known:
                # A run's own settings may hold a name that is not offered.
                names = dict.fromkeys((*self.setting.known, text))
                field.set_options((name, name) for name in names)
            if isinstance(field, Input | Select):
                field.value = text

    @on(Input.Changed)
    @on(Select.Changed)
    def _changed(self, event: Input.Changed | Select.Changed) -> None:
        event.stop()
        # What a field says of its own beginning, or of a value written meanwhile, is no change.
        text, now = str(event.value), getattr(self.field, "value", None)
        if text != self._shown and event.value == now:
            self.post_message(self.Changed(self.setting.name, text))


class SettingsStep(Vertical):
    """Presets, basic settings, the others behind Advanced, an explanation, the command."""

    DEFAULT_CSS = """
    SettingsStep #preset-row { height: 1; }
    SettingsStep #preset-row Label { width: 33; }
    SettingsStep #preset { width: 24; }
    SettingsStep #fields { height: 1fr; layout: vertical; }
    SettingsStep #settings-form { height: 1fr; width: 1fr; }
    SettingsStep #advanced { height: auto; }
    SettingsStep .group { text-style: bold; margin: 1 0 0 0; }
    SettingsStep #explanation { height: 7; width: 1fr; color: $foreground 85%; }
    SettingsStep.-beside #fields { layout: horizontal; }
    SettingsStep.-beside #explanation { height: 1fr; width: 46; }
    SettingsStep #same-as { height: auto; padding: 0 1; color: $foreground 70%; }
    """

    @dataclass
    class PresetChosen(Message):
        """Another preset was chosen."""

        preset: str

    def __init__(self) -> None:
        super().__init__(id="settings")
        self.draft = Draft()
        self.focused_name = ""
        self._has_advanced = False

    def compose(self) -> ComposeResult:
        options = [(preset.title, name) for name, preset in PRESETS.items()]
        with Vertical(id="fields"):
            with pane(Form(id="settings-form"), "Settings"):
                with Horizontal(id="preset-row"):
                    yield Label("  Begin with (preset)")
                    yield OneOf(
                        options, value="balanced", allow_blank=False, compact=True, id="preset"
                    )
                for title, names in BASIC_GROUPS.items():
                    yield Label(title, classes="group basic")
                    yield from (SettingRow(SETTINGS[name]) for name in names)
                yield Button("", id="advanced-switch", compact=True)
                yield Vertical(id="advanced", classes="-empty")
            yield pane(Static("", id="explanation", markup=False), "About")
        yield Static("", id="same-as", markup=False)

    def _advanced(self) -> ComposeResult:
        for group, title in GROUPS.items():
            rows = [one for one in SETTINGS.values() if one.group == group]
            rows = [one for one in rows if one.name not in (*BASIC, *ELSEWHERE)]
            if rows:
                yield Label(title, classes="group")
                yield from (SettingRow(one) for one in rows)

    def on_mount(self) -> None:
        self.open_advanced(False)

    def open_advanced(self, is_open: bool) -> None:
        """Show the settings few runs need, or hide them; they are made when first shown."""
        box = self.query_one("#advanced")
        box.set_class(not is_open, "-empty")
        self._label_advanced()
        if is_open and not self._has_advanced:
            self._has_advanced = True
            self._make_advanced()

    def _label_advanced(self) -> None:
        """Say how many there are, and how many of them differ, which is not seen while closed."""
        names = set(SETTINGS) - {*BASIC, *ELSEWHERE} - self.draft.idle
        own = len(names & set(self.draft.own))
        sign = "+" if self.query_one("#advanced").has_class("-empty") else "-"
        label = f"{sign} Advanced ({len(names)} more{f', {own} changed' if own else ''})"
        self.query_one("#advanced-switch", Button).label = label

    @work
    async def _make_advanced(self) -> None:
        await self.query_one("#advanced").mount(*self._advanced())
        self.show(self.draft)

    def focus_first(self) -> None:
        """Put the focus on the first field."""
        self.query_one("#preset").focus()

    def show(self, draft: Draft) -> None:
        """Show the settings of a draft."""
        self.draft = draft
        problems, doubts = _by_setting(draft.problems()), _by_setting(warnings(draft))
        for row in self.query(SettingRow):
            name = row.setting.name
            row.set_class(name in draft.idle, "-empty")
            row.show(draft, problems.get(name, ""), doubts.get(name, ""))
        if any(name not in (*BASIC, *ELSEWHERE) for name in problems):
            self.open_advanced(True)
        self._label_advanced()
        preset = self.query_one("#preset", Select)
        with preset.prevent(Select.Changed):
            preset.value = draft.preset
        self._explain()

    def write_focused(self) -> None:
        """Write the present value into the field that has the focus, which `show` leaves alone."""
        row = self.query_one(f"#row-{self.focused_name}", SettingRow)
        row.write(value_text(self.draft.get(self.focused_name)))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        rows = [one for one in event.widget.ancestors if isinstance(one, SettingRow)]
        self.focused_name = rows[0].setting.name if rows else ""
        self._explain()

    def on_resize(self) -> None:
        self.set_class(self.size.width >= _BESIDE, "-beside")
        self.call_after_refresh(self._explain)

    def _explain(self) -> None:
        width = self.size.width - 2 if self.size.width > 2 else 78
        about = self.query_one("#explanation", Static)
        room = about.content_size
        rows = max(EXPLANATION_ROWS, room.height)
        if self.focused_name:
            about.border_title = plain(label_of(self.focused_name))
            text = explanation(SETTINGS[self.focused_name], self.draft, room.width or width, rows)
        else:
            about.border_title = "About the preset"
            text = preset_text(self.draft.preset, room.width or width, rows)
        about.update(text)
        rows = 3 if self.size.height >= _TALL else 2
        command = command_text(self.draft.command(), width, rows)
        self.query_one("#same-as", Static).update(command)

    @on(Select.Changed, "#preset")
    def _preset_changed(self, event: Select.Changed) -> None:
        event.stop()
        # What the field says of its own beginning comes after the draft has been shown in it.
        if event.value == event.select.value != self.draft.preset:
            self.post_message(self.PresetChosen(str(event.value)))

    @on(Button.Pressed, "#advanced-switch")
    def _switch_advanced(self, event: Button.Pressed) -> None:
        event.stop()
        self.open_advanced(self.query_one("#advanced").has_class("-empty"))

    def sentence(self) -> str:
        """Return the step as a sentence."""
        own = [f"{n} {value_text(v)}" for n, v in self.draft.own.items() if n not in ELSEWHERE]
        said = f"own settings: {', '.join(own)}" if own else "no settings of your own"
        problems = [problem.text for problem in self.draft.problems()]
        wrong = f". Not usable: {'; '.join(problems)}" if problems else ""
        doubts = [doubt.text for doubt in warnings(self.draft)]
        wrong += f". Doubtful: {'; '.join(doubts)}" if doubts else ""
        return f"Preset {PRESETS[self.draft.preset].title}, {said}{wrong}."


def _by_setting(found: Iterable[Problem]) -> dict[str, str]:
    """Return what is said of each setting."""
    said: dict[str, list[str]] = {}
    for one in found:
        for name in one.names:
            said.setdefault(name, []).append(one.text)
    return {name: "; ".join(texts) for name, texts in said.items()}
