"""Help for the screen one is on and for its focused part."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from tui.parts.hanging import hung
from tui.shell.commands import APP, AREAS, Command, dialog_bindings, key_text

_WORDS = 11
"""Column in which the words of its table begin."""


class HelpScreen(ModalScreen[None]):
    """Lists keys; made for a screen as it is now."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen > VerticalScroll {
        width: 78;
        max-width: 98%;
        max-height: 96%;
        height: auto;
        background: $surface;
        border: round $foreground 70%;
        border-title-align: left;
        padding: 0 1;
        scrollbar-gutter: stable;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q", "dismiss", "Close", show=False),
        *dialog_bindings(),
    ]

    def __init__(self, screen: Screen, keymap: dict[str, str]) -> None:
        super().__init__()
        self.lines = help_lines(screen, keymap)

    def compose(self) -> ComposeResult:
        with VerticalScroll() as box:
            box.border_title = "Help"
            box.border_subtitle = "esc closes"
            yield Static("", markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def on_resize(self) -> None:
        if width := self.query_one(VerticalScroll).scrollable_content_region.width:
            self.query_one(Static).update(hung("\n".join(self.lines), width, _WORDS))

    def sentence(self) -> str:
        """Return the help as running text."""
        return " ".join(line.strip() for line in self.lines if line)


def help_lines(screen: Screen, keymap: dict[str, str]) -> list[str]:
    """Return the help of a screen: its text and keys, those of the focused part, those of all."""
    lines: list[str] = []
    focused = screen.focused
    area = getattr(screen, "AREA", "")
    lines += [getattr(screen, "HELP", ""), ""] if getattr(screen, "HELP", "") else []
    lines += _table(AREAS.get(area, ()), keymap)
    if focused is not None and isinstance(help := getattr(focused, "HELP", None), str):
        table = _table(AREAS.get(getattr(focused, "COMMAND_AREA", ""), ()), keymap)
        lines += ["", help, *([""] if table else []), *table]
    lines += ["", "Everywhere", *_table((*APP, *AREAS["screen"]), keymap)]
    lines += ["", "  ^p       all of this by name", "", "Keys can be changed in keys.toml, by id:"]
    return [*lines, *(f"  {command.id}" for command in AREAS.get(area, ()))]


def _table(commands: tuple[Command, ...], keymap: dict[str, str]) -> list[str]:
    return [
        f"  {key_text(keymap.get(command.id, command.key)):<{_WORDS - 3}} {command.help}"
        for command in commands
    ]
