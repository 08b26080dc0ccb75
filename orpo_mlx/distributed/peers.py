"""What training asks of the other processes of a run; a run of one process has none and asks none.

Process 0 leads: it shares what it decides, orders what is next, and ends the others. Before arrays
are exchanged all processes have said here that they are ready, so that nobody waits inside MLX for
one that is slow, and a loss is met where the run can still be saved. What may yet hang in there is
ended from a thread; so is process 0 itself where it no longer gets on.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from orpo_mlx.distributed.allotment import allot
from orpo_mlx.distributed.link import Link, Message
from orpo_mlx.distributed.world import World
from orpo_mlx.errors import OrpoError, PeerLostError, PeerRefusedError

_GRACE = 5.0
"""Seconds that MLX gets to notice itself that a peer is gone."""

_LOOK = 0.2
"""Seconds between two looks at the others while one waits for a message."""

AGAIN = "See to it, then resume the run: `orpo-mlx resume RUN` with the same processes."


class Peers:
    """The other processes of a run.

    Args:
        world: who there is; None: nobody else.
        links: of process 0 to all others by rank, of another to process 0.
        timeout: seconds after which one that is silent or does not get on is given up.

    Attributes:
        group: MLX's, once the processes are connected.
        is_training: whether all are in step, so that one that does not get on has hung.
        on_stuck: called, from a thread, where this process hangs; returns what `tell` is called
            with, and then the process ends.
        abandon: ends, then too, what was started for this run.
        last_lines: gives what a peer wrote last, "" where that is not known here.
        wait_seconds: how long the first to be ready waited for the last, since `take_times`.
        exchange_seconds: how long arrays travelled, likewise.
    """

    def __init__(
        self, world: World | None = None, links: Sequence[Link] = (), timeout: float = 60.0
    ) -> None:
        self.rank = world.rank if world else 0
        self.size = world.size if world else 1
        self.timeout = timeout
        self.group: Any = None
        self.is_training = False
        self.on_stuck: Callable[[OrpoError], BaseException] = lambda error: error
        self.tell: Callable[[BaseException], None] = lambda error: None
        self.abandon: Callable[[], None] = lambda: None
        self.last_lines: Callable[[int], str] = lambda rank: ""
        self.wait_seconds = self.exchange_seconds = 0.0
        self._links = list(links)
        self._progress, self._doing = 0, "starting"
        self._moved = self._awake = time.monotonic()
        self._exchange_began = self._longest_wait = 0.0
        self._is_ending = False
        # Held from the decision to end on, so that who hung and wakes up does not go on meanwhile.
        self._fate = threading.Lock()
        self._closing = threading.Event()
        if self._links:
            threading.Thread(target=self._watch, name="orpo-mlx-peers", daemon=True).start()

    @property
    def hosts(self) -> list[str]:
        """Where each process runs, as process 0 knows it."""
        return [socket.gethostname(), *(link.host for link in self._links)]

    @property
    def is_lead(self) -> bool:
        """Whether this process owns the run."""
        return self.rank == 0

    @property
    def is_broken(self) -> bool:
        """Whether one of them is gone, or this one is about to end."""
        return self._is_ending or bool(self._gone)

    @property
    def _gone(self) -> list[Link]:
        """Those who are gone, the first one first: its end explains the others'."""
        gone = [link for link in self._links if link.gone_at is not None]
        return sorted(gone, key=lambda link: link.gone_at or 0.0)

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
        self.mark(name)
        self.check()
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
        self.mark(self._doing)
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

        with self._exchange():
            return sum_tree(tree, self.group)

    def copy_arrays(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Return process 0's arrays in all processes, bit for bit; all have the same shapes."""
        if self.size == 1:
            return tree
        from orpo_mlx.distributed.exchange import copy_tree

        self.sum_numbers([])
        with self._exchange():
            return copy_tree(tree, self.group)

    # --- life and death

    def mark(self, doing: str) -> None:
        """Say that this process gets on with its work, and what it is at."""
        with self._fate:
            now = time.monotonic()
            self._longest_wait = max(self._longest_wait, now - self._moved)
            self._progress += 1
            self._doing, self._moved, self._awake = doing, now, now

    def expect_movement(self) -> None:
        """From now on all are in step: one that does not get on has hung."""
        self.mark("running")
        self.is_training, self._longest_wait = self.size > 1, 0.0

    def check(self) -> None:
        """Look whether all are there.

        Raises:
            PeerRefusedError: one of them found bad input.
            PeerLostError: one of them is gone.
        """
        if gone := self._gone:
            raise self._loss(gone[0])

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
        times = self.wait_seconds, self.exchange_seconds
        self.wait_seconds = self.exchange_seconds = 0.0
        return times

    def close(self) -> None:
        """Let the others go."""
        if self.is_lead and self._links:
            self._tell("order", name="end", content={})
        self._closing.set()
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
            self._awake = time.monotonic()
            if taken is not None:
                message, arrived = taken
                is_end = message["kind"] == "order" and message.get("name") == "end"
                if message["kind"] != kind and not (is_end and not self.is_lead):
                    link.lose(f"it said {message['kind']} where {kind} was due")
                    raise self._loss(link)
                self._longest_wait = max(self._longest_wait, time.monotonic() - began)
                return {**message, "arrived": arrived}
            self.check()
            if self.is_training:
                self._require_movement(link, began)

    def _require_movement(self, awaited: Link, began: float) -> None:
        moved = max([began, self._moved, *(link.moved for link in self._links)])
        still = time.monotonic() - moved
        # Where all are slow a wait of a few earlier ones' length is none of a hang.
        if still > max(self.timeout, 3 * self._longest_wait):
            awaited.lose(
                f"it has not got on for {still:.0f} s, nor has any other; it was last at "
                f"{awaited.doing} (--peer-timeout gives it more time)"
            )
            raise self._loss(awaited)

    def _loss(self, link: Link) -> OrpoError:
        who = f"process {link.rank} ({link.host})"
        if failure := link.failure:
            kind = PeerRefusedError if failure["exit_code"] == 2 else PeerLostError
            error = kind(f"{who}: {failure['message']}", failure["what_to_do"])
        else:
            lines = self.last_lines(link.rank)
            there = f"; what it printed is there in {link.log}" if link.log and not lines else ""
            error = PeerLostError(f"{who} is lost: {link.lost}{there}", AGAIN)
            error.last_lines = lines
        error.rank = link.rank
        return error

    # --- the thread that looks at all

    def _watch(self) -> None:
        pause = min(1.0, self.timeout / 10)
        looked = time.monotonic()
        while not self._closing.wait(pause):
            now = time.monotonic()
            if now - looked > pause + _GRACE:
                self._stood_still(now)
            looked = now
            for link in self._links:
                link.send("beat", progress=self._progress, doing=self._doing)
                if now - link.heard > self.timeout:
                    link.lose(f"nothing was heard of it for {self.timeout:g} s")
            with self._fate:
                if error := self._stuck(now, pause):
                    self._end_stuck(error)

    def _stood_still(self, now: float) -> None:
        """Begin to count anew: this process was stopped, and the others may have been as well."""
        with self._fate:
            self._moved = self._awake = now
            self._exchange_began = self._exchange_began and now
            for link in self._links:
                link.heard = link.moved = now

    def _stuck(self, now: float, pause: float) -> OrpoError | None:
        """Return why this process must end, which its own work keeps it from seeing, or None."""
        gone, began = self._gone, self._exchange_began
        if began:
            # A peer that is silent is known a moment later than the exchange lasts too long.
            # Process 0 gives up first, so that it says why.
            patience = self.timeout + 2 * pause + (0 if self.is_lead else 2 * _GRACE)
            if now - began <= (_GRACE if gone else patience):
                return None
            return self._loss(gone[0]) if gone else PeerLostError(
                f"the exchange of arrays between {self.size} processes has not ended for "
                f"{self.timeout:g} s", AGAIN,
            )  # fmt: skip
        if not self.is_lead:
            # It would learn of it at its next message, which it does not get to.
            last = max(self._awake, *(link.gone_at or now for link in self._links))
            return self._loss(gone[0]) if now - last > self.timeout else None
        still = now - max(self._awake, *(link.moved for link in self._links))
        if not self.is_training or still <= max(self.timeout, 3 * self._longest_wait):
            return None
        error = PeerLostError(
            f"process 0 ({self.hosts[0]}) has not got on for {still:.0f} s, nor has any other; it "
            f"was last at {self._doing} (--peer-timeout gives it more time)", AGAIN,
        )  # fmt: skip
        error.rank = 0
        return error

    def _end_stuck(self, error: OrpoError) -> None:
        self._is_ending = True
        last = threading.Thread(target=lambda: self.tell(self.on_stuck(error)), daemon=True)
        last.start()
        last.join(30)
        self.abandon()
        os._exit(1)

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        began = self._exchange_began = time.monotonic()
        try:
            yield
        except RuntimeError as error:  # of MLX: a connection broke
            self._await_loss()
            raise PeerLostError(f"an exchange of arrays failed ({error})", AGAIN) from error
        finally:
            with self._fate:
                self._exchange_began, self._awake = 0.0, time.monotonic()
            self.exchange_seconds += time.monotonic() - began

    def _await_loss(self) -> None:
        """Give the links a moment to say who is gone."""
        until = time.monotonic() + _GRACE
        while time.monotonic() < until:
            self.check()
            time.sleep(_LOOK / 4)


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
