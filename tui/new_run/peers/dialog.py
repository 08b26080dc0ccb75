"""How many processes of this machine share a run, or which machines; no settings of the run."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from orpo_mlx.distributed.hostfile import read_hostfile
from orpo_mlx.errors import ConfigError
from orpo_mlx.text.formatting import counted, visible
from tui.new_run.draft import MOST_PROCESSES, Draft
from tui.parts.fields.path_field import PathField
from tui.parts.fields.text_field import TextField
from tui.shell.names import plain_path

_ABOUT = (
    "Several processes share every step; the result is the same up to rounding. On one machine "
    "they pay only where one does not fill it, as on a CPU with many cores: a Mac's GPU is mostly "
    "full with one. Each holds the model."
)


class PeersScreen(ModalScreen[Draft | None]):
    """Returns the draft with what was said, None to change nothing.

    Args:
        draft: what is planned.
    """

    DEFAULT_CSS = """
    PeersScreen { align: center middle; }
    PeersScreen > Vertical {
        width: 76; max-width: 98%; height: auto; max-height: 100%; overflow-y: auto;
        background: $surface; border: round $foreground 60%; padding: 0 1;
    }
    PeersScreen Vertical > Horizontal { height: 1; }
    PeersScreen Label { width: 25; }
    PeersScreen Input { border: none; background: $background; width: 1fr; }
    PeersScreen Static { height: auto; }
    PeersScreen #peers-command { color: $foreground 75%; margin: 1 0 0 0; }
    PeersScreen #peers-problem { color: $error; }
    PeersScreen .buttons { align-horizontal: right; }
    PeersScreen Button { margin: 0 0 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self.draft = draft
        self.cores = min(os.cpu_count() or 1, MOST_PROCESSES)

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Who computes it"
            box.border_subtitle = "enter takes it, esc changes nothing"
            yield Static(_ABOUT, markup=False)
            with Horizontal():
                yield Label(f"Processes here, 1 to {self.cores}")
                yield TextField(str(self.draft.processes), id="peers-count", compact=True)
            with Horizontal():
                yield Label("Or a hostfile of Macs")
                yield PathField(
                    self.draft.hostfile, id="peers-hostfile", compact=True,
                    placeholder="macs.json, made by mlx.distributed_config",
                )  # fmt: skip
            yield Static("", id="peers-machines", classes="-empty", markup=False)
            yield Static("", id="peers-command", markup=False)
            yield Static("", id="peers-problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="cancel", compact=True)
                yield Button("Copy the command", id="copy", compact=True)
                yield Button("Use this", id="use", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one("#peers-count").focus()
        self._show()

    def _planned(self) -> Draft:
        """Return the draft with what the fields say.

        Raises:
            ConfigError: they cannot be used.
        """
        text, file = (self.query_one(f"#peers-{n}", Input).value for n in ("count", "hostfile"))
        count, file = text.strip() or "1", plain_path(file)
        if not count.isdecimal() or not 1 <= int(count) <= self.cores:
            need = f"needs a number from 1 to {self.cores}"
            raise ConfigError(f"{count!r:.20}: {need}", "Correct it.")
        if file and int(count) > 1:
            raise ConfigError(
                "Processes here and a hostfile: give only one of both", "Leave one out."
            )
        planned = replace(self.draft, processes=int(count), hostfile=file)
        if file:
            read_hostfile(file)
        for problem in () if self.draft.problems() else planned.problems():
            raise ConfigError(problem.text, "Leave one out.")
        return planned

    @on(Input.Changed)
    def _show(self) -> None:
        """Say what the fields mean: the machines, the command."""
        machines = ""
        try:
            planned = self._planned()
        except ConfigError:
            planned = self.draft  # said once it is to be used: it may be half typed
        if planned.hostfile:
            hosts = read_hostfile(planned.hostfile).hosts
            names = ", ".join(visible(host.ssh) for host in hosts)
            machines = f"{counted(len(hosts), 'machine')}: {names}. A terminal starts such a run."
        said = self.query_one("#peers-machines", Static)
        said.update(machines)
        said.set_class(not machines, "-empty")
        words = visible(shlex.join(planned.peer_words()))
        self.query_one("#peers-command", Static).update(f"orpo-mlx train ... {words}".rstrip())
        self.query_one("#peers-problem", Static).update("")

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._use()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "cancel":
            self.dismiss(None)
        elif event.button.id == "use":
            self._use()
        elif planned := self._accepted():
            self.app.copy(planned.command())  # type: ignore[attr-defined]

    def _accepted(self) -> Draft | None:
        try:
            return self._planned()
        except ConfigError as error:
            self.query_one("#peers-problem", Static).update(f"{error.message}. {error.what_to_do}")
            return None

    def _use(self) -> None:
        if planned := self._accepted():
            self.dismiss(planned)

    def sentence(self) -> str:
        """Return what is asked."""
        return f"Who computes it. Fields: processes here, 1 to {self.cores}; a hostfile of Macs."
