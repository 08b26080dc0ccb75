"""What process 0 and a peer say to each other, over a pair of sockets in one process."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orpo_mlx.distributed.link import Link
from orpo_mlx.distributed.peers import EndOrdered, Peers
from orpo_mlx.distributed.world import World
from orpo_mlx.errors import PeerLostError, PeerRefusedError


@pytest.fixture
def both():
    """Process 0 and its peer, which prints to a file on a machine of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ends = socket.create_connection(server.getsockname()), server.accept()[0]
    links = [Link(ends[0], 1, "mac2", "/tmp/there.log").start(), Link(ends[1], 0, "mac1").start()]
    worlds = [World(rank, 2, ("mac1", 1), ("mac1", "mac2")) for rank in (0, 1)]
    lead, peer = (Peers(w, [link], 60) for w, link in zip(worlds, links, strict=True))
    yield lead, peer
    lead.close()
    peer.close()


@pytest.fixture
def beside():
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


def test_what_process_0_decides_and_orders_reaches_the_peer(both, beside):
    lead, peer = both
    assert lead.share({"a": [1]}) == {"a": [1]} == peer.share(None)
    lead.order("step", step=3)
    assert peer.next_order() | {"arrived": 0} == {
        "kind": "order", "name": "step", "content": {"step": 3}, "arrived": 0,
    }  # fmt: skip
    found = beside(peer.sum_numbers, [1.0, 0.25])
    assert lead.sum_numbers([2.0, 0.5]) == [3.0, 0.75] == found.result(10)
    lead.close()
    with pytest.raises(EndOrdered):
        peer.next_order()


def test_a_difference_names_process_host_and_both_values(both, beside):
    lead, peer = both
    right, other = {"--seed": 1, "--rank": 8}, {"--seed": 2, "--rank": 8}
    said = beside(peer.agree, other)
    with pytest.raises(PeerRefusedError) as refused:
        lead.agree(right)
    assert "process 1 (mac2) would not train the same run" in refused.value.message
    assert "--seed: process 0 has 1, it has 2" in refused.value.message
    assert "--rank" not in refused.value.message
    lead.close()
    assert isinstance(said.exception(10), EndOrdered)


def lost(lead):
    """Wait until the loss of a peer is known; return the error."""
    until = time.monotonic() + 20
    while time.monotonic() < until and not lead.watch.is_broken:
        time.sleep(0.01)
    with pytest.raises(PeerLostError) as found:
        lead.watch.check()
    return found.value


def test_who_is_lost_is_named_with_what_it_printed_or_where(both):
    lead, peer = both
    peer.close()
    assert lost(lead).message == (
        "process 1 (mac2) is lost: it has ended; what it printed is there in /tmp/there.log"
    )
    lead.watch.last_lines = lambda rank: "  the last line" if rank == 1 else ""
    error = lost(lead)
    assert error.message.endswith("it has ended")
    assert (error.rank, error.last_lines) == (1, "  the last line")


def test_why_a_peer_ended_is_said_by_process_0(both):
    lead, peer = both
    peer.leave(PeerRefusedError("--data: not there", "Put it there."))
    until = time.monotonic() + 20
    while time.monotonic() < until and not lead.watch.is_broken:
        time.sleep(0.01)
    with pytest.raises(PeerRefusedError, match=r"process 1 \(mac2\): --data: not there"):
        lead.watch.check()


def test_of_several_that_are_gone_the_first_one_is_named():
    """Who loses another one ends as well; that is not the reason."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ends = [(socket.create_connection(server.getsockname()), server.accept()[0]) for _ in "12"]
    links = [Link(end, rank, f"mac{rank}").start() for rank, (end, _) in enumerate(ends, 1)]
    lead = Peers(World(0, 3, ("mac0", 1), ("mac0", "mac1", "mac2")), links, 60)
    for rank in (2, 1):
        ends[rank - 1][1].close()
        until = time.monotonic() + 20
        while time.monotonic() < until and not links[rank - 1].lost:
            time.sleep(0.01)
    assert lost(lead).message.startswith("process 2 (mac2) is lost")
    lead.close()
