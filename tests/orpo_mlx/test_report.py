"""What a person reads: golden texts at 80 columns, and a terminal never harmed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orpo_mlx import report
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import ConfigError
from orpo_mlx.report import (
    JsonReport,
    QuietReport,
    RichReport,
    RunHistory,
    build_report,
    format_bytes,
    format_count,
    format_duration,
    format_error,
    plain_lines,
    runs_table,
    visible,
)
from orpo_mlx.runs.directory import RunDirectory, create_run
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
from orpo_mlx.runs.listing import RunSummary


def step(number: int, seconds: float = 2.0) -> StepCompleted:
    return StepCompleted(
        1.5, 1.4, 0.69, 0.12, -1.1, -1.3, 0.75, 0.2134, step=number, epoch=0.1,
        learning_rate=5e-5, grad_norm=1.0, tokens=1000 * number, tokens_per_second=812.3,
        step_seconds=seconds, peak_memory_bytes=5_412_000_000,
    )  # fmt: skip


def validation(number: int, loss: float, accuracy: float, best: bool = False) -> EvalCompleted:
    return EvalCompleted(
        loss, 1.9, 0.7, 0.1, -1.1, -1.2, accuracy, 0.1, step=number, pairs=5, is_best=best
    )


STARTED = RunStarted(
    "pairs-20261121-1405-3f2a", "Qwen3-0.6B-4bit", "pairs.jsonl", 240, 95, 5, 7_600_000,
    1_240_000_000, {"model": "org/Qwen3-0.6B-4bit", "runs_dir": "/runs"}, {},
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
"""


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


# Time left and slow steps


def test_the_time_left_is_the_median_of_recent_steps_whatever_happened_between() -> None:
    history = RunHistory()
    history.apply(STARTED)
    assert history.seconds_left() == 0
    for number, seconds in ((1, 2.0), (2, 2.0), (3, 100.0), (4, 4.0), (5, 2.0)):
        history.apply(step(number, seconds))
    history.apply(EvalCompleted(*[1.0] * 8, step=5, pairs=5, seconds=500.0))
    assert history.seconds_left() == (240 - 5) * 2.0


def test_a_slow_step_is_judged_by_those_before_it() -> None:
    history = RunHistory()
    for number in range(1, 5):
        history.apply(step(number))
    assert history.slowness(step(5, 100.0)) == 0, "too few to judge"
    history.apply(step(5))
    assert history.slowness(step(6, 6.0)) == 3.0


def test_a_resumed_run_forgets_what_is_computed_again() -> None:
    history = RunHistory()
    for event in (validation(0, 2.1, 0.6), validation(100, 1.0, 0.9), Resumed(50, True)):
        history.apply(event)
    assert list(history.evals) == [0]


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
        "r", "m", "d", 9, 1, 1, 1, 2, {"keep_best": True, "run_dir": "/r"}, {}
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


def test_a_failed_run_names_what_is_saved_and_leaves_the_error_to_stderr() -> None:
    failed = RunFailed("TrainingError", "loss is NaN", "Lower it.", 70, "/runs/x/checkpoints/60")
    text = shown([STARTED, step(60), failed])
    assert "failed at step 70; saved: /runs/x/checkpoints/60\ngo on    orpo-mlx resume" in text
    assert "NaN" not in text


# One event as lines


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_has_plain_lines(event: Event) -> None:
    lines = plain_lines(event)
    assert lines
    assert not any("\n" in line or "\x1b" in line for line in lines)


def test_a_failure_in_plain_lines_has_cause_checkpoint_and_advice() -> None:
    lines = plain_lines(RunFailed("TrainingError", "loss is NaN", "Lower it.", 70, None))
    assert lines == ["failed at step 70: loss is NaN", "last checkpoint: none", "Lower it."]


def test_long_texts_are_cut_at_the_end_that_matters_less() -> None:
    long = " ".join(f"word{number}" for number in range(200))
    pair = {"prompt": long, "chosen": long, "rejected": "x"}
    text = "\n".join(plain_lines(DataPrepared(1, 1, {}, {}, "", {}, pair)))
    prompt, chosen = text.split("chosen")
    assert "word199" in prompt
    assert "word0 " not in prompt
    assert "word0 " in chosen
    assert "word199" not in chosen


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("a\rb\x9bc", "a\\rb\\x9bc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udce9", "\\udce9"),
        ("ünïcödé 日本 🙂\nb", "ünïcödé 日本 🙂\nb"),
    ],
)
def test_text_from_a_model_cannot_control_the_terminal(text: str, safe: str) -> None:
    assert visible(text) == safe


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (format_bytes, 999, "999 B"), (format_bytes, 41e6, "41 MB"),
        (format_bytes, 5.412e9, "5.41 GB"),
        (format_bytes, 999_999, "1 MB"),
        (format_bytes, 128e9, "128 GB"), (format_bytes, 1.5e12, "1500 GB"),
        (format_count, 950, "950"), (format_count, 9999, "9999"), (format_count, 12_345, "12.3 k"),
        (format_count, 7.6e6, "7.6 M"), (format_count, 1.24e9, "1.24 B"),
        (format_duration, 0.04, "0.0 s"), (format_duration, 9.94, "9.9 s"),
        (format_duration, 9.96, "10 s"),
        (format_duration, 59.6, "1 min"), (format_duration, 200, "3 min 20 s"),
        (format_duration, 3570, "1 h 00 min"), (format_duration, 7500, "2 h 05 min"),
    ],
)  # fmt: skip
def test_numbers_are_readable(function: Callable[[float], str], value: float, text: str) -> None:
    assert function(value) == text


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
        "from orpo_mlx.report import build_report\n"
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
        "from orpo_mlx.report import build_report, print_text\n"
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
        view.progress(done * 10**6, 10**8, "model.safetensors")
    file: Any = console.file
    assert file.getvalue() == "download model.safetensors: 100 MB\n"


