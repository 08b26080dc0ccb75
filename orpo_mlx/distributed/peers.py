"""What training asks of the other processes of a run; a run of one process has none and asks none.

Process 0 leads: it shares what it decides, orders what is next, and ends the others. Before arrays
are exchanged all processes have said here that they are ready, so that nobody waits inside MLX for
one that is slow, and a loss is met where the run can still be saved. What may yet hang in there the
watch ends.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from orpo_mlx.distributed.allotment import allot
from orpo_mlx.distributed.link import Link, Message
from orpo_mlx.distributed.watch import AGAIN, Watch
from orpo_mlx.distributed.world import World
from orpo_mlx.errors import OrpoError, PeerRefusedError

_LOOK = 0.2
"""Seconds between two looks at the others while one waits for a message."""


class Peers:
    """The other processes of a run.

    Args:
        world: who there is; None: nobody else.
        links: of process 0 to all others by rank, of another to process 0.
        timeout: seconds after which one that is silent or does not get on is given up.

    Attributes:
        group: MLX's, once the processes are connected.
        watch: whether all get on.
        wait_seconds: how long the first to be ready waited for the last, since `take_times`.
    """

    def __init__(
        self, world: World | None = None, links: Sequence[Link] = (), timeout: float = 60.0
    ) -> None:
        self.rank = world.rank if world else 0
        self.size = world.size if world else 1
        self.timeout = timeout
        self.group: Any = None
        self.wait_seconds = 0.0
        self._links = list(links)
        self.watch = Watch(self.rank, self._links, timeout)

    @property
    def hosts(self) -> list[str]:
        """Where each process runs, as process 0 knows it."""
        return [socket.gethostname(), *(link.host for link in self._links)]

    @property
    def is_lead(self) -> bool:
        """Whether this process owns the run."""
        return self.rank == 0

    @property
    def signal(self) -> str:
        """A signal that some peer was sent, "" if none."""
        return next((link.signal for link in self._links if link.signal), "")

    def own(self, costs: Sequence[int]) -> list[int]:
        """Return the places of the micro-batches, of these tokens, that this process computes."""
        owners = allot(costs, self.size)
        return [place for place, owner in enumerate(owners) if owner == self.rank]

    # --- what process 0 decides

    def share(self, value: Any) -> Any:
        """Return process 0's value in all processes; JSON."""
        if self.is_lead:
            self._tell("share", value=value)
            return value
        return self._next("share")["value"]

    def order(self, name: str, **content: Any) -> None:
        """Have the peers do something; a run of one process has none to order."""
        self.watch.mark(name)
        self.watch.check()
        self._tell("order", name=name, content=content)

    def next_order(self) -> Message:
        """Return, in a peer, what process 0 wants next."""
        return self._next("order")

    def agree(self, facts: dict[str, Any]) -> None:
        """Go on only if all processes have the same facts; JSON values by name.

        Raises:
            PeerRefusedError: naming the process and each difference; process 0's are right.
        """
        if not self.is_lead:
            self._links[0].send("facts", facts=facts)
            self._next("agreed")
            return
        for link in self._links:
            found = self._from(link, "facts")["facts"]
            if wrong := _differences(facts, found):
                raise PeerRefusedError(
                    f"process {link.rank} ({link.host}) would not train the same run:\n"
                    + "\n".join(wrong),
                    "Give all processes the same settings, model, data and versions of orpo-mlx, "
                    "mlx and mlx-lm, then start again.",
                )
        self._tell("agreed")

    # --- sums

    def sum_numbers(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all processes, added up in the order of ranks, float64.

        Nobody returns before all have come.
        """
        own = [float(value) for value in values]
        if self.size == 1:
            return own
        self.watch.mark(self.watch.doing)
        if not self.is_lead:
            self._links[0].send("numbers", values=own)
            return self._next("sum")["values"]
        arrivals = [time.monotonic()]
        for link in self._links:
            message = self._from(link, "numbers")
            arrivals.append(message["arrived"])
            own = [a + b for a, b in zip(own, message["values"], strict=True)]
        self.wait_seconds += max(arrivals) - min(arrivals)
        self._tell("sum", values=own)
        return own

    def sum_arrays(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Return the sums of evaluated arrays over all processes; all must have come."""
        if self.size == 1:
            return tree
        from orpo_mlx.distributed.exchange import sum_tree

        with self.watch.exchange():
            return sum_tree(tree, self.group)

    def copy_arrays(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Return process 0's arrays in all processes, bit for bit; all have the same shapes."""
        if self.size == 1:
            return tree
        from orpo_mlx.distributed.exchange import copy_tree

        self.sum_numbers([])
        with self.watch.exchange():
            return copy_tree(tree, self.group)

    # --- the end

    def pass_signal(self, name: str) -> None:
        """Tell process 0 of a signal that this one was sent."""
        self._links[0].send("signal", name=name)

    def leave(self, error: BaseException) -> None:
        """Tell process 0, from a peer, why this one ends."""
        known = isinstance(error, OrpoError)
        self._links[0].send(
            "failed",
            message=error.message if known else f"{type(error).__name__}: {error}",
            what_to_do=error.what_to_do if known else AGAIN,
            exit_code=error.exit_code if known else 1,
        )

    def take_times(self) -> tuple[float, float]:
        """Return the seconds waited and those of exchanges since the last call."""
        times = self.wait_seconds, self.watch.exchange_seconds
        self.wait_seconds = self.watch.exchange_seconds = 0.0
        return times

    def close(self) -> None:
        """Let the others go."""
        if self.is_lead and self._links:
            self._tell("order", name="end", content={})
        self.watch.close()
        for link in self._links:
            link.close()

    # --- messages

    def _tell(self, kind: str, **content: Any) -> None:
        for link in self._links:
            link.send(kind, **content)

    def _next(self, kind: str) -> Message:
        """Return, in a peer, the next message of process 0; it ends this process at any time."""
        message = self._from(self._links[0], kind)
        if message["kind"] == "order" and message["name"] == "end":
            raise EndOrdered
        return message

    def _from(self, link: Link, kind: str) -> Message:
        """Wait for a message of one peer, while all are looked at."""
        began = time.monotonic()
        while True:
            taken = link.take(_LOOK)
            self.watch.wake()
            if taken is not None:
                message, arrived = taken
                is_end = message["kind"] == "order" and message.get("name") == "end"
                if message["kind"] != kind and not (is_end and not self.is_lead):
                    link.lose(f"it said {message['kind']} where {kind} was due")
                    raise self.watch.loss(link)
                self.watch.waited(began)
                return {**message, "arrived": arrived}
            self.watch.check()
            self.watch.require_movement(link, began)


class EndOrdered(Exception):
    """Process 0 has no more work for this peer."""


ALONE = Peers()
"""Of a run of one process."""


def _differences(right: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [
        f"  {name}: process 0 has {_shown(right.get(name))}, it has {_shown(found.get(name))}"
        for name in sorted({*right, *found})
        if right.get(name) != found.get(name)
    ]


def _shown(value: Any) -> str:
    is_digest = isinstance(value, str) and len(value) == 64 and value.isalnum()
    return value[:12] if is_digest else repr(value)[:80]
