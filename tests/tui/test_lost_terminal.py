"""A terminal that is gone ends the app, wherever it is: no question, no spinning, no child left."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orpo_mlx.runs.directory import RunDirectory
from tui.new_run.draft import load_draft
from tui.new_run.screen import DRAFT_FILE
from tui.shell.settings import config_folder

ROOT = Path(__file__).parents[2]
FAKE_APP = str(ROOT / "tests/fakes/fake_app.py")
PATIENCE_SECONDS = 60.0

SHELL = """
import signal, subprocess, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
subprocess.call(sys.argv[1:])
"""
"""Owns the terminal and takes its SIGHUP: the app only sees that its input has ended."""


class Window:
    """A terminal of its own and a program in it, whose output is read and kept."""

    def __init__(self, words: list[str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

        def own_terminal() -> None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.leader = psutil.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True,
            preexec_fn=own_terminal, env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(slave)
        self.written = b""
        self._is_open = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while self._is_open:
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.written += os.read(self.master, 1 << 16)
                except OSError:  # nobody is there any more
                    return

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait(self, text: str) -> None:
        """Wait until a text has been written since the last time, line breaks aside."""
        wait_until(lambda: text.encode() in self.written, lambda: self.written[-4000:])
        self.written = b""

    def close(self) -> None:
        """Close the window."""
        if self._is_open:
            self._is_open = False
            self._reader.join()
            os.close(self.master)


def wait_until(condition: Callable[[], object], what: Callable[[], object] = str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.fixture
def open_window() -> Iterator[Callable[..., Window]]:
    windows: list[Window] = []

    def open(*words: str) -> Window:
        windows.append(Window([sys.executable, *words]))
        return windows[-1]

    yield open
    for window in windows:
        window.close()
        if window.leader.poll() is None:
            for process in [*window.leader.children(recursive=True), window.leader]:
                process.kill()
            window.leader.wait()


def at_runs(window: Window) -> None:
    window.wait("run-a")


def asked_whether_to_leave(window: Window) -> None:
    at_runs(window)
    window.type("q")
    window.wait("Detach and quit")


def planning_a_run(window: Window) -> None:
    at_runs(window)
    window.type("n")
    window.wait("built-in demo model")
    window.type("\r")
    window.wait("F2 next")


# The last one found, rarely, what test_narrow.py shows each time: it is in the slow set.
@pytest.mark.parametrize(
    "place",
    [at_runs, asked_whether_to_leave, pytest.param(planning_a_run, marks=pytest.mark.slow)],
)
def test_a_closed_window_ends_the_app_and_no_training(
    place, trainer: RunDirectory, runs_dir: Path, open_window: Callable[..., Window]
):
    window = open_window("-m", "tui", "--runs-dir", str(runs_dir), "--calm")
    place(window)
    window.close()
    assert window.leader.wait(PATIENCE_SECONDS) == 0, window.written[-4000:]
    assert trainer.is_locked()
    if place is planning_a_run:
        kept = load_draft(config_folder() / DRAFT_FILE)
        assert kept is not None
        assert kept.model


def close_the_window(window: Window, app: psutil.Process) -> None:
    window.close()


def send_hangup(window: Window, app: psutil.Process) -> None:
    app.send_signal(signal.SIGHUP)


def send_terminate(window: Window, app: psutil.Process) -> None:
    app.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("dialog", ["", "\x0f"], ids=["chat", "dialog"])
@pytest.mark.parametrize(
    ("end", "has_shell"),
    [
        pytest.param(close_the_window, False, id="hangup and end of input"),
        pytest.param(close_the_window, True, id="end of input alone"),
        pytest.param(send_hangup, False, id="hangup alone"),
        pytest.param(send_terminate, False, id="terminated"),
    ],
)
def test_a_chat_ends_with_the_model_that_answers_in_it(
    dialog: str,
    end: Callable[[Window, psutil.Process], None],
    has_shell: bool,
    trainer: RunDirectory,
    runs_dir: Path,
    open_window: Callable[..., Window],
):
    shell = ["-c", SHELL, sys.executable] if has_shell else []
    window = open_window(*shell, FAKE_APP, str(runs_dir), str(trainer.path))
    window.wait("5 MB")
    window.type(dialog)
    if dialog:
        window.wait("Adapter after")
    app = window.leader.children()[0] if has_shell else psutil.Process(window.leader.pid)
    children = app.children(recursive=True)
    assert any("fake_chat" in " ".join(child.cmdline()) for child in children)
    end(window, app)
    if has_shell:
        app.wait(PATIENCE_SECONDS)
    else:
        assert window.leader.wait(PATIENCE_SECONDS) == 0
        if end in (send_hangup, send_terminate):
            wait_until(lambda: b"\x1b[?1049l" in window.written)  # the terminal is as it was
    _, living = psutil.wait_procs(children, PATIENCE_SECONDS)
    assert living == []
    assert trainer.is_locked()
