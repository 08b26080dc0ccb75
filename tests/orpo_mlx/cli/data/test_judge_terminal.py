"""Keys from a real (pseudo) terminal, and the terminal as it was before, however judging ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orpo_mlx.__main__ import main

ROWS = [
    {"prompt": f"Question {i}?", "responses": [f"good {i}", f"bad {i}"]} for i in range(4)
]  # fmt: skip


class Session:
    """`orpo-mlx data pairs` in a terminal of its own."""

    def __init__(self, source: Path, out: Path) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        words = ["data", "pairs", str(source), str(out)]
        self.child = subprocess.Popen(
            [sys.executable, "-m", "orpo_mlx", *words],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=self._take_terminal,
        )
        self.seen = ""

    def _take_terminal(self) -> None:
        import fcntl

        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def wait(self, text: str, seconds: float = 60) -> str:
        """Return what was shown up to a text."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"waited in vain for {text!r}; saw {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
            assert self.child.poll() is None or text in self.seen or self._drain(text), self.seen
        before, _, self.seen = self.seen.partition(text)
        return before

    def _drain(self, text: str) -> bool:
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        return text in self.seen

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def is_as_before(self) -> bool:
        now = termios.tcgetattr(self.slave)
        return now[:4] == self.before[:4]

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def start(source: Path, tmp_path: Path) -> Iterator[Callable[[], Session]]:
    sessions: list[Session] = []

    def begin() -> Session:
        sessions.append(Session(source, tmp_path / "pairs.jsonl"))
        return sessions[-1]

    yield begin
    for session in sessions:
        session.close()


def pairs_in(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


def better_key(shown: str) -> str:
    """The key of the side on which the good answer is shown."""
    left = re.search(r"LEFT \(l\) -+\s+(good|bad)", shown)
    assert left, shown
    return "l" if left[1] == "good" else "r"


def test_a_human_judges_one_key_a_verdict_undoes_quits_and_goes_on(
    start: Callable[[], Session], tmp_path: Path
) -> None:
    session = start()
    shown = session.wait("q quit")
    session.press("l" if better_key(shown) == "r" else "r")  # the wrong one
    session.wait("2 of 4")
    session.wait("q quit")
    session.press("u")
    session.wait("1 of 4")
    shown = session.wait("q quit")
    session.press("\x1b[D" if better_key(shown) == "l" else "\x1b[C")
    session.wait("2 of 4")
    session.wait("q quit")
    session.press("t")
    session.wait("3 of 4")
    assert not session.is_as_before()  # keys come without Enter
    session.press("q")
    session.wait("the same command goes on")
    session.wait("wrote")
    assert session.child.wait(30) == 0
    assert session.is_as_before()
    (first,) = pairs_in(tmp_path)
    assert (first[0][:4], first[1][:3]) == ("good", "bad")

    again = start()
    again.wait("3 of 4")
    shown = again.wait("q quit")
    again.press(better_key(shown))
    again.wait("4 of 4")
    shown = again.wait("q quit")
    again.press(better_key(shown))
    again.wait("wrote")
    assert again.child.wait(30) == 0
    assert again.is_as_before()
    found = pairs_in(tmp_path)
    assert len(found) == 3
    assert all((good[:4], bad[:3]) == ("good", "bad") for good, bad in found)


@pytest.mark.parametrize("how", ["ctrl-c", "SIGTERM", "SIGHUP", "ctrl-d"])
def test_however_it_ends_the_terminal_is_as_before_and_verdicts_are_kept(
    start: Callable[[], Session], tmp_path: Path, how: str
) -> None:
    session = start()
    session.wait("q quit")
    session.press("l")
    session.wait("2 of 4")
    session.wait("q quit")
    if how.startswith("SIG"):
        session.child.send_signal(getattr(signal, how))
    else:
        session.press({"ctrl-c": "\x03", "ctrl-d": "\x04"}[how])
    session.wait("wrote")
    assert session.child.wait(30) == (0 if how == "ctrl-d" else 130)
    assert session.is_as_before()
    assert len(pairs_in(tmp_path)) == 1


def test_a_kill_loses_no_verdict_that_was_given(
    start: Callable[[], Session], tmp_path: Path
) -> None:
    session = start()
    session.wait("q quit")
    session.press("l")
    session.wait("2 of 4")
    session.child.kill()
    session.child.wait()
    journal = tmp_path / "pairs.verdicts.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"verdict": "le')  # as if torn
    again = start()
    again.wait("2 of 4")
    again.press("q")
    again.wait("wrote")
    assert again.child.wait(30) == 0
    assert len(pairs_in(tmp_path)) == 1


def run(words: list[str], keys: bytes | None) -> subprocess.CompletedProcess[str]:
    stdin = subprocess.DEVNULL if keys is None else subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "orpo_mlx", *words],
        stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        out, err = child.communicate(keys, timeout=60)
    return subprocess.CompletedProcess(words, child.returncode, out.decode(), err.decode())


def test_verdicts_may_be_piped_in(source: Path, tmp_path: Path) -> None:
    done = run(["data", "pairs", str(source), str(tmp_path / "pairs.jsonl")], b"l r\nx\nts")
    assert done.returncode == 0, done.stderr
    assert "judged  4 of 4 comparisons: 1 left, 1 right, 1 tie, 1 skip" in done.stdout
    assert "\x1b" not in done.stdout
    assert len(pairs_in(tmp_path)) == 2


def test_without_anybody_to_answer_it_says_so(source: Path, tmp_path: Path) -> None:
    done = run(["data", "pairs", str(source), str(tmp_path / "pairs.jsonl")], None)
    assert done.returncode == 2
    assert "the standard input is not a terminal" in done.stderr
    assert "pipe the keys in" in done.stderr
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["prompts.jsonl"]


def test_what_is_shown_cannot_command_the_terminal(tmp_path: Path) -> None:
    source = tmp_path / "evil.jsonl"
    row = {"prompt": "a\x1b]0;x\x07", "responses": ["b\x1b[2J", "c\u202e"]}
    source.write_text(json.dumps(row) + "\n")
    done = run(["data", "pairs", str(source), str(tmp_path / "pairs.jsonl")], b"l")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


def test_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "pairs", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("--model", "--rule", "best-worst", "--candidates", "--force"):
        assert word in shown
