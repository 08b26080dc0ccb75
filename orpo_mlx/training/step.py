"""One optimizer step: gradients of its micro-batches, added, clipped, applied.

The trainable parameters are passed through the compiled functions, never captured by them: the
frozen base is a constant of the graph, and the model always holds real arrays between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_map

from orpo_mlx.adapters.dropout import set_dropout_key
from orpo_mlx.distributed.peers import ALONE, Peers
from orpo_mlx.models.recompute import Parameters
from orpo_mlx.objectives.base import (
    KlObjective,
    Objective,
    PairScores,
    ReferenceScores,
    StepTotals,
)
from orpo_mlx.scoring.base import (
    Feed,
    MicroBatch,
    Scoring,
    drop_freed,
    iter_scores,
    own_arrays,
    reference_scores,
)


class StepResult(NamedTuple):
    """What a step leaves behind; evaluated."""

    metrics: np.ndarray
    """float64, in the order of the objective's `metrics`."""
    grad_norm: float
    """Global norm before clipping."""


def step_key(seed: int, step: int) -> mx.array:
    """Return the random key of a step: a resumed run needs nothing but these two numbers."""
    return mx.random.key((seed << 32) | step)


class TrainStep:
    """A function with memory: calls update the model's adapter and the optimizer's state.

    Args:
        model: with an adapter attached; everything else frozen.
        optimizer: its state is created here if it has none.
        objective: what to minimise.
        scoring: how pairs become log-probs.
        max_grad_norm: clip the global norm to this; 0 = off.
        compiled: compile forward, backward and update once per batch shape.
        feed: gives the arrays of a batch; a trunk cache's, if scoring has a cut.
        peers: other processes, each of which computes some of the micro-batches.

    Attributes:
        shapes: the shapes of all batches so far; a compiled step was compiled once for each.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optimizers.Optimizer,
        objective: Objective,
        scoring: Scoring,
        max_grad_norm: float = 0.0,
        compiled: bool = True,
        feed: Feed = own_arrays,
        peers: Peers = ALONE,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.objective = objective
        self.scoring = scoring
        self.feed = feed
        self.peers = peers
        self.shapes: set[tuple[tuple[int, ...], ...]] = set()
        self._max_norm = max_grad_norm or float("inf")
        optimizer.init(model.trainable_parameters())
        gradient, update = mx.value_and_grad(self._share_of_loss), self._update
        share_of_kl = self._share_of_kl
        if compiled:
            gradient, share_of_kl = mx.compile(gradient), mx.compile(share_of_kl)
            update = mx.compile(update, inputs=[optimizer.state], outputs=[optimizer.state])
        self._gradient: Callable[..., Any] = gradient
        self._kl_part: Callable[..., mx.array] = share_of_kl
        self._apply: Callable[..., Any] = update

    def __call__(
        self, batches: Sequence[MicroBatch], key: mx.array, learning_rate: float
    ) -> StepResult:
        """Take one step over `batches`, weighted so that their division does not matter.

        Raises:
            RuntimeError: from MLX, e.g. out of memory; nothing computed after it can be trusted.
            PeerLostError: another process is gone; the model is as it was before the step.
        """
        params = self.model.trainable_parameters()
        grads, metrics = self._accumulate(params, batches, key)
        params, norm = self._apply(params, grads, mx.array(learning_rate))
        mx.eval(params, self.optimizer.state, metrics, norm)
        self.model.update(params)
        drop_freed()
        return StepResult(np.array(metrics, dtype=np.float64), float(norm.item()))

    def gradient(self, batches: Sequence[MicroBatch], key: mx.array) -> Parameters:
        """Return the gradient of a step without taking it."""
        params = self.model.trainable_parameters()
        grads, _ = self._accumulate(params, batches, key)
        mx.eval(grads)
        return grads

    def _accumulate(
        self, params: Parameters, batches: Sequence[MicroBatch], key: mx.array
    ) -> tuple[Parameters, mx.array | list[float]]:
        """Return the sums of all micro-batches; those of a run of one process not evaluated."""
        self.model.train()
        keys = mx.random.split(key, len(batches))
        own = self.peers.own([batch.tokens for batch in batches])
        try:
            totals = self._totals(params, batches, keys, own)
            grads, metrics = {}, mx.zeros(len(self.objective.metrics))
            for index in own:
                arrays = self._arrays(batches[index])
                self.shapes.add(tuple(array.shape for array in arrays))
                with self.scoring.way.patched(self.model):
                    (_, part), grad = self._gradient(params, *arrays, *totals, keys[index])
                grads = tree_map(mx.add, grads, grad) if grads else grad
                metrics = metrics + part
                # Starts the work and bounds the graph; the step still waits only once, in mx.eval.
                mx.async_eval(grads, metrics)
                drop_freed()
        finally:
            set_dropout_key(self.model, None)
            self.model.update(params)
        if self.peers.size == 1:
            return grads, metrics
        grads = grads or tree_map(mx.zeros_like, params)
        mx.eval(grads, metrics)
        sums = self.peers.sum_numbers(metrics.tolist())  # pyright: ignore
        return self.peers.sum_arrays(grads), sums

    def _totals(
        self,
        params: Parameters,
        batches: Sequence[MicroBatch],
        keys: mx.array,
        own: Sequence[int],
    ) -> StepTotals:
        """Return what is known of the whole step; of one micro-batch its own gradient finds the KL.

        With the key of its gradient a micro-batch has the same dropout both times.
        """
        totals, goal = step_totals(batches), self.objective
        if not isinstance(goal, KlObjective) or not goal.needs_kl or len(batches) == 1:
            return totals
        kl = mx.zeros(())
        for index in own:
            with self.scoring.way.patched(self.model):
                arrays = self._arrays(batches[index])
                kl = kl + self._kl_part(params, *arrays, *totals, keys[index])
            mx.async_eval(kl)
        return totals._replace(kl=_sum_scalar(kl, self.peers))

    def _arrays(self, batch: MicroBatch) -> Sequence[mx.array]:
        """Return what a batch is computed with, the reference last where there is one."""
        if not self.objective.needs_reference:
            return self.feed(batch)
        return (*self.feed(batch), mx.array(batch.reference))

    def _share_of_loss(self, params: Parameters, *arrays: mx.array) -> tuple[mx.array, mx.array]:
        return self.objective(*self._scored(params, *arrays))

    def _share_of_kl(self, params: Parameters, *arrays: mx.array) -> mx.array:
        goal: Any = self.objective
        return mx.stop_gradient(goal.kl_share(*self._scored(params, *arrays)))

    def _scored(
        self, params: Parameters, *arrays: mx.array
    ) -> tuple[PairScores, ReferenceScores | None, StepTotals]:
        """Return what an objective is called with."""
        size = len(StepTotals._fields) + 1
        (*totals, key), rest = arrays[-size:], list(arrays[:-size])
        self.model.update(params)
        set_dropout_key(self.model, key)
        sums = rest.pop() if self.objective.needs_reference else None
        scores = self.scoring.score(self.model, tuple(rest))
        return scores, reference_scores(sums), StepTotals(*totals)

    def _update(
        self, params: Parameters, grads: Parameters, rate: mx.array
    ) -> tuple[Parameters, mx.array]:
        grads, norm = optimizers.clip_grad_norm(grads, self._max_norm)
        self.optimizer.learning_rate = rate
        return self.optimizer.apply_gradients(grads, params), norm


def _sum_scalar(value: mx.array, peers: Peers) -> mx.array:
    return value if peers.size == 1 else mx.array(peers.sum_numbers([float(value)])[0])


def step_totals(batches: Sequence[MicroBatch]) -> StepTotals:
    """Count the pairs, tokens and good answers of all micro-batches of a step."""
    counts = [
        (batch.pairs, batch.nll_tokens, batch.response_tokens,
         sum(pair.label is True for pair in batch.members))
        for batch in batches
    ]  # fmt: skip
    return StepTotals(*(mx.array(sum(column), mx.float32) for column in zip(*counts, strict=True)))


def evaluate(
    model: nn.Module,
    batches: Sequence[MicroBatch],
    objective: Objective,
    scoring: Scoring,
    between: Callable[[], None] | None = None,
    feed: Feed = own_arrays,
    peers: Peers = ALONE,
) -> np.ndarray:
    """Return the metrics over all batches together, dropout off.

    Args:
        model: with an adapter attached.
        batches: laid out by `scoring`.
        objective: gives the metrics.
        scoring: how pairs become log-probs.
        between: called after each batch.
        feed: gives the arrays of a batch.
        peers: other processes, which all do the same call and score some of the batches each.

    Returns:
        float64 in the order of the objective's `metrics`: NLL over all their tokens, the rest over
        all their pairs, so that the numbers do not depend on the batch size.
    """
    totals, scored = step_totals(batches), []
    own = [batches[index] for index in peers.own([batch.tokens for batch in batches])]
    for batch, scores in iter_scores(model, own, scoring, feed):
        mx.eval(scores)
        known = reference_scores(batch.reference) if objective.needs_reference else None
        scored.append((scores, known))
        peers.watch.mark("evaluating")
        if between is not None:
            between()
    if isinstance(objective, KlObjective) and objective.needs_kl:
        both = ((scores, known) for scores, known in scored if known is not None)
        shares = [objective.kl_share(*each, totals) for each in both]
        kl = mx.stack(shares).sum() if shares else mx.zeros(())
        totals = totals._replace(kl=_sum_scalar(kl, peers))
    metrics = np.zeros(len(objective.metrics))
    for scores, known in scored:
        metrics += np.array(objective(scores, known, totals)[1], dtype=np.float64)
    return np.array(peers.sum_numbers(metrics.tolist()))
