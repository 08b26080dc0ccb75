"""Where a bench works: its folder, its time, and what its parts have found so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo_mlx.bench.process import Row, Say, WorkerFailed, run_job
from orpo_mlx.bench.sizes import SHORT, Sizes


@dataclass(frozen=True)
class BenchRequest:
    """What a user asks for.

    Attributes:
        is_short: the form that only shows that everything runs.
        only: names of parts; empty for all.
        model: a folder or a Hub id; None for the usual one.
        is_offline: fetch nothing.
    """

    is_short: bool = False
    only: tuple[str, ...] = ()
    model: str | None = None
    is_offline: bool = False


@dataclass
class Workplace:
    """What every part works with.

    Attributes:
        folder: for models, pairs and runs; deleted at the end.
        request: what was asked for.
        say: told what is being done.
        deadline: of the part that runs, on the monotonic clock.
        sizes: how much is measured; the device decides when it is known.
        found: rows by the name of a part.
    """

    folder: Path
    request: BenchRequest
    say: Say
    deadline: float = 0.0
    sizes: Sizes = SHORT
    found: dict[str, list[Row]] = field(default_factory=dict)

    def left(self) -> float:
        """Return the seconds that the present part still has."""
        return max(0.0, self.deadline - time.monotonic())

    def job(self, name: str, **task: Any) -> Iterator[Row]:
        """Yield the rows of a worker that may take all that is left."""
        yield from run_job(name, self.task(**task), self.left(), self.say, self.environment())

    def task(self, **content: Any) -> Row:
        """Return a task for a worker."""
        return {"folder": str(self.folder), **content}

    def environment(self, **more: str) -> dict[str, str]:
        """Return variables of a worker: it keeps its runs here, and may have to stay offline."""
        offline = {"HF_HUB_OFFLINE": "1"} if self.request.is_offline else {}
        return {"ORPO_MLX_HOME": str(self.folder / "home"), **offline, **more}

    def of_kind(self, part: str, kind: str) -> list[Row]:
        """Return the rows of a kind that a part has found."""
        return [row for row in self.found.get(part, []) if row.get("kind") == kind]

    @property
    def is_gpu(self) -> bool:
        """Whether MLX computes on a GPU here."""
        return any(row["device"] == "GPU" for row in self.of_kind("machine", "conditions"))

    def models(self) -> list[Row]:
        """Return the models to measure.

        Raises:
            WorkerFailed: none could be made.
        """
        found = self.of_kind("models", "model")
        if not found or not self.of_kind("models", "pairs"):
            raise WorkerFailed("there is no model to do it with", 0, False)
        return found

    def pairs(self) -> Row:
        """Return where the pairs of each workload are, and how many."""
        return self.of_kind("models", "pairs")[0]
