"""A process of a run that another one owns: it prepares the same, and does what it is told.

It has no run directory, listens to no request and says nothing; what it computes goes to process 0.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.prefetch import Prefetch
from orpo_mlx.distributed.log import PeerLog
from orpo_mlx.distributed.peers import EndOrdered, Peers
from orpo_mlx.models.command_buffers import choose_command_buffers
from orpo_mlx.training.identity import OWN, settings_facts


def follow(peers: Peers, own: TrainConfig | None, log: PeerLog) -> None:
    """Take part in a run until process 0 has no more work.

    Args:
        peers: of this process.
        own: the settings this process was given; None: it takes those of process 0.
        log: where what it prints goes.

    Raises:
        OrpoError: bad input here, or process 0 is gone.
    """
    from orpo_mlx.training.prepare import prepare

    try:
        config = _settings(peers, own)
        choose_command_buffers(config.command_buffers)
        prepared = prepare(config, _say, peers=peers)
        with tempfile.TemporaryDirectory(prefix="orpo-mlx-peer-") as folder:
            _work(peers, prepared, Path(folder), log)
    except EndOrdered:
        return


def _settings(peers: Peers, own: TrainConfig | None) -> TrainConfig:
    """Return process 0's settings, with this process's places; others of its own end the run."""
    theirs = TrainConfig.model_validate(peers.share(None))
    peers.agree(settings_facts(own or theirs))
    return theirs.model_copy(update={name: getattr(own, name) for name in OWN} if own else {})


def _say(_done: int, _total: int, label: str, unit: str) -> None:
    if unit == "phase":
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {label}\n")


def _work(peers: Peers, prepared: Any, folder: Path, log: PeerLog) -> None:
    """Answer the orders of process 0, between which nothing is kept but adapter and optimizer."""
    from orpo_mlx.scoring.base import own_arrays
    from orpo_mlx.training.checkpoint import copy_optimizer
    from orpo_mlx.training.optimizer import learning_rate_at
    from orpo_mlx.training.preparation.objective import objective
    from orpo_mlx.training.prepare import step_batches, valid_batches
    from orpo_mlx.training.run import adapter_facts
    from orpo_mlx.training.start import build_step
    from orpo_mlx.training.step import evaluate, step_key

    config, total, goal = prepared.config, prepared.total_steps, objective(prepared.config)
    take_step, trunk = build_step(prepared, folder, peers)
    batches = Prefetch(lambda number: step_batches(prepared, number), total)
    valid = valid_batches(prepared)
    feed = trunk.feed if trunk and prepared.speed.valid.cut else own_arrays

    def step(step: int) -> None:
        peers.watch.mark(f"step {step}")
        take_step(
            batches.get(step), step_key(config.seed, step), learning_rate_at(step, total, config)
        )

    def measure() -> None:
        evaluate(prepared.model, valid, goal, prepared.speed.valid, None, feed, peers)

    answers: dict[str, Callable[..., None]] = {
        "begin": lambda: copy_optimizer(take_step.optimizer, peers),
        "place": lambda folder, host: log.place(Path(folder), host, peers.rank),
        "step": step,
        "evaluate": measure,
        "compare": lambda step: peers.agree(adapter_facts(prepared.model, step)),
    }
    try:
        while True:
            order = peers.next_order()
            answers[order["name"]](**order["content"])
    finally:
        batches.close()
