"""A person, or a pipe, talks with base and adapter in the terminal."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from orpo_mlx.chat.commands import edited_turn
from orpo_mlx.chat.session import ChatSession
from orpo_mlx.cli.chat.request import ChatRequest
from orpo_mlx.cli.terminal import is_terminal, print_error, print_error_text, print_text
from orpo_mlx.errors import ConfigError, DataError, OrpoError
from orpo_mlx.runs.listing import find_run

if TYPE_CHECKING:
    from orpo_mlx.serving.place import Playground


class TerminalChat:
    """One chat, from the first line to the last.

    Args:
        place: what answers.
        command: how.

    Raises:
        ConfigError: there is no place for a system prompt.
    """

    def __init__(self, place: Playground, command: ChatRequest) -> None:
        self._place = place
        self._is_person = is_terminal(sys.stdin) and is_terminal(sys.stdout)
        self._stopped = False
        self._side = ""
        from orpo_mlx.serving.playground import ready

        run = command.given.get("run")
        name = find_run(run, command.given.get("runs_dir")).id if run else ""
        self.session = ChatSession(name, drawing=command.drawing)
        self.session.apply(ready(place))
        if command.system:
            self.session.take(f"/system {command.system}")

    def run(self) -> int:
        """Talk until the input ends; 0, or 2 if a line of a pipe was refused."""
        if self._is_person:
            print_text(self._welcome())
        was_refused = False
        for line in self._lines():
            if not line.strip():
                continue
            try:
                if not self._take(line):
                    break
            except OrpoError as error:
                was_refused = True
                print_error(error)
        return 2 if was_refused and not self._is_person else 0

    def _welcome(self) -> str:
        session = self.session
        what = f"{session.run or session.model}, checkpoint {session.checkpoint or 'none'}"
        sides = " and ".join(session.sides)
        return (
            f"{what}: {sides} {'answer' if len(session.sides) > 1 else 'answers'}.\n"
            "/help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.\n"
        )

    # Lines in

    def _lines(self) -> Iterator[str]:
        if not self._is_person:
            if (reconfigure := getattr(sys.stdin, "reconfigure", None)) is not None:
                reconfigure(errors="replace")
            yield from (line.rstrip("\r\n") for line in sys.stdin)
            return
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (lines can be edited and called back)
        while True:
            try:
                line = input("> ")
            except (EOFError, KeyboardInterrupt):
                print_text("\n")
                return
            is_bare = re.fullmatch(r"/edit(\s+#\d+)?\s*", line)
            yield self._edited(line) if is_bare else line

    def _edited(self, line: str) -> str:
        """Let the person change a turn where it stands, the last one if there is no number."""
        readline = sys.modules.get("readline")
        try:
            present = self.session.edit_line(edited_turn(line))
        except DataError:  # the line is refused with the reason
            return line
        if readline is None:
            return line
        readline.set_startup_hook(lambda: readline.insert_text(present))
        try:
            return input("> ")
        except (EOFError, KeyboardInterrupt):
            print_text("\n")
            return ""
        finally:
            readline.set_startup_hook()

    def _take(self, line: str) -> bool:
        """Do what a line says; False if the person leaves."""
        outcome = self.session.take(line)
        if outcome.text:
            print_text(outcome.text + "\n")
        if outcome.request:
            self._send(outcome.request)
        return not outcome.leaves

    # Answers out

    def _send(self, request: dict[str, Any]) -> None:
        """Send a request; sides answer one after the other, for a terminal has one end."""
        from orpo_mlx.serving.playground import handle

        sides = request.get("sides", [""])
        with self._stoppable():
            for side in sides:
                if not (self._stopped or self.session.failed):
                    self._side = f"{side}: " if len(sides) > 1 or self._is_person else ""
                    one = {**request, "sides": [side]} if side else request
                    handle(self._place, one, self._say, lambda: not self._stopped)
        self.session.waiting.clear()
        if self.session.failed:
            failed, self.session.failed = self.session.failed, ""
            raise ConfigError(failed, "")
        if request["op"] == "answer" and self.session.cut:
            print_error_text(self.session.cut)

    def _say(self, message: dict[str, Any]) -> None:
        self.session.apply(message)
        match message["event"]:
            case "text":
                print_text(self._side + message["text"])
                self._side = ""
            case "answered":
                print_text(self._side + "\n")
            case "loaded":
                print_text(f"Checkpoint {message['checkpoint']} answers.\n")
            case "asked":
                print_text(self.session.report + "\n")

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let the first Ctrl-C stop the answers, the second one the program."""
        self._stopped = leaves = False

        def stop(_: int, __: FrameType | None) -> None:
            nonlocal leaves
            if self._stopped:
                leaves = True
                raise KeyboardInterrupt
            self._stopped = True

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        if leaves:  # raised where nothing can be raised, in a destructor, it was lost
            raise KeyboardInterrupt
