"""What a person reads: golden texts at 80 columns, and a terminal never harmed."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.listed import RUN
from support.measured import NAMES, measured

from orpo_mlx.cli import run_summary
from orpo_mlx.cli.commands import runs
from orpo_mlx.cli.run_report import JsonReport, QuietReport, RichReport, build_report
from orpo_mlx.runs.event_text import plain_lines
from orpo_mlx.runs.events import (
    CheckpointSaved,
    DataPrepared,
    EvalCompleted,
    Event,
    EventWriter,
    NoteLogged,
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
    encode,
)


def step(number: int, seconds: float = 2.0) -> StepCompleted:
    return StepCompleted(
        measured(1.5, 1.4, 0.69, 0.12, -1.1, -1.3, 0.75, 0.2134), step=number, epoch=0.1,
        learning_rate=5e-5, grad_norm=1.0, tokens=1000 * number, tokens_per_second=812.3,
        step_seconds=seconds, peak_memory_bytes=5_412_000_000,
    )  # fmt: skip


def validation(number: int, loss: float, accuracy: float, best: bool = False) -> EvalCompleted:
    return EvalCompleted(
        measured(loss, 1.9, 0.7, 0.1, -1.1, -1.2, accuracy, 0.1), step=number, pairs=5, is_best=best
    )


STARTED = RunStarted(
    "pairs-20261121-1405-3f2a", "Qwen3-0.6B-4bit", "pairs.jsonl", 240, 95, 5, 7_600_000,
    1_240_000_000, {"model": "org/Qwen3-0.6B-4bit", "runs_dir": "/runs"}, {}, "orpo", [*NAMES],
)  # fmt: skip
FIRST_PAIR = {
    "prompt": "<user>What is the capital of Ireland, and why would one want to go there in rain?",
    "chosen": "Dublin. \x1b[31mAnd yours?",
    "rejected": "I am not sure.",
}
TOKENS = {
    "prompt_p50": 310, "prompt_p95": 820, "prompt_max": 1011,
    "chosen_p50": 31, "chosen_p95": 82, "chosen_max": 101,
}  # fmt: skip
ADAPTER = "/runs/pairs-20261121-1405-3f2a/adapter"
EVENTS: list[Event] = [
    STARTED,
    DataPrepared(
        105, 100, {"empty response": 1, "identical responses": 4}, {"prompt cut": 2},
        "prompt, chosen, rejected", TOKENS, FIRST_PAIR,
    ),
    validation(0, 2.1, 0.6),
    SampleGenerated(0, "Capital of Ireland?", "I am not sure.", 0),
    *(step(number) for number in range(10, 60, 10)),
    step(60, seconds=9.0),
    NoteLogged("warning", "slept for 3 min"),
    CheckpointSaved(60, "/runs/pairs-20261121-1405-3f2a/checkpoints/000060", 0.2, 41_000_000),
    Paused(60),
    Resumed(60),
    validation(240, 1.8, 0.8, best=True),
    SampleGenerated(240, "Capital of Ireland?", "Dublin. And what is yours?", 0),
    RunFinished("completed", 240, 3725.0, ADAPTER),
]  # fmt: skip

GOLDEN = """\
run     pairs-20261121-1405-3f2a
model   Qwen3-0.6B-4bit
adapter 7.6 M of 1.24 B parameters are trained (0.61 %)
data    pairs.jsonl
plan    240 steps over 95 training pairs, 5 for validation
rows    105 read, 100 kept, 5 dropped; format: prompt, chosen, rejected
            4 dropped: identical responses
            1 dropped: empty response
            2 kept, but: prompt cut
