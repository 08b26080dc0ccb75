"""`orpo-mlx judge` from its words to its result, with a real (tiny) model."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import sys
from collections.abc import Iterator

import pytest

from orpo_mlx.__main__ import main as program

SHORT = ("--pairs", "10", "--max-tokens", "8")


@pytest.fixture
def judge(capfd, tmp_path):
    """Return `judge(*words) -> (code, stdout, stderr)`, with a journal of the test's own."""

    def run(*words: object, journal: bool = True) -> tuple[int, str, str]:
        capfd.readouterr()
        besides = ["--journal", str(tmp_path / "judge")] if journal else []
        code = program(["judge", *map(str, words), *besides])
        said = capfd.readouterr()
        assert "Traceback" not in said.err or "--debug" in words
        return code, said.out, said.err

    return run


@pytest.fixture
def typed() -> Iterator[int]:
    """The end of a terminal that keys are written to; the other one is the standard input."""
    keys, terminal = pty.openpty()
    before = os.dup(0)
    os.dup2(terminal, 0)
    try:
        yield keys
    finally:
        os.dup2(before, 0)
        for end in (keys, terminal, before):
            os.close(end)


def test_a_person_judges_leaves_and_goes_on(trained, judge, typed):
    os.write(typed, b"12q")
    code, out, _ = judge(trained.orpo.path, *SHORT)
    assert code == 0
    result = out.split("\x1b[2J\x1b[H")[-1].split("quit; all is kept\n")[-1]
    assert f"base     {trained.model}" in result
    assert "adapter  orpo" in result
    assert "judge    a person" in result
    assert "prompts  10 held-out prompts, drawn from 12\nrows    24 read, 24 kept, 0" in result
    assert "the same command goes on" in result
    assert re.search(r"length   base \d\.\d tokens \(\d+ cut\), adapter", result)
    os.write(typed, b"t" * 8)
    code, out, err = judge(trained.orpo.path, *SHORT, "--json")
    assert code == 0
    found = json.loads(out)  # the screens went elsewhere
    assert "PROMPT" in err
    assert found["counts"]["left"] == 0
    assert found["counts"]["judged"] == 10
    assert found["counts"]["ties"] >= 8
    assert found["win_rate"]["low"] < found["win_rate"]["value"] < found["win_rate"]["high"]
    assert (found["judge"], found["seed"], found["compared"]) == (
        "a person", 0, ["base", "adapter"]
    )  # fmt: skip


def test_a_pipe_is_told_each_phase(trained, judge):
    _, _, err = judge(trained.orpo.path, *SHORT, "--judge-model", trained.model)
    said = [line.split(" ...")[0] for line in err.splitlines() if "(after " in line]
    assert said == [
        "reading the data", "tokenizing the pairs", "loading the weights", "answering prompts",
        "judging",
    ]  # fmt: skip


def test_a_server_judges_two_runs(trained, judge, fakes, tmp_path, monkeypatch):
    monkeypatch.setenv("ORPO_MLX_JUDGE_KEY", "sk-very-secret-1234")
    words = (trained.orpo.path, "--against", trained.sft.path, *SHORT, "--judge-name", "big")
    with fakes("chat_server").ChatServer(lambda _: "B") as server:
        code, out, _ = judge(*words, "--judge-url", server.url)
        assert code == 0
        same = out.count("\n") and int((re.search(r"\((\d+) ties are equal", out) or [0, 0])[1])
        assert len(server.asked) == 2 * (10 - same)
    assert "won      0, tied 10, lost 0" in out
    assert "win rate 50.0 %" in out
    assert (
        "no difference could be shown: answers of orpo won 50 % of 10 comparisons with sft" in out
    )
    code, out, err = judge(*words, "--judge-url", server.url, "--seed", "1", "--json", "--debug")
    assert code == 2
    failed = json.loads(out)
    assert "cannot be reached" in failed["message"]
    assert "sk-very-secret-1234" not in out + err + "".join(
        path.read_text() for path in (tmp_path / "judge").iterdir()
    )


def test_a_server_that_is_not_there_is_found_before_anything_is_answered(
    trained, judge, tmp_path, monkeypatch
):
    monkeypatch.setattr("orpo_mlx.judging.contest.read_weights", lambda _: pytest.fail("loaded"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    code, out, err = judge(trained.orpo.path, *SHORT, "--judge-name", "big", "--judge-url", url)
    assert (code, out) == (2, "")
    assert f"--judge-url {url}/chat/completions: cannot be reached" in err
    assert "Start the server, or check the address" in err
    (journal,) = (tmp_path / "judge").iterdir()
    assert len(journal.read_text().splitlines()) == 1  # its header


def test_what_is_judged_is_shown_again_without_the_server(trained, judge, fakes):
    words = (trained.orpo.path, *SHORT, "--judge-name", "big", "--judge-url")
    with fakes("chat_server").ChatServer(lambda _: "A") as server:
        _, first, _ = judge(*words, server.url)
    assert judge(*words, server.url)[:2] == (0, first)


def test_the_journal_of_a_run_lies_in_its_folder(trained, judge, copy_folder, typed):
    run = copy_folder(trained.orpo.path, "orpo")
    os.write(typed, b"q")
    code, out, _ = judge(run, *SHORT, journal=False)
    assert code == 0
    (journal,) = (run / "judge").iterdir()
    assert f"journal  {journal}" in out
    os.write(typed, b"q")
    before = journal.read_bytes()
    code, _, _ = judge(run, *SHORT, "--force", journal=False)
    assert code == 0
    assert journal.read_bytes() == before  # the same answers, made again


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which run"),
        (["RUN"], "not a terminal"),
        (["RUN", "--judge-model", "m", "--judge-url", "http://h"], "only one of both"),
        (["RUN", "--judge-url", "http://h"], "which of its models"),
        (["RUN", "--judge-name", "x"], "none is given"),
        (["RUN", "--judge-tokens", "9"], "none is given"),
        (["RUN", "--judge-url", "http://h", "--judge-name", "x", "--judge-tokens", "0"], "from 1"),
        (["RUN", "--pairs", "9"], "from 10"),
        (["RUN", "--model", "m"], "both a run and --model"),
        (["--model", "m", "--data", "d"], "nothing to compare"),
        (["RUN", "--judge-model", "no/such folder"], "no/such folder"),
        (["RUN", "--judge-url", "ftp://h", "--judge-name", "x"], "no address"),
    ],
)
def test_bad_words_are_refused(trained, judge, words, says, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = [str(trained.orpo.path) if word == "RUN" else word for word in words]
    journal = "--model" not in words[:1]
    code, out, err = judge(*words, journal=journal)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.strip().splitlines()) >= 2
    assert sys.stdin is not None


def test_a_model_without_a_run_needs_a_place_for_the_journal(trained, judge):
    words = ["--model", trained.model, "--data", trained.valid, "--adapter",
             trained.orpo.adapter_folder]  # fmt: skip
    code, _, err = judge(*words, journal=False)
    assert code == 2
    assert "--journal FOLDER" in err
