"""`orpo-mlx train --hosts macs.json`: a run on several machines, by mlx.launch.

mlx.launch ends with 0 also where a process died. Process 0, which runs on this machine, writes its
process id and at its end its exit status to a file, and only that counts.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orpo_mlx.distributed.hostfile import Hostfile, read_hostfile
from orpo_mlx.distributed.world import SECRET
from orpo_mlx.errors import ConfigError, TrainingError

PORT = 32323
"""The first one, as of mlx.launch."""

STATUS = "ORPO_MLX_LAUNCH_STATUS"
"""Environment variable: the file in which process 0 says who it is and how it ended."""


def train_on_hosts(name: str, words: Sequence[str]) -> int:
    """Train on the machines of a hostfile; return the exit status of process 0.

    Args:
        name: the hostfile.
        words: arguments of `python -m orpo_mlx.train`, the same on all machines.

    Raises:
        OrpoError: the file is no hostfile, mlx.launch is not there, or no process began.
    """
    hosts = read_hostfile(name)
    if not hosts.hosts[0].is_here:
        raise ConfigError(
            f"{hosts.path}: its first host {hosts.hosts[0].ssh} is another machine; process 0, "
            "which owns the run, must be on this one",
            "Put this machine first, or start there.",
        )
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-launch-") as folder:
        status = Path(folder) / "status.json"
        program = ["-m", "orpo_mlx.train", *words]
        command = launch_command(hosts, program, {STATUS: str(status)})
        process = subprocess.Popen(command, start_new_session=True)
        with _signals_passed(process.pid, status):
            code = process.wait()
        said = _read(status)
    if "exit_status" in said:
        return int(said["exit_status"])
    ended = "come to an end" if said else "begun; what it wrote is above"
    raise TrainingError(
        f"mlx.launch ended with {code} before process 0 had {ended}",
        "`orpo-mlx doctor --hosts` tells what is wrong with the machines; a run that had begun "
        "goes on with --resume.",
    )


@contextmanager
def reported_status() -> Iterator[list[int]]:
    """Let who started mlx.launch know process 0, and its exit status, put into the list."""
    file, code = os.environ.pop(STATUS, None), []
    if file is None or os.environ.get("MLX_RANK") != "0":  # a peer may be on the same machine
        yield code
        return
    _write(Path(file), {"pid": os.getpid()})
    try:
        yield code
    finally:
        _write(Path(file), {"pid": os.getpid(), "exit_status": code[0] if code else 1})


def launch_command(
    hosts: Hostfile, program: Sequence[str], variables: dict[str, str], port: int = PORT
) -> list[str]:
    """Return the command line by which mlx.launch starts a program of ours on each host.

    Args:
        hosts: of the file.
        program: arguments of this Python, which has the same path everywhere.
        variables: of the environment, besides a secret that lets the processes know each other.
        port: the first one.

    Raises:
        ConfigError: mlx.launch is not there.
    """
    launch = Path(sys.executable).with_name("mlx.launch")
    found = str(launch) if launch.exists() else shutil.which("mlx.launch")
    if found is None:
        raise ConfigError(
            "mlx.launch, which comes with mlx, is not there", "Install mlx again: pip install mlx."
        )
    named = {SECRET: secrets.token_hex(16), **variables}
    given = [word for name, value in named.items() for word in ("--env", f"{name}={value}")]
    place = ["--hostfile", str(hosts.path), "--backend", hosts.backend]
    place += ["--starting-port", str(port)]
    # -P: modules never come from the folder the user stands in.
    return [sys.executable, "-P", found, *place, *given, "--", sys.executable, "-P", *program]


@contextmanager
def _signals_passed(launcher: int, status: Path) -> Iterator[None]:
    """Pass Ctrl-C and SIGTERM on to process 0, which stops all after the step, saved.

    Before it has begun all that was started here ends.
    """

    def handle(number: int, _: Any) -> None:
        with suppress(ProcessLookupError):
            if pid := _read(status).get("pid"):
                os.kill(pid, number)
            else:
                os.killpg(launcher, signal.SIGTERM)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_suffix(".new")
    with suppress(OSError):  # who started this is gone, and its folder with it
        aside.write_text(json.dumps(content), encoding="utf-8")
        aside.replace(path)


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return {}
