"""How fast the link between the processes of a run is, measured with a few sums."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from orpo_mlx.cli.peers.hosts import PORT, launch_command
from orpo_mlx.cli.peers.joined import connect
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.distributed.hostfile import Hostfile
from orpo_mlx.distributed.peers import Peers
from orpo_mlx.distributed.rendezvous import join, meet
from orpo_mlx.distributed.traffic import NUMBER_BYTES
from orpo_mlx.distributed.world import read_world
from orpo_mlx.errors import ConfigError, PeerRefusedError, TrainingError
from orpo_mlx.text.formatting import visible

PATIENCE = 60.0
"""Seconds that the processes wait for one another."""
_SUMS = 7
_MARK = "link_seconds"


def measured_seconds(hosts: Hostfile, payload: int) -> float:
    """Return the median time of a sum of so many bytes over the hosts, started by mlx.launch.

    Raises:
        PeerRefusedError: they do not come together, with what was said of it.
    """
    program = ["-m", "orpo_mlx", "doctor", "--link", str(payload)]
    code, output = _launched(launch_command(hosts, program, {}, PORT))
    for line in output.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            return statistics.median(json.loads(line)[_MARK])
    said = "\n".join(f"  {visible(line)}" for line in output.splitlines()[-8:] if line.strip())
    ended = "has not ended in time" if code is None else "did not measure the link"
    raise PeerRefusedError(
        f"{hosts.path}: mlx.launch reached the hosts and {ended}" + (f":\n{said}" if said else ""),
        f"Ports from {PORT} to {PORT + len(hosts.hosts)} must be free on the hosts and open "
        "between them, at the addresses (ips) of the file; see docs/several-macs.md.",
    )


def _launched(command: Sequence[str]) -> tuple[int | None, str]:
    """Run mlx.launch; return its exit code, None if it was ended, and all that was said."""
    # An input that ends, or has ended, keeps mlx.launch busy.
    reading, writing = os.pipe()
    process = subprocess.Popen(
        list(command), stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=3 * PATIENCE)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]
    finally:
        if process.poll() is None:  # interrupted
            os.killpg(process.pid, signal.SIGKILL)
        os.close(reading)
        os.close(writing)


def measure_as_process(payload: int) -> int:
    """Be one of the processes that mlx.launch has started; process 0 prints the times as JSON.

    Raises:
        ConfigError: nobody started several processes.
        OrpoError: one of them does not come.
    """
    world = read_world(os.environ)
    if world is None:
        raise ConfigError(
            "--link: there is one process only, and no link",
            "`orpo-mlx doctor --hosts macs.json` starts them, and measures.",
        )
    links = [join(world, PATIENCE)] if world.rank else meet(world, PATIENCE, lambda: None)
    peers = Peers(world, links, PATIENCE)
    try:
        connect(peers, world)
        times = time_sums(peers, payload)
        if peers.is_lead:
            print_text(json.dumps({_MARK: times}) + "\n")
        return 0
    finally:
        peers.close()


def time_sums(peers: Peers, payload: int) -> list[float]:
    """Return how long each of a few sums took, from when all were ready; the first is left out.

    Args:
        peers: connected.
        payload: bytes of the vector.

    Raises:
        TrainingError: a sum is wrong.
    """
    import mlx.core as mx

    count, times = max(1, payload // NUMBER_BYTES), []
    own = mx.full((count,), peers.rank + 1.0)
    mx.eval(own)
    for _ in range(_SUMS + 1):
        peers.sum_numbers([])
        began = time.perf_counter()
        total = peers.sum_arrays({"sum": own})["sum"]
        mx.eval(total)
        times.append(time.perf_counter() - began)
        if not mx.all(total == peers.size * (peers.size + 1) / 2):
            raise TrainingError(
                f"a sum over {peers.size} processes is wrong", "Report this; do not train over it."
            )
    peers.sum_numbers([])
    return times[1:]
