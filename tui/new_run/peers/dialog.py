"""How many processes of this machine share a run, or which machines; no settings of the run."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Static

from orpo_mlx.distributed.hostfile import read_hostfile
from orpo_mlx.errors import ConfigError
from orpo_mlx.text.formatting import counted, visible
from tui.new_run.draft import MOST_PROCESSES, Draft
from tui.parts.fields.dialog import FieldsDialog
from tui.parts.fields.path_field import PathField
from tui.parts.fields.text_field import TextField
from tui.shell.names import plain_path

_ABOUT = (
    "Several processes share every step; the result is the same up to rounding. On one machine "
    "they pay only where one does not fill it, as on a CPU with many cores: a Mac's GPU is mostly "
    "full with one. Each holds the model."
)


class PeersScreen(FieldsDialog[Draft]):
    """Returns the draft with what was said, None to change nothing.

    Args:
        draft: what is planned.
    """

    DEFAULT_CSS = """
    PeersScreen > Vertical { width: 76; max-width: 98%; }
    PeersScreen Label { width: 25; }
    PeersScreen #peers-command { color: $foreground 75%; margin: 1 0 0 0; }
    PeersScreen .buttons { margin: 0; }
    """

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self.draft = draft
        self.cores = min(os.cpu_count() or 1, MOST_PROCESSES)

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Who computes it"
            box.border_subtitle = "enter takes it, esc changes nothing"
            yield Static(_ABOUT, markup=False)
            count = TextField(str(self.draft.processes), id="peers-count", compact=True)
            yield from self.row(f"Processes here, 1 to {self.cores}", count)
            hostfile = PathField(
                self.draft.hostfile, id="peers-hostfile", compact=True,
                placeholder="macs.json, made by mlx.distributed_config",
            )  # fmt: skip
            yield from self.row("Or a hostfile of Macs", hostfile)
            yield Static("", id="peers-machines", classes="-empty", markup=False)
            yield Static("", id="peers-command", markup=False)
            yield from self.ending("Use this", copy="Copy the command")

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
        self.refuse("")

    def go_on(self, field: Input) -> None:
        self.use()

    def press(self, button: str) -> None:
        if planned := self._accepted():
            self.app.copy(planned.command())  # type: ignore[attr-defined]

    def _accepted(self) -> Draft | None:
        try:
            return self._planned()
        except ConfigError as error:
            self.refuse(f"{error.message}. {error.what_to_do}")
            return None

    def use(self) -> None:
        if planned := self._accepted():
            self.dismiss(planned)

    def sentence(self) -> str:
        """Return what is asked."""
        return f"Who computes it. Fields: processes here, 1 to {self.cores}; a hostfile of Macs."
