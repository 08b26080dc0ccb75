"""Train several runs, one after the other, as one of the processes of all of them.

    python tests/support/peer_runs.py RANK SIZE PORT FOLDER

FOLDER/cases.json has settings by name; process 0 trains each in FOLDER/NAME-SIZE. One start of the
interpreter serves them all.
"""

import json
import os
import sys
from pathlib import Path

from orpo_mlx.config import TrainConfig
from orpo_mlx.distributed.exchange import connect
from orpo_mlx.distributed.log import PeerLog
from orpo_mlx.distributed.peers import ALONE, Peers
from orpo_mlx.distributed.rendezvous import join, meet
from orpo_mlx.distributed.world import World
from orpo_mlx.training.peer import follow
from orpo_mlx.training.train import train


class KeptPeers(Peers):
    """Peers that are told of the end of a run, and kept for the next one."""

    def close(self):
        if self.is_lead and self.watch.is_training:
            self.watch.is_training = False
            self._tell("order", name="end", content={})


def connected(rank, size, port, folder):
    if size == 1:
        return ALONE
    hosts = folder / f"hosts-{rank}-{size}.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port + 1 + i}"] for i in range(size)]))
    os.environ |= {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}
    world = World(rank, size, ("127.0.0.1", port), ("here",) * size)
    links = [join(world, 120)] if rank else meet(world, 120, lambda: "")
    peers = KeptPeers(world, links, 120)
    peers.sum_numbers([])
    peers.group = connect(world, 120)
    return peers


def main(rank, size, port, folder):
    log = folder / f"log-{rank}-{size}"
    log.touch()
    os.environ["ORPO_MLX_PEER_LOG"] = str(log)
    log, peers = PeerLog(), connected(rank, size, port, folder)
    for name, settings in json.loads((folder / "cases.json").read_text()).items():
        config = TrainConfig(**settings, run_dir=str(folder / f"{name}-{size}"))
        if rank:
            follow(peers, config, log)
        else:
            train(config, peers=peers)
    Peers.close(peers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), Path(sys.argv[4]))
