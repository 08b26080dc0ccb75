"""`orpo-mlx chat` with a real (tiny) model: pipes, a person, prompts of a file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orpo_mlx.__main__ import main as program
from orpo_mlx.chat.feedback import labelled_file, pairs_file
from orpo_mlx.chat.prompt_set import saved_prompts_file
from orpo_mlx.runs.checkpoints import iter_checkpoints
from orpo_mlx.runs.directory import RunDirectory


@pytest.fixture
def chat(trained, capfd, monkeypatch):
    """Return `chat(*words, lines=...) -> (code, stdout, stderr)` with lines from a pipe."""

    def run(*words: object, lines: str = "") -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode("latin-1"))))
        code = program(["chat", *map(str, words)])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def test_each_line_of_a_pipe_is_a_turn_and_commands_work(trained, chat, tmp_path):
    lines = "Hi\n\n/better left\n/adapter\nHo\n/dislike\n/keep\n/save {}\n/quit\nnever\n"
    code, out, _ = chat(
        trained.orpo.path, "--max-tokens", "4", "--temperature", "0", "--system", "Be brief.",
        lines=lines.format(tmp_path / "talk.json"),
    )  # fmt: skip
    kept = [pairs_file(), labelled_file(), saved_prompts_file()]
    talk = json.loads((tmp_path / "talk.json").read_text())
    assert [exchange["user"] for exchange in talk["exchanges"]] == ["Hi", "Ho"]
    first = talk["exchanges"][0]["answers"]
    assert f"base: {first['base']}\nadapter: {first['adapter']}\n" in out
    assert talk["exchanges"][0]["drawn"]["checkpoint"] == "final"
    assert f"\n{talk['exchanges'][1]['answers']['adapter']}\n" in out
    assert [path.exists() for path in kept] == [False, True, True]  # what is cut is not better
    assert code == 2
    (row,) = map(json.loads, labelled_file().read_text().splitlines())
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user", "assistant", "user"]


def test_a_training_takes_what_a_chat_has_kept(trained, chat, tmp_path):
    lines = "".join(f"Say {i}.\n/correct It is {i}.\n/new\n" for i in range(4))
    code, *_ = chat(trained.orpo.path, "--max-tokens", "3", lines=lines)
    assert code == 0
    words = ["--model", str(trained.model), "--data", str(pairs_file()), "--steps", "1"]
    words += ["--micro-batch-size", "2", "--run-dir", str(tmp_path / "next"), "--no-evaluate"]
    assert program(["train", *words]) == 0
    kept = json.loads(pairs_file().read_text().splitlines()[0])
    assert kept["chosen"] == [{"role": "assistant", "content": "It is 0."}]


def test_what_is_refused_is_said_and_the_next_line_taken(trained, chat):
    lines = "/nothing\nH\xff\n/seed 4\n"
    code, out, err = chat(trained.orpo.path, "--max-tokens", "3", lines=lines)
    assert code == 2
    assert "error: /nothing: there is no such command" in err
    assert "cut after 3 tokens; /max-tokens allows more" in err
    assert out.count("base: ") == out.count("adapter: ") == 1
    assert out.endswith("Seed 4.\n")


def test_a_talk_beyond_the_context_is_refused_and_a_cut_answer_said_once(trained, chat):
    lines = f"Hi\n{'a' * 600}\n/new\n{'a' * 600}\nHi\n"
    code, out, err = chat(trained.orpo.path, "--max-tokens", "2", lines=lines)
    assert code == 2
    assert out.count("base: ") == out.count("adapter: ") == 2
    assert err.count("the model's context is 512 tokens") == 2
    assert err.count("/edit") == 1  # of a single turn there is none to say again
    assert err.count("cut after 2 tokens") == 2  # once for both sides


def test_another_checkpoint_answers(trained, chat):
    first, *_, newest = names_of(trained.orpo)
    talk = ("--temperature", "0", "--max-tokens", "4")
    lines = f"/adapter\nHi\n/checkpoint {first}\n/new\nHi\n/checkpoint 99\n"
    code, out, err = chat(trained.orpo.path, *talk, lines=lines)
    assert code == 2
    assert f"checkpoint 99: there is none of this name.\nFound: {first}, " in err
    by_final, switched, _, by_first = out.splitlines()[1:]
    assert switched == f"Checkpoint {first} answers."
    for name, text in ((newest, by_final), (first, by_first)):
        words = (trained.orpo.path, *talk, "--checkpoint", name)
        assert chat(*words, lines="/adapter\nHi\n")[1].splitlines()[1] == text


def names_of(run: RunDirectory) -> list[str]:
    """The steps of a run's checkpoints, oldest first."""
    return [str(int(path.name)) for path in sorted(iter_checkpoints(run.checkpoints_folder))]


