"""The app in a real terminal (tmux): leave it, kill it, kill the terminal; the training goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orpo_mlx import demo
from orpo_mlx.chat.feedback import labelled_file
from orpo_mlx.runs.directory import RunDirectory

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


class Terminal:
    """One tmux server of its own with one window."""

    def __init__(self, socket: Path) -> None:
        self.socket = str(socket)
        self.pressed = 0

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-S", self.socket, "-f", "/dev/null", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def open(self, command: str, size: tuple[int, int] = (80, 24)) -> None:
        width, height = map(str, size)
        self.tmux("new-session", "-d", "-x", width, "-y", height, f"{command}; exec cat")

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.pressed += 1
            self.tmux("send-keys", key)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def text(self) -> str:
        return self.tmux("capture-pane", "-p")

    def wait(self, condition: Callable[[str], object], seconds: float = 60) -> str:
        deadline = time.monotonic() + seconds
        while not condition(text := self.text()):
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        return text

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "tmux")
    yield terminal
    terminal.close()


def app(runs_dir: Path) -> str:
    root = Path(__file__).parents[2]
    # A size in the environment, as some shells and programs leave it, must not stick.
    begin = f"cd {root} && export COLUMNS=80 LINES=24"
    return f"{begin} && {sys.executable} -m tui --runs-dir {runs_dir} --calm"


def pid_of_app(terminal: Terminal) -> int:
    """The process of the app itself, not of the shell around it."""
    pane = int(terminal.tmux("display-message", "-p", "#{pane_pid}"))
    found = [pane_process := psutil.Process(pane), *pane_process.children(recursive=True)]
    apps = []
    for one in found:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            apps += [one.pid] if one.cmdline()[1:3] == ["-m", "tui"] else []
    (app,) = apps
    return app


def test_a_window_made_too_small_says_so_and_recovers(
    terminal: Terminal, trainer: RunDirectory, runs_dir: Path
):
    terminal.open(app(runs_dir))
    terminal.wait(lambda text: "run-a running" in text)
    terminal.keys("Enter")
    terminal.wait(lambda text: "RUNNING" in text and "Log-odds" in text)
    terminal.tmux("resize-window", "-x", "40", "-y", "10")
    terminal.wait(lambda text: "needs at least 60x16" in " ".join(text.split()))
    terminal.tmux("resize-window", "-x", "100", "-y", "30")
    terminal.wait(lambda text: "RUNNING" in text and "Log-probs" in text)
    assert trainer.is_locked()


def test_detach_reattach_kill_the_app_and_the_terminal(
    terminal: Terminal, trainer: RunDirectory, runs_dir: Path, tmp_path: Path
):
    terminal.open(app(runs_dir))
    terminal.wait(lambda text: "run-a running" in text)
    terminal.keys("Enter")
    terminal.wait(lambda text: "RUNNING" in text and "Log-odds" in text)
    terminal.keys("q")
    terminal.wait(lambda text: "Detach and quit" in text)
    terminal.keys("Enter")
    terminal.wait(lambda text: "Detach" not in text and "RUNNING" not in text)
    assert trainer.is_locked()
    terminal.close()

    again = Terminal(tmp_path / "again")
    try:
        again.open(app(runs_dir))
        again.wait(lambda text: "run-a running" in text)
        victim = pid_of_app(again)
        os.kill(victim, signal.SIGKILL)
        again.wait(lambda text: "Killed" in text)
        assert not psutil.pid_exists(victim)
        assert trainer.is_locked()
    finally:
        again.close()
    assert trainer.is_locked()
    before = trainer.events_file.stat().st_size
    deadline = time.monotonic() + 30
    while trainer.events_file.stat().st_size == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert os.path.exists(trainer.config_file)


def test_half_a_line_waits_for_its_other_half(
    terminal: Terminal, make_run: Callable[..., RunDirectory], runs_dir: Path
):
    run = make_run(steps=40)
    lines = run.events_file.read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if b'"StepCompleted"' in line)
    half = len(lines[last]) // 2
    run.events_file.write_bytes(b"".join(lines[:last]) + lines[last][:half])
    terminal.open(app(runs_dir))
    terminal.wait(lambda text: "run-a crashed" in text)
    terminal.keys("Enter")
    terminal.wait(lambda text: "39/40" in text and "Loss" in text)
    with run.events_file.open("ab") as file:
        file.write(lines[last][half:])
    terminal.wait(lambda text: "40/40" in text)


def test_wrong_files_are_named_and_the_right_one_goes_on(
    terminal: Terminal, runs_dir: Path, tmp_path: Path
):
    wrong = {
        "none.jsonl": (None, "no such file"),
        "binary.jsonl": (bytes(range(128, 256)) * 40, "not UTF-8"),
        "cut.jsonl": (b'{"prompt": "a", "chosen": "b"', "cut.jsonl:1"),
        "empty.jsonl": (b"", "empty"),
    }
    for name, (content, _) in wrong.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    shutil.copy(demo.train_path(), tmp_path / "right.jsonl")
    terminal.open(app(runs_dir), (100, 30))
    terminal.wait(lambda text: "Try the demo" in text)
    terminal.keys("n")
    terminal.wait(lambda text: "built-in demo model" in text)
    terminal.keys("Enter")
    terminal.wait(lambda text: "[2 Data]" in text)
    typed = ""
    for name, says in [
        *((name, says) for name, (_, says) in wrong.items()),
        ("right.jsonl", "200"),
    ]:
        terminal.keys(*["BSpace"] * len(typed))
        typed = str(tmp_path / name)
        terminal.type(typed)
        terminal.wait(lambda text, name=name: name in text)
        terminal.keys("Enter")
        text = terminal.wait(lambda text, says=says: says in text.split("[2 Data]")[-1])
        assert "Traceback" not in text
    terminal.keys("C-n")
    terminal.wait(lambda text: "[3 Settings]" in text)


PATIENCE_SECONDS = 400
"""For what a model is loaded or trained for; a busy machine is slow, not wrong."""


def back_to(terminal: Terminal, title: str) -> None:
    """Press escape until a screen is there; its title is in the first line."""

    def first_line(text: str) -> str:
        return text.partition("\n")[0]

    while title not in (before := first_line(terminal.text())):
        terminal.keys("Escape")
        terminal.wait(lambda text, before=before: first_line(text) != before)


def ask_server(address: str, path: str, question: dict | None = None) -> dict:
    """A request of another program; its answer."""
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(f"{address}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", [(80, 24), (160, 48)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_newcomer_goes_the_whole_way_by_keys_alone(
    terminal: Terminal,
    runs_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
):
    """Demo, live, result, chat, test, export, a new run from this one, compare, serve."""
    monkeypatch.setenv("HOME", str(tmp_path))  # exports go there unless another folder is chosen
    terminal.open(app(runs_dir), size)
    terminal.wait(lambda text: "Try the demo" in text)
    terminal.keys("Enter")
    terminal.wait(lambda text: "RUNNING" in text and "Loss" in text, PATIENCE_SECONDS)
    result = "orpo-mlx · Result"
    terminal.wait(lambda text: result in text and "held-out pairs" in text, PATIENCE_SECONDS)
    terminal.keys("C")
    terminal.wait(lambda text: "F7 both" in text, PATIENCE_SECONDS)
    terminal.keys("H", "i", "Enter")
    terminal.wait(lambda text: "Right better" in text, PATIENCE_SECONDS)
    assert terminal.pressed <= 6, "keys from the welcome to an answer of the adapter"
    terminal.keys("F7")
    terminal.wait(lambda text: "F7 adapter" in text)
    terminal.keys("?", "Enter")
    terminal.wait(lambda text: "F5 Dislike" in text, PATIENCE_SECONDS)
    terminal.keys("F5")
    terminal.wait(lambda text: "Disliked" in text)
    (row,) = map(json.loads, labelled_file().read_text().splitlines())
    assert row["label"] is False
    assert row["prompt"][-1]["content"] == "?"

    back_to(terminal, result)
    terminal.keys("t")
    terminal.wait(lambda text: text.count("tokens, ") == 2, PATIENCE_SECONDS)
    terminal.keys("C-r")
    terminal.wait(lambda text: "vs base" in text, PATIENCE_SECONDS)

    back_to(terminal, result)
    terminal.keys("e")
    terminal.wait(lambda text: "[x] mlx" in text)
    terminal.keys("C-r")
    terminal.wait(lambda text: "mlx_lm" in text, PATIENCE_SECONDS)
    (exported,) = (tmp_path / "orpo-mlx").rglob("adapters.safetensors")
    (trained,) = runs_dir.glob("*/adapter/adapters.safetensors")
    assert exported.read_bytes() == trained.read_bytes()

    back_to(terminal, result)
    terminal.keys("n")
    terminal.wait(lambda text: "beginning with" in text)
    terminal.keys("Enter")
    terminal.wait(lambda text: "[3 Settings]" in text)
    terminal.keys("C-n")
    terminal.wait(lambda text: "200 pairs train, 40 validate" in text, PATIENCE_SECONDS)
    terminal.keys("C-r")
    terminal.wait(lambda text: "RUNNING" in text and "Loss" in text, PATIENCE_SECONDS)
    terminal.wait(lambda text: result in text, PATIENCE_SECONDS)
    one, other = [path.parent.parent for path in runs_dir.glob("*/adapter/adapters.safetensors")]
    first, second = (RunDirectory(run).read_config() for run in (one, other))
    assert first.model_dump(exclude={"run_dir"}) == second.model_dump(exclude={"run_dir"})

    back_to(terminal, "orpo-mlx · Runs")
    terminal.wait(lambda text: text.count("25/25") >= 2)
    terminal.keys("c")
    # Runs has both words, too: its footer names Compare.
    terminal.wait(lambda text: "Compare · " in text and text.count("completed") == 2)
    back_to(terminal, "orpo-mlx · Runs")
    terminal.keys("v")
    text = terminal.wait(lambda text: "/v1" in text, PATIENCE_SECONDS)
    address = re.search(r"http://127\.0\.0\.1:\d+/v1", text)[0]
    names = [model["id"] for model in ask_server(address, "/models")["data"]]
    assert names[0] in (one.name, other.name)
    question = {"model": names[0], "messages": [{"role": "user", "content": "Hi"}]}
    answer = ask_server(address, "/chat/completions", question)
    assert answer["choices"][0]["message"]["content"].strip()
    terminal.wait(lambda text: f"200  {names[0]}"[:20] in text)
    victim = psutil.Process(pid_of_app(terminal))
    terminal.keys("q")
    terminal.wait(lambda text: "End the server?" in text)
    terminal.keys("Right", "Enter")
    victim.wait(PATIENCE_SECONDS)
    with pytest.raises(OSError, match="refused"):
        ask_server(address, "/models")