tokens  prompt 310/820/1011, chosen 31/82/101 (median/95 %/longest)
first pair (only the responses are scored):
  prompt   | <user>What is the capital of Ireland, and why would one want to go
           | there in rain?
  chosen   | Dublin. \\x1b[31mAnd yours?
  rejected | I am not sure.
validation at step 0: loss 2.1000, acc 60 %, margin +0.10
sample 1 at step 0:
  prompt   | Capital of Ireland?
  answer   | I am not sure.
step  10/240  loss 1.5000  acc 75 %  margin +0.21  812 tok/s  left 7 min 40 s
step  20/240  loss 1.5000  acc 75 %  margin +0.21  812 tok/s  left 7 min 20 s
step  30/240  loss 1.5000  acc 75 %  margin +0.21  812 tok/s  left 7 min
step  40/240  loss 1.5000  acc 75 %  margin +0.21  812 tok/s  left 6 min 40 s
step  50/240  loss 1.5000  acc 75 %  margin +0.21  812 tok/s  left 6 min 20 s
step  60/240  loss 1.5000  acc 75 %  margin +0.21  812 tok/s  left 6 min
warning: step 60 took 9.0 s, 4.5 times the usual; swapping or hot?
warning: slept for 3 min
checkpoint at step 60: 41 MB in 0.2 s, /runs/pairs-20261121-1405-3f2a/checkpoints/000060
paused at step 60; memory is kept
goes on after step 60
validation at step 240: loss 1.8000, acc 80 %, margin +0.10, the best so far
sample 1 at step 240:
  prompt   | Capital of Ireland?
  answer   | Dublin. And what is yours?
completed after step 240 in 1 h 02 min

validation, 5 pairs                 step 0    step 240
  loss                              2.1000      1.8000
  nll                               1.9000      1.9000
  odds-ratio loss                   0.7000      0.7000
  log-odds ratio                   +0.1000     +0.1000
  chosen log-prob                  -1.1000     -1.1000
  rejected log-prob                -1.2000     -1.2000
  accuracy                          0.6000      0.8000
  margin                           +0.1000     +0.1000

sample 1
  prompt   | Capital of Ireland?
  before   | I am not sure.
  after    | Dublin. And what is yours?

adapter  /runs/pairs-20261121-1405-3f2a/adapter
run      /runs/pairs-20261121-1405-3f2a
try it   mlx_lm.generate --model org/Qwen3-0.6B-4bit --adapter-path \
/runs/pairs-20261121-1405-3f2a/adapter --prompt 'Capital of Ireland?'
all runs orpo-mlx runs
"""


@pytest.fixture(autouse=True)
def commands_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the environment's commands are on PATH must not change what is expected."""
    monkeypatch.setattr(run_summary, "tool", lambda name: name)


def shown(events: list[Event], terminal: bool = False, width: int = 80, **env: str) -> str:
    """The output of a report on a console that does not depend on where tests run."""
    console = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, highlight=False, markup=False,
        emoji=False, color_system="standard" if terminal else None, _environ=env,
    )  # fmt: skip
    view = RichReport(console)
    for event in events:
        view.handle(event)
    view.close()
    file: Any = console.file
    return file.getvalue()


def test_a_whole_run_reads_like_this_where_no_terminal_is() -> None:
    assert shown(EVENTS) == GOLDEN


def test_only_paths_and_commands_are_longer_than_the_width() -> None:
    long = [line for line in shown(EVENTS).splitlines() if len(line) > 80]
    assert all("/runs/" in line for line in long)
    narrow = [line for line in shown(EVENTS, width=40).splitlines() if line.startswith("step")]
    assert all(len(line) <= 40 for line in narrow)


def test_without_a_terminal_there_are_no_control_codes_and_no_bar() -> None:
    text = shown(EVENTS)
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    assert "━" not in text


def test_a_terminal_gets_a_bar_dim_prompts_and_bold_responses() -> None:
    text = shown(EVENTS, terminal=True)
    assert "━" in text
    assert "step 60 of 240, 6 min left" in text
    assert "\x1b[2m           | there in rain?" in text
    assert "\x1b[1m  chosen   | Dublin. \\x1b[31mAnd yours?" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h"), "the cursor comes back"


def test_the_cursor_comes_back_after_a_crash_too() -> None:
    text = shown([STARTED, step(1)], terminal=True)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown([*EVENTS[:2], NoteLogged("warning", "x")], terminal=True, NO_COLOR="1")
    assert "\x1b[33m" not in text


