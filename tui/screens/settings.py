"""The settings of the app itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from textual import events
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Checkbox, Label, Select, Static

from tui.charts.line_chart import LineChart
from tui.charts.moves import SMOOTHING_STEPS
from tui.charts.picture import Line
from tui.parts.base_screen import AppScreen, pane
from tui.parts.choices import Tick
from tui.parts.form import Form, OneOf
from tui.parts.harmless import plain
from tui.parts.title_bar import TitleBar
from tui.shell.commands import bindings
from tui.shell.settings import CHOICES, Settings, config_folder

_TITLES = {"theme": "Theme", "charset": "Characters of charts (finest: braille; everywhere: ascii)"}
_SWITCHES = (
    ("calm", "No animations"),
    ("bell", "Ring when a run ends"),
    ("auto_resume", "Go on after a crash, at most 3 times a run"),
    ("relax_gpu_watchdog", "Ask macOS to allow long GPU work"),
)

_SHORT_TITLES = {"theme": "Theme", "charset": "Characters", "smoothing": "Smoothing"}
_ABOUT = {
    "theme": "Colours of the whole app. auto takes dark or light as the terminal's background is. "
    "In orpo-dark and orpo-light the lines of charts stay apart for every kind of sight.",
    "charset": "What charts are drawn with. auto takes the finest that the terminal is known to "
    "show; take ascii where lines look broken.",
    "smoothing": "How much charts smooth at the start: the weight of what came before. [ and ] "
    "change it in a chart. A short run is smoothed less, or it would look flat.",
    "calm": "Nothing moves by itself: no blinking cursor, no scrolling that glides.",
    "bell": "The terminal's bell sounds when a run ends or fails.",
    "auto_resume": "A run whose process ended without a word goes on from its last checkpoint, at "
    "most three times, while this app is open. Off, it waits for you to resume it.",
    "relax_gpu_watchdog": "macOS stops work of the GPU that takes long while the display is on, "
    "which ends a training. This asks it not to (AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1); of use on a "
    "Mac only.",
}
"""What each setting does, shown beside it where there is room."""


def _files_text() -> str:
    return (
        f"Kept in {config_folder() / 'app.toml'}. Keys are changed in keys.toml beside it: "
        'a line such as  "live.stop" = "S"  per command; ? shows the ids.'
    )


def _sample_lines() -> list[Line]:
    """Return two lines of the kind that trainings draw; no run's."""
    steps = np.arange(1.0, 201.0)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, len(steps)))
    course = 1 - np.exp(-steps / 50)
    return [
        Line("chosen", "c", 0, steps, -1.2 + 0.6 * course + noise[0]),
        Line("rejected", "r", 1, steps, -1.3 - 0.5 * course + noise[1]),
    ]


_SAMPLE = _sample_lines()


class SettingsScreen(AppScreen):
    """Every change is used and kept at once."""

    AREA = "screen"
    HELP = (
        "Settings of the app, not of a training. Every change is used and kept at once. A wide "
        "window says beside them what each one does."
    )
    TITLE = "orpo-mlx · Settings"
    CSS_PATH = "settings.tcss"
    BINDINGS = bindings("screen")

    def compose_body(self) -> Iterable[Widget]:
        with Horizontal(id="body"):
            with pane(Form(id="form"), "Settings of the app"):
                yield from self._fields()
            with Vertical(id="beside"):
                yield pane(Static("", id="about", markup=False), "About")
                yield pane(Static(_files_text(), id="files", markup=False), "Files")
                yield pane(LineChart("Sample", id="sample"), "How a chart looks then")

    def _fields(self) -> Iterable[Widget]:
        settings = self.orpo.settings
        for name, values in CHOICES.items():
            yield Label(_TITLES[name], id=f"{name}-label", markup=False)
            yield OneOf(
                [(value, value) for value in values],
                value=getattr(settings, name), allow_blank=False, compact=True, id=name,
            )  # fmt: skip
        yield Label("Smoothing of charts at the start (0: none, 0.99: most)")
        nearest = min(SMOOTHING_STEPS, key=lambda step: abs(step - settings.smoothing))
        yield OneOf(
            [(f"{step:g}", step) for step in SMOOTHING_STEPS],
            value=nearest, allow_blank=False, compact=True, id="smoothing",
        )  # fmt: skip
        for name, text in _SWITCHES:
            yield Tick(text, getattr(settings, name), id=name, compact=True)
        yield Static(_files_text(), id="kept", markup=False)

    def on_mount(self) -> None:
        self.query_one("#title", TitleBar).right = "changes are kept at once · esc: back"
        self.query_one(LineChart).can_focus = False
        self.query_one("#theme").focus()
        self.settings_changed()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Say what the setting one is at does."""
        name = event.widget.id or ""
        if text := _ABOUT.get(name):
            about = self.query_one("#about", Static)
            about.border_title = plain(_SHORT_TITLES.get(name) or dict(_SWITCHES)[name])
            about.update(text)

    def _draw_sample(self) -> None:
        chart = self.query_one(LineChart)
        chart.set_charset(self.orpo.charset)
        chart.view = replace(chart.view, smoothing=self.orpo.settings.smoothing)
        chart.plot(_SAMPLE, end=_SAMPLE[0].xs[-1])

    def settings_changed(self) -> None:
        """Say what is in use now: what "auto" found, or what the command line asked for."""
        used = {"theme": self.app.theme, "charset": self.orpo.charset}
        for name, value in used.items():
            chosen = getattr(self.orpo.settings, name)
            here = "" if chosen == value else f"; in use: {value}"
            self.query_one(f"#{name}-label", Label).update(f"{_TITLES[name]}{here}")
        self._draw_sample()

    def on_select_changed(self, event: Select.Changed) -> None:
        self._change(event.select.id or "", event.value)

    def on_checkbox_changed(self, event: Checkbox.Changed) -> None:
        self._change(event.checkbox.id or "", event.value)

    def _change(self, name: str, value: object) -> None:
        settings: Settings = self.orpo.settings
        if getattr(settings, name) != value:
            self.orpo.change_settings(replace(settings, **{name: value}))  # type: ignore[arg-type]

    def sentence(self) -> str:
        settings = self.orpo.settings
        said = [f"{name} {getattr(settings, name)}" for name in _TITLES]
        said += [f"smoothing {settings.smoothing:g}"]
        said += [f"{name} {'on' if getattr(settings, name) else 'off'}" for name, _ in _SWITCHES]
        return f"Settings: {', '.join(said)}."
