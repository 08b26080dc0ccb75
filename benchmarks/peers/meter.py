"""What each peer's script shares: reading its task, and noting what each step took.

Standard library only, because every peer has an environment of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """What to train on.

    Attributes:
        model: folder with config.json, model.safetensors and a tokenizer of numbered words.
        pairs: rows of token ids, `prompt_ids`, `chosen_ids`, `rejected_ids`.
        pairs_per_step: rows of a step, in the order of the file; the file is read in a circle.
        steps: how many.
        unmeasured: the first so many of them are not measured.
        targets: names of the linear layers with an adapter.
        rank, scale, learning_rate, lam: of the adapter, the optimizer and the loss.
        longest: tokens of the longest row, so that nothing is cut.
        out: a folder for what the peer wants to write.
        options: more, by name, for one peer.
    """

    model: str
    pairs: list[dict[str, list[int]]]
    pairs_per_step: int
    steps: int
    unmeasured: int
    targets: list[str]
    rank: int
    scale: float
    learning_rate: float
    lam: float
    longest: int
    out: str
    options: dict[str, Any]

    def rows(self, step: int) -> list[dict[str, list[int]]]:
        """Return the rows of a step, counted from 0."""
        first = step * self.pairs_per_step
        return [self.pairs[(first + i) % len(self.pairs)] for i in range(self.pairs_per_step)]


def as_text(pair: dict[str, list[int]]) -> dict[str, str]:
    """Return a pair as words; it adds the end-of-turn token itself."""

    def words(ids: list[int]) -> str:
        return " ".join(f"w{i}" for i in ids)

    return {
        "prompt": words(pair["prompt_ids"]),
        "chosen": " " + words(pair["chosen_ids"][:-1]),
        "rejected": " " + words(pair["rejected_ids"][:-1]),
    }


def read_task() -> Task:
    """Return the task in the JSON file that the first argument names."""
    return Task(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


@dataclass
class Meter:
    """Notes time and memory between one step's end and the next.

    Args:
        unmeasured: the first so many steps are not reported; at least one.
        peak_memory: returns the framework's peak in bytes; none for one that keeps no count.
        reset_peak_memory: forgets it; called before the first step that is measured.
    """

    unmeasured: int
    peak_memory: Callable[[], int] | None = None
    reset_peak_memory: Callable[[], None] | None = None
    cpu_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _mark: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        """Note that the first step begins."""
        self._mark = _now()

    def step(self, loss: float) -> None:
        """Note that a step has ended; what follows belongs to the next."""
        cpu, wall = _now()
        if len(self.losses) == self.unmeasured - 1 and self.reset_peak_memory is not None:
            self.reset_peak_memory()
        self.cpu_seconds.append(cpu - self._mark[0])
        self.wall_seconds.append(wall - self._mark[1])
        self.losses.append(loss)
        self._mark = _now()

    def report(self, packages: list[str], **more: Any) -> None:
        """Write the measurements of the measured steps as one line of JSON."""
        measured = {
            "cpu_seconds": self.cpu_seconds[self.unmeasured :],
            "wall_seconds": self.wall_seconds[self.unmeasured :],
            "losses": self.losses,
            "peak_memory_bytes": self.peak_memory() if self.peak_memory is not None else None,
            "peak_rss_bytes": peak_rss_bytes(),
            "versions": {name: importlib.metadata.version(name) for name in packages},
            **more,
        }
        sys.__stdout__.write("\n" + json.dumps(measured) + "\n")  # type: ignore[union-attr]


def _now() -> tuple[float, float]:
    """User CPU time of this process, all threads, and the clock. A compiler that MLX calls is a
    process of its own and not in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime, time.perf_counter()


def peak_rss_bytes() -> int:
    """Return the largest resident size of this process so far."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size  # kilobytes on Linux