# The closing text


def test_a_resumed_run_still_compares_with_its_beginning() -> None:
    console = Console(file=io.StringIO(), width=80, _environ={})
    view = RichReport(console)
    view.catch_up([STARTED, validation(0, 2.5, 0.5), validation(60, 2.0, 0.6)])
    for event in (STARTED, Resumed(50, True), validation(240, 1.5, 0.9), EVENTS[-1]):
        view.handle(event)
    file: Any = console.file
    assert "step 0    step 240\n  loss                              2.5000      1.5000" in (
        file.getvalue()
    )


def test_with_keep_best_the_table_shows_the_kept_adapter() -> None:
    started = RunStarted(
        "r", "m", "d", 9, 1, 1, 1, 2, {"keep_best": True, "run_dir": "/r"}, {}, "orpo", [*NAMES]
    )  # fmt: skip
    end = RunFinished("early_stop", 9, 1.0, "/r/adapter", best_step=6)
    text = shown([started, *(validation(n, 3.0 - n / 10, 0.5) for n in (0, 3, 6, 9)), end])
    assert "step 0      step 6" in text
    assert "best at step 6" in text


def test_a_stopped_run_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    end = RunFinished("stopped", 60, 30.0, None)
    assert "go on    orpo-mlx resume /runs/pairs-20261121-1405-3f2a\n" in shown([STARTED, end])
    monkeypatch.setenv("ORPO_MLX_HOME", "/")
    assert "go on    orpo-mlx resume pairs-20261121-1405-3f2a\n" in shown([STARTED, end])


@pytest.mark.parametrize(
    ("config", "system", "asks"),
    [
        ({}, "Be brief.", "mlx_lm.generate --model org/m --adapter-path A --system-prompt "
         "'Be brief.' --prompt 'Why?'"),
        ({"thinking": "off"}, "", "mlx_lm.generate --model org/m --adapter-path A "
         """--chat-template-config '{"enable_thinking": false}' --prompt 'Why?'"""),
        ({"chat_template": "own.jinja"}, "", "orpo-mlx, then t on this run: it asks through "
         "--chat-template"),
    ],
    ids=["system turn", "thinking off", "own template"],
)  # fmt: skip
def test_the_command_to_try_asks_in_the_form_that_was_trained(config, system, asks) -> None:
    started = dataclasses.replace(STARTED, config={"model": "org/m", **config})
    sample = SampleGenerated(0, "Why?", "So.", 0, system)
    text = shown([started, sample, RunFinished("completed", 9, 1.0, "A")])
    assert f"try it   {asks}\n" in text.replace("\\\n", "")


def test_a_failed_run_names_what_is_saved_and_leaves_the_error_to_stderr() -> None:
    failed = RunFailed("TrainingError", "loss is NaN", "Lower it.", 70, "/runs/x/checkpoints/60")
    text = shown([STARTED, step(60), failed])
    assert "failed at step 70; saved: /runs/x/checkpoints/60\ngo on    orpo-mlx resume" in text
    assert "NaN" not in text
    again = dataclasses.replace(failed, kind="not_finite")  # resumed it would fail again
    assert "go on" not in shown([STARTED, step(60), again])


# A run of several processes


SHARED = dataclasses.replace(STARTED, hosts=["mac", "mac"])


def shared_step(number: int, *tokens: int, wait: float = 0.0, net: float = 0.0) -> StepCompleted:
    return dataclasses.replace(
        step(number), peer_tokens=[*tokens], wait_seconds=wait, exchange_seconds=net
    )


def test_a_run_of_several_processes_says_how_they_shared_it() -> None:
    end = RunFinished("stopped", 30, 60.0, None)
    events = [SHARED, shared_step(10, 300, 100, wait=0.4), shared_step(30, 0, 100, wait=0.1), end]
    lines = shown(events, width=110).splitlines()
    assert lines[5] == "shared  by 2 processes on mac"
    assert lines[6].endswith("left 7 min 40 s  5.41 GB  wait 20 %  net 0 %")
    # 300 of 500 tokens are a fifth more than half; 10 steps waited 0.4 s and 20 waited 0.1 s.
    assert "shared   by 2 processes on mac: 60 % and 40 % of the tokens (busiest +20 %)" in lines
    assert (
        "         a step waited 200 ms (10 %) for the slowest, 0 ms (0 %) for the network" in lines
    )
    assert "go on    orpo-mlx resume /runs/pairs-20261121-1405-3f2a --processes 2" in lines


