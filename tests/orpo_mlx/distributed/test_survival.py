"""Runs of several processes whose peers die, stop, hang or were given something else."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fakes.hub_server import HubServer
from support.hub import client_environment
from support.ports import free_ports

from orpo_mlx.runs.checkpoints import damage, iter_checkpoints
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import CheckpointSaved, NoteLogged, RunFailed, read_events

SUPPORT = Path(__file__).parents[2] / "support"
PATIENCE = 240
SETTINGS = {
    "steps": 8, "micro-batch-size": 2, "grad-accumulation-steps": 3, "rank": 2, "num-layers": -1,
    "learning-rate": 5e-3, "valid-fraction": 0.25, "eval-every": 4, "save-every": 4,
    "sample-prompts": 0, "drift-every": 0, "report-every": 1, "seed": 3, "batching": "fixed",
}  # fmt: skip


@pytest.fixture
def words(model_folder, pairs_file):
    """Return `words(run, **changes)`: arguments of a training of a few steps."""
    data = pairs_file(48)

    def build(run, **changes):
        named = {"model": model_folder, "data": data, "run-dir": run, "peer-timeout": 60}
        named |= SETTINGS | {name.replace("_", "-"): value for name, value in changes.items()}
        pairs = [(f"--{name}", str(value)) for name, value in named.items()]
        return [*(word for pair in pairs for word in pair), "--no-evaluate"]

    return build


@pytest.fixture
def faults(tmp_path):
    """Return the environment in which a process has a fault."""
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults/sitecustomize.py").symlink_to(SUPPORT / "peer_faults.py")
    return lambda what: {"PEER_FAULT": what, "PYTHONPATH": str(tmp_path / "faults")}


@pytest.fixture
def start(tmp_path):
    """Return `start(words by rank, environment by rank)`: processes as mlx.launch starts them."""
    running = []

    def begin(words, environments=None, ports=None):
        size = len(words)
        first = ports or free_ports(size + 1)
        hosts = tmp_path / f"hosts-{len(running)}.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{first + i}"] for i in range(size)]))
        for rank, given in enumerate(words):
            environment = {**os.environ, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}
            running.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "orpo_mlx.train", *given],
                    env=environment | (environments or {}).get(rank, {}),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return running[-size:]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def ended(process):
    """Wait for a process; return its exit status and what it wrote to stderr."""
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors


def adapter_of(run):
    return (run / "adapter/adapters.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed():
    """Remember the adapter of the uninterrupted run of two processes."""
    return {}


@pytest.fixture
def whole(undisturbed, words, start, tmp_path):
    """Return the bytes that a run of two processes ends with when nothing happens to it."""
    if "adapter" not in undisturbed:
        first, second = start([words(tmp_path / "whole")] * 2)
        assert ended(first)[0] == 0
        assert ended(second) == (0, "")
        undisturbed["adapter"] = adapter_of(tmp_path / "whole")
    return undisturbed["adapter"]


def require_whole_when_resumed(run, whole, start):
    """Check what is left of a run, resume it with two processes, compare its end."""
    assert all(damage(path) is None for path in iter_checkpoints(run / "checkpoints"))
    first, second = start([["--resume", str(run)]] * 2)
    code, errors = ended(first)
    assert code == 0, errors
    assert ended(second) == (0, "")
    assert adapter_of(run) == whole


SLOW = pytest.mark.slow  # of a kind that another one stands for in the quick set


@pytest.mark.parametrize(
    "fault",
    [
        "stop@exchange",
        "die@saving",
        *(
            pytest.param(fault, marks=SLOW)
            for fault in (
                "die@step 3",
                "stop@step 3",
                "hang@step 3",
                "die@exchange",
                "die@evaluating",
            )
        ),
    ],
)
def test_a_lost_peer_ends_the_run_saved_and_named(fault, words, faults, start, whole, tmp_path):
    run = tmp_path / "run"
    timeout = 60 if fault.startswith("die") else 8
    given = words(run, peer_timeout=timeout)
    began = time.monotonic()
    first, second = start([given] * 2, {1: faults(fault)})
    code, errors = ended(first)
    assert code == 1, errors
    assert "process 1 (" in errors
    assert "resume" in errors
    if fault.startswith("hang"):
        assert ended(second)[0] == 1  # nobody has to look for what is left of it
    assert "Traceback" not in errors
    found = [record.event for record in read_events(run / "events.jsonl")]
    (failed,) = [event for event in found if isinstance(event, RunFailed)]
    assert (failed.kind, failed.peer) == ("peer", 1)
    assert "Its last lines:" not in failed.message
    if failed.last_lines:
        assert f"Its last lines:\n{failed.last_lines}" in errors
    assert failed.last_checkpoint
    saved = [event.step for event in found if isinstance(event, CheckpointSaved)]
    assert saved[-1] == failed.step  # nothing that was computed is lost
    assert time.monotonic() - began < PATIENCE
    require_whole_when_resumed(run, whole, start)


@pytest.mark.parametrize("fault", ["die@share", "die@reading the data"])
def test_a_peer_that_dies_before_the_first_step_leaves_no_run(
    fault, words, faults, start, tmp_path
):
    first, _ = start([words(tmp_path / "run")] * 2, {1: faults(fault)})
    code, errors = ended(first)
    assert code == 1, errors
    assert "process 1 (" in errors, errors
    assert not (tmp_path / "run").exists()


@SLOW
@pytest.mark.parametrize("phase", ["own share", "saving", "evaluating"])
def test_a_first_process_that_hangs_ends_itself_and_its_peer(
    phase, words, faults, start, whole, tmp_path
):
    """Its heart beats meanwhile, and nothing that it holds half done is saved."""
    run = tmp_path / "run"
    first, second = start([words(run, peer_timeout=8)] * 2, {0: faults(f"hang@{phase}")})
    code, errors = ended(first)
    assert code == 1, errors
    assert "process 0 (" in errors
    assert "has not got on for" in errors
    assert "orpo-mlx resume" in errors or phase == "evaluating", errors
    assert ended(second) == (1, "")
    found = [record.event for record in read_events(run / "events.jsonl")]
    (failed,) = [event for event in found if isinstance(event, RunFailed)]
    assert (failed.kind, failed.peer) == ("peer", 0)
    saved = [event.step for event in found if isinstance(event, CheckpointSaved)]
    assert saved == {"own share": [0], "saving": [0], "evaluating": []}[phase]
    if saved:
        require_whole_when_resumed(run, whole, start)


@SLOW
def test_an_exchange_that_never_ends_ends_all_of_them_saved(words, faults, start, whole, tmp_path):
    """All hearts beat, and nobody is lost: so would a deadlock inside MLX look."""
    run = tmp_path / "run"
    first, second = start([words(run, peer_timeout=8)] * 2, {1: faults("hang@exchange")})
    code, errors = ended(first)
    assert code == 1, errors
    assert "the exchange of arrays between the processes has not ended" in errors
    assert ended(second)[0] == 1
    found = [record.event for record in read_events(run / "events.jsonl")]
    saved = [event.step for event in found if isinstance(event, CheckpointSaved)]
    assert saved == [0, 2]
    require_whole_when_resumed(run, whole, start)


@SLOW
def test_a_slow_peer_changes_nothing(words, faults, start, whole, tmp_path):
    given = words(tmp_path / "run")
    first, second = start([given] * 2, {1: faults("slow")})
    assert [ended(first)[0], ended(second)[0]] == [0, 0]
    assert adapter_of(tmp_path / "run") == whole


@pytest.mark.parametrize(
    ("change", "named"),
    [({"learning_rate": 1e-4}, "--learning-rate: process 0 has 0.005, it has 0.0001"),
     ({"data": None}, "--data"), ({"seed": 4}, "--seed")],
)  # fmt: skip
def test_a_peer_with_something_else_is_refused(change, named, words, start, pairs_file, tmp_path):
    if "data" in change:
        other = tmp_path / "other.jsonl"
        other.write_text(Path(words("run")[3]).read_text().replace("a", "e", 1))
        change = {"data": other}
    run = tmp_path / "run"
    first, second = start([words(run), words(run, **change)])
    code, errors = ended(first)
    assert code == 2, errors
    assert named in errors, errors
    assert "process 1 (" in errors, errors
    assert ended(second)[1] == ""
    assert not run.exists()


def test_a_peer_of_another_version_is_refused(words, faults, start, tmp_path):
    first, _ = start([words(tmp_path / "run")] * 2, {1: faults("version")})
    code, errors = ended(first)
    assert code == 2, errors
    assert "version of mlx" in errors, errors
    assert "0.0.1" in errors, errors


def test_a_peer_whose_adapter_went_astray_is_named_at_the_next_checkpoint(
    words, faults, start, tmp_path
):
    run = tmp_path / "run"
    first, second = start([words(run)] * 2, {1: faults("differ")})
    code, errors = ended(first)
    assert code == 2, errors
    assert "process 1 (" in errors, errors
    assert "adapter after step 4: process 0 has" in errors, errors
    assert ended(second) == (0, "")
    assert [int(path.name) for path in iter_checkpoints(run / "checkpoints")] == [0]


@SLOW
def test_all_take_the_commits_that_process_0_has_found(words, start, model_folder, tmp_path):
    """Both branches move on before the peer, whose cache is empty, asks for them."""
    rows = Path(words("run")[3]).read_bytes()
    with HubServer() as before, HubServer() as after:
        changed = rows.replace(b"a", b"e")
        old = (
            before.add_model("who/tiny", model_folder),
            before.add_dataset("who/pairs", {"train.jsonl": rows}),
        )
        new = (
            after.add_model("who/tiny", model_folder, LICENSE=b"more"),
            after.add_dataset("who/pairs", {"train.jsonl": changed}),
        )
        for known, moved in zip(old, new, strict=True):
            moved.others[known.sha] = known
        given = words(tmp_path / "run", model="who/tiny", data="who/pairs", steps=1)
        environments = {
            rank: client_environment(server, tmp_path / f"cache-{rank}")
            for rank, server in enumerate((before, after))
        }
        first, second = start([given] * 2, environments)
        code, errors = ended(first)
        assert code == 0, errors
        assert ended(second) == (0, "")
        asked = "\n".join(path for _, path in after.requests)
    for known, moved in zip(old, new, strict=True):
        assert known.sha in asked
        assert f"resolve/{moved.sha}" not in asked


def test_bad_input_of_a_peer_is_said_by_the_first(words, start, tmp_path):
    run = tmp_path / "run"
    first, second = start([words(run), words(run, data=tmp_path / "not-there.jsonl")])
    code, errors = ended(first)
    assert code == 2, errors
    assert "process 1 (" in errors, errors
    assert "not-there.jsonl" in errors, errors
    assert ended(second) == (2, "")


def test_a_peer_that_does_not_come_is_named(words, start, tmp_path):
    first, second = start([words(tmp_path / "run", peer_timeout=3)] * 2)
    second.kill()
    code, errors = ended(first)
    assert code == 1, errors
    assert "process 1 (127.0.0.1): did not come within 3 s" in errors, errors


@SLOW
def test_without_a_first_process_a_peer_ends_by_itself(words, start, tmp_path):
    first, second = start([words(tmp_path / "run", peer_timeout=3)] * 2)
    first.kill()
    assert ended(second) == (1, "")


@SLOW
def test_a_first_process_that_stood_still_ends_saved_its_peer_before(words, start, whole, tmp_path):
    run = tmp_path / "run"
    first, second = start([words(run, peer_timeout=8)] * 2)
    await_step(run, first)
    first.send_signal(signal.SIGSTOP)
    assert ended(second) == (1, "")
    first.send_signal(signal.SIGCONT)
    code, errors = ended(first)
    assert code == 1, errors
    assert "process 1 (" in errors, errors
    require_whole_when_resumed(run, whole, start)


@SLOW
def test_all_that_stood_still_together_go_on(words, start, whole, tmp_path):
    """As on a machine that was asleep: longer than a peer may be silent."""
    run = tmp_path / "run"
    both = start([words(run, peer_timeout=5)] * 2)
    await_step(run, both[0])
    for signal_sent, seconds in ((signal.SIGSTOP, 12), (signal.SIGCONT, 0)):
        for process in both:
            process.send_signal(signal_sent)
        time.sleep(seconds)
    code, errors = ended(both[0])
    assert code == 0, errors
    assert ended(both[1]) == (0, "")
    assert adapter_of(run) == whole


@SLOW
def test_a_paused_run_is_not_taken_for_one_that_hangs(words, start, whole, tmp_path):
    run = tmp_path / "run"
    both = start([words(run, peer_timeout=5)] * 2)
    await_step(run, both[0])
    send_request(RunDirectory(run), "pause")
    time.sleep(12)
    send_request(RunDirectory(run), "resume")
    code, errors = ended(both[0])
    assert code == 0, errors
    assert ended(both[1]) == (0, "")
    assert "Paused" in (run / "events.jsonl").read_text()
    assert adapter_of(run) == whole


@pytest.mark.parametrize("taken", [pytest.param(0, marks=SLOW), pytest.param(1, marks=SLOW), 2])
def test_a_port_in_use_is_named(taken, words, start, tmp_path):
    ports = free_ports(3)
    with socket.create_server(("127.0.0.1", ports + taken)):
        given = words(tmp_path / "run", peer_timeout=10)
        first, _ = start([given] * 2, ports=ports)
        code, errors = ended(first)
    assert code == 2, errors
    assert "--starting-port" in errors, errors
    assert "Traceback" not in errors, errors


# --- started by itself


def command(*words):
    return [sys.executable, "-P", "-m", "orpo_mlx.train", *words]


def test_processes_are_started_and_ended_with_the_run(words, whole, tmp_path):
    run = tmp_path / "run"
    given = words(run)
    first = subprocess.Popen(
        command(*given, "--processes", "2"), stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    code, errors = ended(first)
    assert code == 0, errors
    assert adapter_of(run) == whole
    log = (run / "peers/process-1.log").read_text()
    assert "tokenizing the pairs" in log


HERE = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}


@pytest.fixture
def hostfile(tmp_path):
    path = tmp_path / "macs.json"
    path.write_text(json.dumps({"backend": "ring", "hosts": [HERE, HERE]}))
    return path


def test_hosts_are_reached_by_mlx_launch(hostfile, words, whole, tmp_path):
    run = tmp_path / "run"
    done = subprocess.run(
        command(*words(run), "--hosts", str(hostfile)), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert adapter_of(run) == whole


def test_a_peer_that_dies_under_mlx_launch_is_no_success(hostfile, words, faults, tmp_path):
    run = tmp_path / "run"
    environment = {**os.environ, **faults("die@step 3"), "PEER_FAULT": "die@step 3"}
    done = subprocess.run(
        command(*words(run), "--hosts", str(hostfile)), capture_output=True, text=True,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "process 1 (" in done.stderr


@pytest.mark.parametrize(
    "hosts",
    [[HERE], {"hosts": 3}, [HERE, {"ssh": "other"}], [HERE, {"ssh": "-x", "ips": ["10.0.0.1"]}],
     [HERE, {"ssh": "other", "ips": ["ten"]}], {"hosts": [HERE, HERE], "backend": "mpi"},
     [{"ssh": "elsewhere.example", "ips": ["203.0.113.9"]}, HERE]],
)  # fmt: skip
def test_a_wrong_hostfile_is_refused(hosts, hostfile, words, tmp_path):
    hostfile.write_text(json.dumps(hosts))
    given = command(*words(tmp_path / "run"), "--hosts", str(hostfile))
    done = subprocess.run(given, capture_output=True, text=True)
    assert done.returncode == 2
    assert str(hostfile) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("who", ["--processes", "--hosts"])
def test_ctrl_c_stops_all_after_the_step_and_the_run_goes_on(
    who, hostfile, words, start, whole, tmp_path
):
    run = tmp_path / "run"
    given = {"--processes": "2", "--hosts": str(hostfile)}[who]
    first = subprocess.Popen(
        command(*words(run), who, given),
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not steps_of(run):
            assert first.poll() is None
            time.sleep(0.05)
        peers = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGINT)
        code, errors = ended(first)
    finally:
        first.kill()
    assert code == 130, errors
    assert not any(peer.is_running() for peer in peers)
    require_whole_when_resumed(run, whole, start)


@pytest.mark.slow
def test_a_signal_to_a_peer_stops_all(words, start, whole, tmp_path):
    run = tmp_path / "run"
    first, second = start([words(run)] * 2)
    await_step(run, first)
    second.send_signal(signal.SIGTERM)
    assert [ended(first)[0], ended(second)[0]] == [130, 0]
    require_whole_when_resumed(run, whole, start)


def test_resuming_with_another_number_goes_on_and_says_so(words, faults, start, tmp_path):
    run = tmp_path / "run"
    first, _ = start([words(run)] * 2, {1: faults("die@step 3")})
    assert ended(first)[0] == 1
    alone = subprocess.run(command("--resume", str(run)), capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    notes = [
        r.event.text for r in read_events(run / "events.jsonl") if isinstance(r.event, NoteLogged)
    ]
    assert any("2 processes made the checkpoint, now there is 1" in note for note in notes)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_forty_kills_of_any_process_change_nothing(words, tmp_path):
    chance = random.Random(7)
    given = [*words(tmp_path / "whole", steps=60, save_every=5), "--processes", "3"]
    began = time.monotonic()
    assert subprocess.run(command(*given), capture_output=True).returncode == 0
    seconds = time.monotonic() - began
    run = tmp_path / "run"
    given[given.index("--run-dir") + 1] = str(run)
    kills = 0

    def next_command():
        if list(iter_checkpoints(run / "checkpoints")):
            return command("--resume", str(run), "--processes", "3")
        shutil.rmtree(run, ignore_errors=True)
        return command(*given)

    while kills < 40:
        process = subprocess.Popen(
            next_command(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        kill_one(process, chance.uniform(0, seconds), chance)
        code, errors = ended(process)
        kills += code != 0
        assert code != 2, errors
        if RunDirectory(run).last_status() == "completed":  # before the kill: once more
            assert adapter_of(run) == adapter_of(tmp_path / "whole")
            shutil.rmtree(run)
            continue
        assert "Traceback" not in errors
        assert all(damage(path) is None for path in iter_checkpoints(run / "checkpoints"))
    assert subprocess.run(next_command(), capture_output=True).returncode == 0
    assert adapter_of(run) == adapter_of(tmp_path / "whole")


def kill_one(process, seconds, chance):
    """Kill the first process, or a peer of it, after some seconds; those left end by themselves."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    with contextlib.suppress(psutil.NoSuchProcess):
        peers = psutil.Process(process.pid).children()
        chance.choice([psutil.Process(process.pid), *peers]).kill()
        _, alive = psutil.wait_procs(peers, timeout=PATIENCE)
        assert not alive


def await_step(run, process):
    """Wait until a run has made a step."""
    while not steps_of(run):
        assert process.poll() is None
        time.sleep(0.05)


def steps_of(run):
    try:
        return (run / "events.jsonl").read_text().count('"StepCompleted"')
    except OSError:
        return 0
