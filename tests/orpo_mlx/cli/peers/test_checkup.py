"""`doctor --hosts`: this machine twice for real, others by an ssh that is a script on PATH."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.cli import main as command
from orpo_mlx.cli.peers import checkup, speed
from orpo_mlx.cli.peers.checkup import HostsQuestion, iter_parts
from orpo_mlx.config import build_config
from orpo_mlx.diagnostics.hosts import HostAnswer
from orpo_mlx.diagnostics.machine import Fact
from orpo_mlx.distributed.hostfile import PeerHost
from orpo_mlx.distributed.peers import ALONE
from orpo_mlx.distributed.traffic import ring_bytes
from orpo_mlx.errors import TrainingError
from orpo_mlx.planning.fit import MeasuredTime
from orpo_mlx.runs.checkpoints import versions
from orpo_mlx.training import timing

DEMO = Path(command.__file__).parents[1] / "demo"
MODEL, PAIRS = str(DEMO / "model"), str(DEMO / "train.jsonl")

SSH = """\
#!{python}
import os, sys
here = os.path.dirname(__file__)
*options, name, script = sys.argv[1:]
with open(os.path.join(here, "asked"), "a") as file:
    file.write(repr(sys.argv[1:]) + "\\n")
answer = os.path.join(here, name)
if os.path.exists(answer):
    print(open(answer).read())
    sys.exit(0)
if name == "works.local":
    print("Welcome!")
    os.execv("/bin/bash", ["bash", "-c", script])
code, said = {failures!r}[name]
sys.stderr.write(said)
sys.exit(code)
"""
FAILURES = {
    "gone.local": (255, "ssh: connect to host gone.local port 22: Connection refused\n"),
    "bare.local": (127, "bash: python: No such file or directory\n"),
    "without.local": (1, "python: No module named orpo_mlx\n"),
    "broken.local": (2, "error: m: there is no such folder\nGive one.\n"),
}


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH, with an ssh; a file there is what a host of its name
    says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(SSH.format(python=sys.executable, failures=FAILURES))
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The first of three ports that are free."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as server:
            first = server.getsockname()[1]
        try:
            for one in range(first, first + 3):
                socket.create_server(("127.0.0.1", one)).close()
        except OSError:
            continue
        monkeypatch.setattr(speed, "PORT", first)
        return first


def hostfile(folder: Path, *names: str) -> str:
    path = folder / "macs.json"
    path.write_text(json.dumps([{"ssh": name, "ips": ["127.0.0.1"]} for name in names]))
    return str(path)


def said_by(**other: str) -> str:
    """What `doctor --json` prints on a Mac that has this machine's versions, but for some."""
    found = {**versions(), "Python": "3.12.1", **{k.replace("_", "-"): v for k, v in other.items()}}
    content = {name: found.pop(name) for name in ("model", "data") if name in found}
    rows = [("machine", "chip", "Apple M9"), ("machine", "memory", "64 GB")]
    rows += [("versions", name, text) for name, text in found.items()]
    rows += [("content", name, text) for name, text in content.items()]
    lines = [
        json.dumps({"group": g, "name": n, "text": t, "level": "ok", "what_to_do": ""})
        for g, n, t in rows
    ]
    return "\n".join(["Last login: today", *lines])


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict[str, Any]], str]:
    code = command.main(["doctor", "--json", *words])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


# For real


@pytest.mark.usefixtures("port")
def test_this_machine_twice_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = hostfile(tmp_path, "127.0.0.1", "127.0.0.1")
    words = ["--model", MODEL, "--data", PAIRS]
    code, facts, _ = run(capsys, "--hosts", file, *words)
    groups = [fact["group"] for fact in facts]
    assert (code, groups) == (0, ["hosts", "hosts", "content", "content", "link", "gain"])
    assert all(versions()["mlx-lm"] in fact["text"] for fact in facts[:2])
    # Rank 8 on all layers of the demo: the bytes of its adapter, which two processes send once.
    assert "each sends 215 kB" in facts[4]["text"]
    assert "times as fast" in facts[5]["text"]


