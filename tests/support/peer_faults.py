"""Put on PYTHONPATH as sitecustomize: a process with a fault, or of another version.

PEER_FAULT is WHAT or WHAT@DOING: what happens when the process is at DOING the first time; process
0 knows those from "own share" on.
"""

import os
import signal
import sys
import time
from importlib import metadata

WHAT, _, WHERE = os.environ.get("PEER_FAULT", "").partition("@")


def _act():
    if WHAT == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif WHAT == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif WHAT == "hang":
        time.sleep(600)


def _patch():
    from mlx.utils import tree_map

    from orpo_mlx.distributed import exchange, peers, watch

    mark, sums, share, agree, own = (
        watch.Watch.mark,
        exchange.sum_tree,
        peers.Peers.share,
        peers.Peers.agree,
        peers.Peers.own,
    )

    def mark_and_act(self, doing):
        mark(self, doing)
        if WHAT == "slow" and self.is_training is False and doing.startswith("step"):
            time.sleep(0.5)
        if WHERE and doing == WHERE:
            _act()

    def sum_and_act(*args):
        if WHERE == "exchange" and _counted("exchange") == 3:
            _act()
        total = sums(*args)
        if WHAT == "differ" and _counted("sum") == 3:
            return tree_map(lambda array: 0 * array, total)
        return total

    def share_and_act(self, value):
        if WHERE == "share" and not self.is_lead:
            _act()
        return share(self, value)

    def agree_and_act(self, facts):
        is_saving = any("adapter after step" in name for name in facts)
        if WHERE == "saving" and is_saving and _counted("saving") == 2:
            _act()
        return agree(self, facts)

    def own_and_act(self, costs):
        if WHERE == "own share" and _counted("own share") == 4:  # of step 3: one is an evaluation's
            _act()
        return own(self, costs)

    peers.Peers.own = own_and_act
    watch.Watch.mark, exchange.sum_tree = mark_and_act, sum_and_act
    peers.Peers.share, peers.Peers.agree = share_and_act, agree_and_act


_counts = {}


def _counted(name):
    _counts[name] = _counts.get(name, 0) + 1
    return _counts[name]


if WHAT == "version":
    _version = metadata.version
    metadata.version = lambda name: "0.0.1" if name == "mlx" else _version(name)
elif WHAT:

    class _Later:
        """Patches when the program imports the peers: not before it has chosen its folder."""

        def find_spec(self, name, path=None, target=None):
            if name in ("orpo_mlx.training.peer", "orpo_mlx.training.run"):
                sys.meta_path.remove(self)
                _patch()

    sys.meta_path.insert(0, _Later())
