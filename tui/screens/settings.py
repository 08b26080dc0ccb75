"""The settings of the app itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from textual.widget import Widget
from textual.widgets import Checkbox, Label, Select, Static

from tui.charts.moves import SMOOTHING_STEPS
from tui.parts.base_screen import AppScreen
from tui.parts.choices import Tick
from tui.parts.form import Form, OneOf
from tui.parts.title_bar import TitleBar
from tui.shell.commands import bindings
from tui.shell.settings import CHOICES, Settings, config_folder

_TITLES = {"theme": "Theme", "charset": "Characters of charts (finest: braille; everywhere: ascii)"}
_SWITCHES = (
    ("calm", "No animations"),
    ("bell", "Ring when a run ends"),
    ("auto_resume", "Go on by itself after a crash, 3 times a run, while this app is open"),
    ("relax_gpu_watchdog", "Ask macOS to allow long GPU work (AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1)"),
)


class SettingsScreen(AppScreen):
    """Every change is used and kept at once."""

    AREA = "screen"
    HELP = "Settings of the app, not of a training. Every change is used and kept at once."
    TITLE = "orpo-mlx · Settings"
    BINDINGS = bindings("screen")

    def compose_body(self) -> Iterable[Widget]:
        settings = self.orpo.settings
        with Form(id="form"):
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
            yield Static(
                f"Kept in {config_folder() / 'app.toml'}. Keys are changed in keys.toml beside it: "
                'a line such as  "live.stop" = "S"  per command; ? shows the ids.',
                markup=False,
            )

    def on_mount(self) -> None:
        self.query_one("#title", TitleBar).right = "changes are kept at once · esc: back"
        self.query_one("#theme").focus()
        self.settings_changed()

    def settings_changed(self) -> None:
        """Say what is in use now: what "auto" found, or what the command line asked for."""
        used = {"theme": self.app.theme, "charset": self.orpo.charset}
        for name, value in used.items():
            chosen = getattr(self.orpo.settings, name)
            here = "" if chosen == value else f"; in use: {value}"
            self.query_one(f"#{name}-label", Label).update(f"{_TITLES[name]}{here}")

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
