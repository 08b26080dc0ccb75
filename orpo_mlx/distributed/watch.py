"""Whether the processes of a run get on, and what ends one that does not.

A thread of each process tells the others that it lives, and looks at them. What hangs inside MLX,
which has no time limit, is ended from there: an exchange that a peer has left, a peer whose process
0 is gone, process 0 itself.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from orpo_mlx.distributed.link import Link
from orpo_mlx.errors import OrpoError, PeerLostError, PeerRefusedError

_GRACE = 5.0
"""Seconds that MLX gets to notice itself that a peer is gone."""

_PAUSE = 0.05
"""Seconds between two looks for who is gone."""

AGAIN = "See to it, then resume the run: `orpo-mlx resume RUN` with the same processes."


class Watch:
    """What this process knows of the others' getting on, and says of its own.

    Args:
        rank: of this process.
        links: of process 0 to all others by rank, of another to process 0.
        timeout: seconds after which one that is silent or does not get on is given up.

    Attributes:
        is_training: whether all are in step, so that one that does not get on has hung.
        on_stuck: called, from a thread, where this process hangs; returns what `tell` is called
            with, and then the process ends.
        abandon: ends, then too, what was started for this run.
        last_lines: gives what a peer wrote last, "" where that is not known here.
        doing: what this process is at.
        exchange_seconds: how long arrays travelled.
    """

    def __init__(self, rank: int, links: Sequence[Link], timeout: float) -> None:
        self.rank, self.timeout = rank, timeout
        self.is_training = False
        self.on_stuck: Callable[[OrpoError], BaseException] = lambda error: error
        self.tell: Callable[[BaseException], None] = lambda error: None
        self.abandon: Callable[[], None] = lambda: None
        self.last_lines: Callable[[int], str] = lambda rank: ""
        self.exchange_seconds = 0.0
        self.doing = "starting"
        self._links = links
        self._progress = 0
        self._moved = self._awake = time.monotonic()
        self._exchange_began = self._longest_wait = 0.0
        self._is_ending = False
        # Held from the decision to end on, so that who hung and wakes up does not go on meanwhile.
        self._fate = threading.Lock()
        self._closing = threading.Event()
        if links:
            threading.Thread(target=self._look, name="orpo-mlx-peers", daemon=True).start()

    @property
    def is_broken(self) -> bool:
        """Whether one of them is gone, or this one is about to end."""
        return self._is_ending or bool(self._gone)

    @property
    def _gone(self) -> list[Link]:
        """Those who are gone, the first one first: its end explains the others'."""
        gone = [link for link in self._links if link.gone_at is not None]
        return sorted(gone, key=lambda link: link.gone_at or 0.0)

    def mark(self, doing: str) -> None:
        """Say that this process gets on with its work, and what it is at."""
        with self._fate:
            now = time.monotonic()
            self._longest_wait = max(self._longest_wait, now - self._moved)
            self._progress += 1
            self.doing, self._moved, self._awake = doing, now, now

    def expect_movement(self) -> None:
        """From now on all are in step: one that does not get on has hung."""
        self.mark("running")
        self.is_training, self._longest_wait = bool(self._links), 0.0

    def check(self) -> None:
        """Look whether all are there.

        Raises:
            PeerRefusedError: one of them found bad input.
            PeerLostError: one of them is gone.
        """
        if gone := self._gone:
            raise self.loss(gone[0])

    def wake(self) -> None:
        """Say that this process still looks for messages, whether or not there are any."""
        self._awake = time.monotonic()

    def waited(self, began: float) -> None:
        """Say how long a wait that has ended was: later ones may take some times as much."""
        self._longest_wait = max(self._longest_wait, time.monotonic() - began)

    @property
    def _patience(self) -> float:
        # Where all are slow a wait of a few earlier ones' length is none of a hang.
        return max(self.timeout, 3 * self._longest_wait)

    def require_movement(self, awaited: Link, began: float) -> None:
        """Give up who is awaited since `began` where nobody has got on for too long."""
        if not self.is_training:
            return
        moved = max([began, self._moved, *(link.moved for link in self._links)])
        still = time.monotonic() - moved
        if still > self._patience:
            awaited.lose(
                f"it has not got on for {still:.0f} s, nor has any other; it was last at "
                f"{awaited.doing} (--peer-timeout gives it more time)"
            )
            raise self.loss(awaited)

    def loss(self, link: Link) -> OrpoError:
        """Return what is to be raised where this peer is gone."""
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

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """While arrays travel; MLX's words for a connection that broke become a loss."""
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
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Look no more."""
        self._closing.set()

    # --- the thread that looks at all

    def _look(self) -> None:
        pause = min(1.0, self.timeout / 10)
        looked = time.monotonic()
        while not self._closing.wait(pause):
            now = time.monotonic()
            if now - looked > pause + _GRACE:
                self._stood_still(now)
            looked = now
            for link in self._links:
                link.send("beat", progress=self._progress, doing=self.doing)
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
            patience = self.timeout + 2 * pause + (2 * _GRACE if self.rank else 0)
            if now - began <= (_GRACE if gone else patience):
                return None
            return self.loss(gone[0]) if gone else PeerLostError(
                "the exchange of arrays between the processes has not ended for "
                f"{self.timeout:g} s", AGAIN,
            )  # fmt: skip
        if self.rank:
            # It would learn of it at its next message, which it does not get to.
            last = max(self._awake, *(link.gone_at or now for link in self._links))
            return self.loss(gone[0]) if now - last > self.timeout else None
        still = now - max(self._awake, *(link.moved for link in self._links))
        if not self.is_training or still <= self._patience:
            return None
        error = PeerLostError(
            f"process 0 ({socket.gethostname()}) has not got on for {still:.0f} s, nor has any "
            f"other; it was last at {self.doing} (--peer-timeout gives it more time)", AGAIN,
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