def test_the_reports_are_chosen_by_name() -> None:
    kinds = {name: type(build_report(name)) for name in ("rich", "quiet", "json")}
    assert kinds == {"rich": RichReport, "quiet": QuietReport, "json": JsonReport}


# Errors and tables


def test_an_error_says_what_is_wrong_first_and_what_to_do_last() -> None:
    error = ConfigError("run.toml, line 4: no value\x1b[2J", "Add one.")
    assert format_error(error) == "error: run.toml, line 4: no value\\x1b[2J\nAdd one.\n"


RUN = RunSummary(
    "pairs-1", Path("/r/pairs-1"), "running", "/models/Qwen", "d", 60, 240, 1.5, 0.75, 0.0
)
UNKNOWN = RunSummary("x", Path("/r/x"), "crashed", None, None, 0, 0, None, None, None)


def test_runs_are_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert runs_table([RUN, UNKNOWN]) == [
        "RUN      STATUS   STEP    LOSS    ACC   STARTED       MODEL",
        "pairs-1  running  60/240  1.5000  75 %  01 Jan 00:00  Qwen",
        "x        crashed  0",
    ]
    assert all(len(line) <= 30 for line in runs_table([RUN, UNKNOWN], width=30))


def test_runs_as_json_are_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_runs([RUN], Path("/r"), as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["path"], row["loss"]) == ("pairs-1", "/r/pairs-1", 1.5)


# The command with a real process behind it

TRAINER = """
import sys, time
from pathlib import Path
from orpo_mlx.runs.control import Inbox
from orpo_mlx.runs.directory import Heartbeat, RunDirectory
from orpo_mlx.runs.events import EventWriter, RunFinished, StepCompleted
run = RunDirectory(Path(sys.argv[1]))
with run.lock():
    inbox, writer = Inbox(run.control_folder), EventWriter(run.events_file)
    Heartbeat(run, 9).beat("running", 1)
    writer.write(StepCompleted(*[0.5] * 8, step=1))
    print("started", flush=True)
    while not any(request.name in ("stop", "abort") for request in inbox.poll()):
        time.sleep(0.01)
    writer.write(RunFinished("stopped", 1, 2.0, None))
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDirectory]:
    """A run in the hands of another process that only obeys."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))
    run = create_run(TrainConfig(model="m", data="d"))
    child = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        try:
            assert child.stdout.readline() == "started\n"
            yield run
        finally:
            child.kill()


def command(*words: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "orpo_mlx", *words)
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_a_running_run_is_listed_asked_watched_and_stopped(trained: RunDirectory) -> None:
    listed = json.loads(command("runs", "--json").stdout)
    assert [(row["id"], row["status"], row["step"]) for row in listed] == [
        (trained.id, "running", 1)
    ]
    asked = command("checkpoint", trained.id[:6])
    assert (asked.returncode, asked.stdout) == (0, f"{trained.id}: saves a checkpoint\n")
    stopped = command("stop", trained.id, "--wait")
    assert (stopped.returncode, stopped.stdout) == (0, f"{trained.id}: stopped\n")
    watched = command("watch", trained.id, "--plain")
    assert watched.returncode == 0
    assert watched.stdout.splitlines()[-1] == "stopped as asked after step 1 in 2.0 s"
    raw = command("watch", trained.id, "--json").stdout
    assert raw == trained.events_file.read_text(encoding="utf-8")
    again = command("stop", trained.id)
    assert again.returncode == 2
    assert "is not running (it is stopped)" in again.stderr


def test_interrupting_a_watch_leaves_the_run_alone(trained: RunDirectory) -> None:
    watch = subprocess.Popen(
        [sys.executable, "-m", "orpo_mlx", "watch", trained.id, "--plain"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert watch.stdout.readline().startswith("step 1")
        watch.send_signal(2)
        assert watch.wait(timeout=30) == 130
        assert watch.stderr.read() == f"stopped watching; run {trained.id} goes on\n"
    assert trained.read_status() == "running"


def test_watching_a_crashed_run_says_so(tmp_path: Path) -> None:
    run = create_run(TrainConfig(run_dir=str(tmp_path / "run")))
    watched = command("watch", str(run.path))
    assert watched.returncode == 1
    assert "its process ended without a word" in watched.stderr


def test_a_closed_pipe_is_silent(tmp_path: Path) -> None:
    for number in range(3):
        create_run(TrainConfig(run_dir=str(tmp_path / f"run-{number}")))
    for words in ("runs --json", "--help", "train --help"):
        line = f"{sys.executable} -m orpo_mlx {words} | true; exit ${{PIPESTATUS[0]}}"
        env = {**os.environ, "ORPO_MLX_HOME": str(tmp_path)}
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, env=env, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