def test_a_model_alone_is_talked_with(trained, chat):
    code, out, _ = chat("--model", trained.model, "--max-tokens", "2", lines="Hi\n")
    assert code == 0
    assert "adapter" not in out


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_ctrl_c_stops_the_answers_and_twice_the_program(trained, chat, monkeypatch, times):
    asked = []

    def handle(place, request, say, goes_on):
        asked.append(request["sides"])
        for _ in range(times):
            assert goes_on() == (_ == 0)
            signal.raise_signal(signal.SIGINT)
        assert not goes_on()
        figures = {"text": "It", "tokens": 1, "ended": False}
        say({"event": "answered", "sides": {request["sides"][0]: figures}})

    monkeypatch.setattr("orpo_mlx.serving.playground.handle", handle)
    code, out, err = chat(trained.orpo.path, lines="Hi\n/seed 1\n")
    assert asked == [["base"]]  # the other side is not begun any more
    assert code == (0 if times == 1 else 130)
    assert ("Seed 1." in out) == (times == 1)
    assert "cut after" not in err


@pytest.mark.slow
def test_a_person_stops_an_answer_and_leaves(trained, tmp_path):
    ours, theirs = pty.openpty()
    words = ["chat", str(trained.orpo.path), "--max-tokens", "100000", "--temperature", "5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "orpo_mlx", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    try:
        os.close(theirs)
        assert "final: base and adapter answer" in until(ours, "\r\n> ")
        os.write(ours, b"Hi\n")
        until(ours, "base: ")
        process.send_signal(signal.SIGINT)
        os.write(ours, b"/seed 4321\n")
        until(ours, "Seed 4321.\r\n> ")  # the answer has ended, another line was taken
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)  # one that comes just as the prompt is written is lost
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def until(terminal: int, text: str) -> str:
    """Read what is written until a text comes; the test's own limit ends a wait in vain."""
    seen = ""
    while text not in seen:
        seen += os.read(terminal, 4096).decode("utf-8", "replace")
    return seen


def test_prompts_are_asked_of_base_and_every_checkpoint(trained, chat, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Hi\nWhat is it?\n")
    words = (trained.orpo.path, "--ask", prompts, "--max-tokens", "40")
    code, out, _ = chat(*words, "--checkpoints", "--json")
    content = json.loads(out)
    assert code == 0
    names = names_of(trained.orpo)
    assert len(names) > 1
    assert content["sides"] == ["base", *names, "final"]
    assert [asked["prompt"] for asked in content["prompts"]] == ["Hi", "What is it?"]
    alone = json.loads(chat("--model", trained.model, *words[1:], "--json")[1])
    for asked, again in zip(content["prompts"], alone["prompts"], strict=True):
        answers = asked["answers"]
        assert list(answers) == content["sides"]
        assert answers["base"] == again["answers"]["base"]
        assert answers[names[-1]] == answers["final"]  # the result is the last checkpoint
    first = json.loads(chat(*words, "--checkpoint", names[0], "--json")[1])
    assert first["sides"] == ["base", names[0]]
    by_first = [asked["answers"][names[0]] for asked in first["prompts"]]
    assert by_first == [asked["answers"][names[0]] for asked in content["prompts"]]
    assert by_first != [asked["answers"]["final"] for asked in content["prompts"]]
    code, out, _ = chat(*words)
    assert out.count("  base     |") == out.count("  final    |") == 2
    assert "step" not in out


def test_the_kept_prompts_are_asked(trained, chat):
    code, _, err = chat(trained.orpo.path, "--ask", "saved")
    assert code == 2
    assert "no prompts are kept yet" in err
    _, out, _ = chat(trained.orpo.path, "--max-tokens", "2", lines="Hi\n/keep\n/ask\n")
    assert "prompt 1 of 1  Hi\n  base      " in out
    assert "\n  final     " in out
    code, out, _ = chat(trained.orpo.path, "--ask", "saved", "--max-tokens", "2")
    assert code == 0
    assert out.startswith("prompt 1 of 1  Hi\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which run?"),
        (["r", "--model", "m"], "only one"),
        (["--adapter", "a", "r"], "of which model"),
        (["--model", "m", "--checkpoint", "1"], "only a run"),
        (["r", "--json"], "goes with --ask"),
        (["r", "--checkpoints"], "goes with --ask"),
        (["r", "--ask", "p", "--seed", "1"], "likeliest token"),
        (["r", "--ask", "p", "--checkpoint", "1", "--checkpoints"], "one of both"),
        (["--model", "m", "--ask", "p", "--checkpoints"], "only a run"),
        (["r", "--temperature", "warm"], "needs a number"),
        (["r", "--seed", "-1"], "needs a whole number"),
        (["r", "--max-tokens", "0"], "needs a whole number"),
        (["r", "--ask", "none.jsonl"], "no such file"),
        (["no-such-run"], "there is no run"),
    ],
)
def test_what_makes_no_sense_is_refused_with_advice(chat, words, message):
    code, _, err = chat(*words)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) >= 2


def test_a_file_without_prompts_is_refused(trained, chat, tmp_path: Path):
    for name, content in (("a.txt", "\n \n"), ("b.jsonl", '{"prompt": ""}\n')):
        (tmp_path / name).write_text(content)
        code, _, err = chat(trained.orpo.path, "--ask", tmp_path / name)
        assert code == 2
        assert name in err
