"""The command palette lists what is declared in `commands.py` and valid right now."""

from __future__ import annotations

from collections.abc import Iterator

from textual.app import App, SystemCommand
from textual.screen import Screen

from tui.shell.commands import Command, palette_commands


def palette_entries(app: App, screen: Screen) -> Iterator[SystemCommand]:
    """Yield the commands of the focused part, the screen and the app that can be used now."""
    focused = screen.focused
    targets = [
        (getattr(focused, "COMMAND_AREA", ""), focused, "focused"),
        (getattr(screen, "AREA", ""), screen, "screen"),
        ("app", app, "app"),
    ]
    for area, target, namespace in targets:
        if not area or target is None:
            continue
        for command in palette_commands([area]):
            if target.check_action(command.action, ()) is not False:
                yield _entry(app, command, namespace)


def _entry(app: App, command: Command, namespace: str) -> SystemCommand:
    action = command.action if namespace == "app" else f"{namespace}.{command.action}"
    # The palette closes first, so that the screen below is the one that acts.
    return SystemCommand(
        command.palette,
        command.help,
        lambda: app.call_later(app.run_action, action),
    )
