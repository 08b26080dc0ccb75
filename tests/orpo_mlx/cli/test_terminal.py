"""One gate before the terminal: words of others never move it, whichever way they are written."""

from __future__ import annotations

import json

import pytest
from support.measured import measured

from orpo_mlx.cli.exit_codes import run_command
from orpo_mlx.cli.main import main
from orpo_mlx.cli.run_report import RichReport
from orpo_mlx.cli.terminal import make_console, print_text
from orpo_mlx.errors import RunError
from orpo_mlx.runs.events import (
    CheckpointSaved,
    DataPrepared,
    EvalCompleted,
    NoteLogged,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
    encode,
)

EVIL = "\x1b]52;c;Y3VybA==\x07\x1b[2J\x9b31m\x08\u202e"
"""Writes the clipboard, clears the screen, colours, turns a line around."""
EVENTS = [
    RunStarted(
        EVIL, EVIL, EVIL, 5, 8, 2, 10, 100, {"model": EVIL}, {}, EVIL, ["loss", EVIL],
        run_path=EVIL,
    ),
    DataPrepared(8, 7, {EVIL: 1}, {EVIL: 1}, EVIL, {EVIL: 3}, {"prompt": EVIL, "chosen": EVIL}),
    StepCompleted({"loss": 1.0, EVIL: 2.0}, step=1),
    EvalCompleted({"loss": 1.0, EVIL: 2.0}, step=1),
    SampleGenerated(1, EVIL, EVIL, 0),
    CheckpointSaved(1, EVIL, 0.1, 1000),
    NoteLogged(EVIL, EVIL),
    RunFinished(EVIL, 1, 2.0, EVIL),
]  # fmt: skip
ENDS = [*EVENTS[:-1], RunFailed(EVIL, EVIL, EVIL, 1, EVIL)]


def controls(text: str) -> str:
    return "".join(
        c for c in text
        if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c == "\u202e"
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "run\x1b[31m"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("")
    (folder / "events.jsonl").write_text("".join(map(encode, ENDS)))
    return folder


@pytest.mark.parametrize(
    "words", [["watch", "RUN", "--plain"], ["watch", "RUN", "--json"], ["watch", "RUN"],
              ["runs", "--runs-dir", "FOLDER"], ["runs", "--json", "--runs-dir", "FOLDER"],
              ["watch", "NONE\x1b[2J"], ["pause", "RUN", "--debug"]],
)  # fmt: skip
def test_no_control_character_of_a_run_is_printed(words, run, capsys):
    places = {"RUN": str(run), "FOLDER": str(run.parent)}
    main([places.get(word, word) for word in words])
    printed = capsys.readouterr()
    assert controls(printed.out) == ""
    assert controls(printed.err) == ""
    assert printed.out or printed.err


def test_a_terminal_gets_only_the_reports_own_colours(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for events in (EVENTS, ENDS):
        report = RichReport(make_console())
        for event in events:
            report.handle(event)
        report.close()
    printed = capsys.readouterr().out
    for piece in ("\x1b]52", "\x07", "\x1b[2J", "\x9b", "\x08", "\u202e"):
        assert piece not in printed


def test_a_traceback_and_an_unforeseen_error_pass_the_gate(capsys):
    def fail() -> int:
        raise RuntimeError(EVIL)

    def refuse() -> int:
        raise RunError(EVIL, EVIL)

    for function in (fail, refuse):
        for debug in (False, True):
            run_command(function, debug)
    printed = capsys.readouterr().err
    assert "52;c;Y3VybA==" in printed
    assert controls(printed) == ""


def test_json_and_settings_keep_their_values(capsys):
    text = {"name": "a\x1b\x7f\x9b\u202eb"}
    print_text(json.dumps(text, ensure_ascii=False) + "\n")
    printed = capsys.readouterr().out
    assert controls(printed) == ""
    assert json.loads(printed) == text


def test_charts_hold_no_control_characters(run, tmp_path):
    steps = [StepCompleted(measured(1.0, 0.5, 0.6, 0.1, -1.0, -1.2, 0.75, 0.2), step=1)]
    (run / "events.jsonl").write_text("".join(map(encode, steps)))
    for name in ("chart.svg", "chart.html"):
        assert main(["plot", str(run), "--out", str(tmp_path / name)]) == 0
        assert controls((tmp_path / name).read_text()) == ""