@pytest.mark.usefixtures("port")
def test_a_host_behind_ssh_is_asked_and_measured(
    tmp_path: Path, ssh: Path, capsys: pytest.CaptureFixture[str]
):
    file = hostfile(tmp_path, "127.0.0.1", "works.local")
    code, facts, _ = run(capsys, "--hosts", file)
    assert code == 0
    assert [fact["name"] for fact in facts] == ["127.0.0.1", "works.local", "ring", "unknown"]
    asked = (ssh / "asked").read_text().splitlines()
    assert len(asked) == 2  # once by the doctor, once by mlx.launch
    assert asked[0].startswith("['-o', 'BatchMode=yes', '-o', 'ConnectTimeout=10', '--', 'works")
    assert "doctor --json" in asked[0]
    assert "doctor --link 20000000" in asked[1].replace("'", "").replace("\\", "")


def test_a_port_in_use_is_said(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]):
    file = hostfile(tmp_path, "127.0.0.1", "127.0.0.1")
    with socket.create_server(("127.0.0.1", port + 2)):
        code, _, err = run(capsys, "--hosts", file)
    assert code == 2
    assert f"127.0.0.1:{port + 2}" in err
    assert f"Ports from {port} to {port + 2} must be free" in err


def test_each_process_of_a_link_must_have_been_started(capsys: pytest.CaptureFixture[str]):
    code, _, err = run(capsys, "--link", "1000")
    assert code == 2
    assert "doctor --hosts macs.json" in err


# What is wrong with a host


@pytest.mark.usefixtures("ssh")
def test_all_that_do_not_answer_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, facts, err = run(capsys, "--hosts", hostfile(tmp_path, *FAILURES))
    assert (code, facts) == (2, [])
    assert "gone.local: cannot be reached (ssh: connect to host gone.local port 22" in err
    assert "`ssh gone.local true` must work without a question" in err
    assert "bare.local: orpo-mlx is not there (bash: python: No such file" in err
    assert "without.local: orpo-mlx is not there (python: No module named" in err
    assert f"needed is {sys.executable}" in err
    assert "broken.local: `orpo-mlx doctor` failed there with exit code 2" in err
    assert "m: there is no such folder" in err


