"""What a command of minutes says of itself on stderr: each phase when it begins."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest

from orpo_mlx.cli.progress import ProgressLine


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return `told(stream, as_json=False) -> what is written` of a phase and a few pairs."""

    def write(stream: io.StringIO, as_json: bool = False) -> str:
        now = [0.0]
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr("orpo_mlx.cli.progress.time.monotonic", lambda: now[0])
        line = ProgressLine(as_json, says_phases=True)
        line(0, 0, "loading the weights", "phase")
        now[0] = 0.1
        line(0, 20, "scoring pairs", "rows")
        for now[0], done in ((0.2, 1), (60.1, 20)):
            line(done, 20, "scoring pairs", "rows")
        line(0, 2_000_000, "org/model", "bytes")
        return stream.getvalue()

    return write


def test_a_file_or_a_pipe_gets_one_line_a_phase(told):
    assert told(io.StringIO()).splitlines() == [
        "loading the weights ... (after 0.0 s)",
        "scoring pairs ... (after 0.1 s)",
        "downloading org/model: 0 B of 2 MB (after 1 min)",
    ]


def test_a_person_sees_a_label_before_the_first_part_is_done(told):
    shown = told(Terminal()).split("\r\x1b[K")[1:]
    assert shown[:2] == ["loading the weights ...", "scoring pairs: 0 of 20"]
    assert shown[2].startswith("scoring pairs: 20 of 20")


def test_a_program_gets_each_phase_at_once(told):
    rows = [json.loads(line) for line in told(io.StringIO(), as_json=True).splitlines()]
    assert [(row["label"], row["unit"], row["done"]) for row in rows] == [
        ("loading the weights", "phase", 0),
        ("scoring pairs", "rows", 0),
        ("scoring pairs", "rows", 20),
        ("org/model", "bytes", 0),
    ]