def test_only_the_newest_processes_are_told_of() -> None:
    events = [
        SHARED, shared_step(10, 0, 100), dataclasses.replace(SHARED, resumed_from_step=10),
        shared_step(11, 100, 100), RunFinished("completed", 11, 60.0, None),
    ]  # fmt: skip
    assert "50 % and 50 % of the tokens (busiest +0 %)" in shown(events)


def test_a_run_on_several_machines_goes_on_with_its_hostfile() -> None:
    events = [
        dataclasses.replace(STARTED, hosts=["a", "b", "a"]),
        RunFinished("stopped", 1, 1.0, None),
    ]
    text = shown(events)
    assert "shared  by 3 processes: 2 on a, 1 on b\n" in text
    assert "resume /runs/pairs-20261121-1405-3f2a --hosts HOSTFILE\n" in text


# One event as lines


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_has_plain_lines(event: Event) -> None:
    lines = plain_lines(event)
    assert lines
    assert not any("\n" in line or "\x1b" in line for line in lines)


# The other reports


def test_the_quiet_report_shows_the_end_only(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = QuietReport()
    for event in EVENTS:
        quiet.handle(event)
    assert capsys.readouterr().out == f"completed after step 240 in 1 h 02 min: {ADAPTER}\n"


def test_the_json_report_repeats_the_files_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    view = JsonReport()
    for event in EVENTS:
        view.handle(event, writer.write(event))
    writer.close()
    assert capsys.readouterr().out == (tmp_path / "events.jsonl").read_text(encoding="utf-8")
    view.handle(Paused(3))
    assert json.loads(capsys.readouterr().out)["step"] == 3


@pytest.mark.parametrize("output", ["rich", "quiet", "json"])
def test_a_terminal_that_goes_away_does_not_end_the_training(output: str) -> None:
    events = [encode(event) for event in EVENTS]
    code = (
        "import sys, json\n"
        "from orpo_mlx.cli.run_report import build_report\n"
        "from orpo_mlx.runs.events import decode\n"
        f"view = build_report({output!r})\n"
        "lines = json.load(sys.stdin)\n"
        "for line in lines * 20: view.handle(decode(line).event)\n"
        "view.close()\n"
        "sys.stderr.write('survived')"
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], input=json.dumps(events), stdout=writing,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "survived")


def test_a_stdout_that_knows_ascii_only_is_no_obstacle() -> None:
    code = (
        "from orpo_mlx.cli.run_report import build_report\n"
        "from orpo_mlx.cli.terminal import print_text\n"
        "from orpo_mlx.runs.events import NoteLogged\n"
        "build_report().handle(NoteLogged('info', 'caf\\u00e9'))\n"
        "print_text('\\u65e5\\n')"
    )
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=True)
    assert done.stdout == b"note: caf?\n?\n"


def test_downloads_show_one_line_each_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = Console(file=io.StringIO(), width=80, _environ={})
    view = RichReport(console)
    for done in range(0, 101, 10):
        view.progress(done * 10**6, 10**8, "model.safetensors", "bytes")
    file: Any = console.file
    assert file.getvalue() == "download model.safetensors: 100 MB\n"


def test_the_reports_are_chosen_by_name() -> None:
    kinds = {name: type(build_report(name)) for name in ("rich", "quiet", "json")}
    assert kinds == {"rich": RichReport, "quiet": QuietReport, "json": JsonReport}


def test_runs_as_json_are_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    runs.print_runs([RUN], Path("/r"), as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["path"], row["loss"]) == ("pairs-1", "/r/pairs-1", 1.5)