def test_a_host_that_does_not_answer_in_time_is_given_up(
    tmp_path: Path, ssh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (ssh / "ssh").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(checkup, "_ANSWER_SECONDS", 0.1)
    code, _, err = run(capsys, "--hosts", hostfile(tmp_path, "a.local", "b.local"))
    assert code == 2
    assert "a.local: has not answered within 0.1 s" in err
    assert "b.local: has not answered within 0.1 s" in err


def test_without_ssh_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("ssh") is None
    code, _, err = run(capsys, "--hosts", hostfile(tmp_path, "a.local", "b.local"))
    assert code == 2
    assert "there is no ssh here" in err


@pytest.mark.parametrize("name", ["mlx", "mlx_lm", "model", "data"])
def test_what_differs_is_named_with_both_values(
    name: str, tmp_path: Path, ssh: Path, capsys: pytest.CaptureFixture[str]
):
    same = {"model": "sha256 11...", "data": "sha256 22..."}
    (ssh / "first.local").write_text(said_by(**same))
    (ssh / "other.local").write_text(said_by(**{**same, name: "0.1.2"}))
    code, facts, err = run(capsys, "--hosts", hostfile(tmp_path, "first.local", "other.local"))
    assert code == 2
    assert [fact["name"] for fact in facts] == ["first.local", "other.local"]
    shown = name.replace("_", "-")
    right = same.get(name) or versions()[shown]
    assert f"other.local: {shown} is 0.1.2, first.local has {right}" in err
    assert err.count("first.local has") == 1
    assert f"mlx-lm=={versions()['mlx-lm']}" in err


def test_what_is_wrong_with_a_host_by_itself_is_shown(
    tmp_path: Path, ssh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rosetta = Fact("versions", "Python", "3.12.1 (translated by Rosetta)", "error", "Use arm64.")
    (ssh / "first.local").write_text(said_by())
    (ssh / "other.local").write_text(said_by() + "\n" + json.dumps(vars(rosetta)))
    monkeypatch.setattr(checkup, "measured_seconds", lambda hosts, payload: 0.1)
    code, facts, _ = run(capsys, "--hosts", hostfile(tmp_path, "first.local", "other.local"))
    assert code == 1
    assert [fact["level"] for fact in facts[:2]] == ["ok", "error"]
    assert facts[1]["what_to_do"] == "Python: 3.12.1 (translated by Rosetta). Use arm64."


@pytest.mark.parametrize("text", ["{", "[]", '[{"ssh": "a"}, {"ssh": "b"}]', '{"hosts": 3}'])
def test_a_damaged_hostfile_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "macs.json").write_text(text)
    code, _, err = run(capsys, "--hosts", str(tmp_path / "macs.json"))
    assert code == 2
    assert "macs.json: is no hostfile of mlx.launch" in err


# Whether it pays


def gain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone: float, exchange: float) -> Fact:
    """The verdict on two hosts for steps of two micro-batches that are alike."""
    rows = [{"prompt_ids": [5, n], "chosen_ids": [6, 7], "rejected_ids": [8, 9]} for n in range(9)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    answers = [HostAnswer(PeerHost(name, ("10.0.0.1",))) for name in ("a.local", "b.local")]
    time = MeasuredTime(1, alone, alone, 0, 0, 0, 1, 1, alone, 1.0, "packed")
    monkeypatch.setattr(checkup, "ask_hosts", lambda *_: answers)
    monkeypatch.setattr(checkup, "measured_seconds", lambda hosts, payload: exchange)
    monkeypatch.setattr(timing, "measure_time", lambda config: time)
    settings = {
        "model": MODEL, "data": str(tmp_path / "pairs.jsonl"), "valid_fraction": 0,
        "batching": "fixed", "micro_batch_size": 1, "grad_accumulation_steps": 2,
    }  # fmt: skip
    asked = HostsQuestion(hostfile(tmp_path, "a.local", "b.local"), build_config(settings))
    return [fact for part in iter_parts(asked) for fact in part][-1]


def test_half_of_a_step_and_the_exchange_is_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fact = gain(monkeypatch, tmp_path, alone=2.0, exchange=0.25)
    assert fact.level == "ok"
    assert "1.25 s a step instead of 2 s, 1.60 times as fast" in fact.text
    assert "50% of the tokens, and 20% of the time goes to the exchange" in fact.text


def test_an_exchange_as_long_as_what_is_saved_does_not_pay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fact = gain(monkeypatch, tmp_path, alone=2.0, exchange=1.0)
    assert fact.level == "warning"
    assert "1.00 times as fast" in fact.text
    assert "--grad-accumulation-steps" in fact.what_to_do


# The sums


def test_the_speed_of_the_link_is_what_each_sends_by_the_time(
    tmp_path: Path, ssh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    names = [f"{i}.local" for i in range(4)]
    for name in names:
        (ssh / name).write_text(said_by())
    monkeypatch.setattr(checkup, "measured_seconds", lambda hosts, payload: 0.24)
    _, facts, _ = run(capsys, "--hosts", hostfile(tmp_path, *names))
    assert ring_bytes(20_000_000, 4) == 30_000_000
    assert "each sends 30 MB, 1 Gbit/s" in facts[-2]["text"]


def test_a_wrong_sum_is_noticed(monkeypatch: pytest.MonkeyPatch):
    assert len(speed.time_sums(ALONE, 4000)) == 7
    monkeypatch.setattr(type(ALONE), "sum_arrays", lambda self, tree: {"sum": tree["sum"] * 2})
    with pytest.raises(TrainingError, match="a sum over 1 processes is wrong"):
        speed.time_sums(ALONE, 4000)
