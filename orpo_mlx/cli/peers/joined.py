"""A training command's other processes: started here, or by mlx.launch."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.distributed.launch import start_peers
from orpo_mlx.distributed.log import PeerLog, last_lines
from orpo_mlx.distributed.peers import ALONE, EndOrdered, Peers
from orpo_mlx.distributed.rendezvous import join, meet
from orpo_mlx.distributed.world import World, read_world
from orpo_mlx.errors import ConfigError, OrpoError


@contextmanager
def joined_peers(
    processes: int, words: Sequence[str], seconds: float, say: Callable[[str], None]
) -> Iterator[Peers]:
    """Give process 0 its peers, connected; the run of one process has none.

    Args:
        processes: to start on this machine, this one included; 1: those mlx.launch has started.
        words: arguments of a started peer.
        seconds: after which a peer that is silent is given up.
        say: told of the phase.

    Raises:
        OrpoError: one does not come, or a port is taken.
    """
    world = read_world(os.environ)
    if world and processes > 1:
        raise ConfigError(
            f"--processes {processes}: mlx.launch has started {world.size} processes already",
            "Leave out --processes.",
        )
    if world is None and processes == 1:
        yield ALONE
        return
    with ExitStack() as stack:
        started = None
        if world is None:
            world, started = stack.enter_context(start_peers(processes, words))
        say(f"waiting for {world.size - 1} more of {world.size} processes, {seconds:g} s at most")
        links = meet(world, seconds, started.died if started else lambda: None)
        peers = Peers(world, links, seconds)
        stack.callback(peers.close)
        if started:
            started.have_joined, peers.watch.abandon = True, started.kill
            peers.watch.last_lines = lambda rank: last_lines(started.log_of(rank))
        say(f"connecting {world.size} processes; this ends after {seconds:g} s at most")
        connect(peers, world)
        yield peers


def connect(peers: Peers, world: World) -> None:
    """Have MLX connect all processes, which have met."""
    from orpo_mlx.distributed.exchange import connect

    peers.sum_numbers([])
    peers.group = connect(world, peers.timeout)


def run_peer(world: World, settings: Callable[[], TrainConfig | None]) -> int:
    """Be a peer until process 0 ends the run; return the exit code. Nothing is printed.

    Args:
        world: of this process.
        settings: reads those given to this process.
    """
    from orpo_mlx.training.peer import follow

    log = PeerLog()
    peers: Peers | None = None
    try:
        own, problem = _given(settings)
        seconds = own.peer_timeout if own else 60.0
        peers = Peers(world, [join(world, seconds, str(log.path))], seconds)
        peers.watch.tell = peers.leave
        _pass_signals(peers)
        if problem:
            raise problem
        connect(peers, world)
        follow(peers, own, log)
        return 0
    except EndOrdered:
        return 0
    except OrpoError as error:
        sys.stderr.write(f"error: {error}\n")
        return _left(peers, error)
    except Exception as error:
        traceback.print_exc()
        return _left(peers, error)
    finally:
        if peers:
            peers.close()


def _given(
    settings: Callable[[], TrainConfig | None],
) -> tuple[TrainConfig | None, OrpoError | None]:
    try:
        return settings(), None
    except OrpoError as error:
        return None, error


def _left(peers: Peers | None, error: BaseException) -> int:
    if peers:
        peers.leave(error)
    return error.exit_code if isinstance(error, OrpoError) else 1


def _pass_signals(peers: Peers) -> None:
    """Process 0 decides when the run stops; this process ends when it does, or is gone."""

    def terminate(*_: Any) -> None:
        peers.pass_signal("SIGTERM")

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
