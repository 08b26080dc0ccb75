"""Checks of numbers: scores against float64 NumPy, every gradient against plain rows."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.buckets import build_buckets
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import describe
from orpo_mlx.models.patches import run_body, run_head
from orpo_mlx.models.recompute import recomputing
from orpo_mlx.objectives.base import PairScores, ReferenceScores, StepTotals
from orpo_mlx.scoring.activation_cache import (
    ActivationCache,
    DiskStore,
    MemoryStore,
    Store,
    find_cut,
)
from orpo_mlx.scoring.base import Feed, Scoring, Way, own_arrays
from orpo_mlx.scoring.batches import scored_of
from orpo_mlx.scoring.head import REWARD, head_logps
from orpo_mlx.scoring.logprobs import token_logps
from orpo_mlx.scoring.plain import Plain
from orpo_mlx.scoring.select import WAYS, choose_scoring, is_full_precision
from orpo_mlx.training.optimizer import build_optimizer
from orpo_mlx.training.preparation.objective import objective
from orpo_mlx.training.prepare import Prepared
from orpo_mlx.training.speed.trial import can_compile
from orpo_mlx.training.step import TrainStep, evaluate
from orpo_mlx.verify.check import EXACT, Check, limits_of, measured
from orpo_mlx.verify.reference import Reference, compute_reference, reference_loss

Gradient = dict[str, np.ndarray]


class Bench:
    """A model with an adapter that does something, and rows to try on it.

    Attributes:
        scope: what is scored of a pair; `what` says it in a word.
        way: how a training would score the pairs.
        plain: loss and gradient of plain rows.
        fitting: ways that can be computed with this model; `check_numbers` finds them out.
    """

    def __init__(self, prepared: Prepared, pairs: Sequence[TokenPair], wanted: str) -> None:
        self.config, self.model, self.pairs = prepared.config, prepared.model, pairs
        self.all = list(range(len(pairs)))
        self.scope = scored_of(self.config)
        self.what = "rewards" if self.scope == REWARD else "log-probs"
        fill_adapter(self.model)
        self.limits = limits_of(prepared.product_error, is_full_precision(self.model))
        self.model.train()
        self.way = choose_scoring(self.model, wanted, self.scope, pairs, False).way
        self.plain = self.gradient(Plain())
        self.fitting: list[Way] = [Plain()]

    def scores(self, way: Way, indices: Sequence[int]) -> np.ndarray:
        """Return [6, B] as in `Reference`."""
        scoring = Scoring(way, self.scope)
        self.model.eval()
        found = scoring.score(self.model, scoring.build(self.pairs, indices).arrays)
        sums, means = found[:3:2], (found.chosen_logps, found.rejected_logps)
        parts = (
            *(sums if scoring.rates else means), found.nll_sum, found.nll_tokens,
            found.chosen_count, found.rejected_count,
        )  # fmt: skip
        return np.array([np.array(part.astype(mx.float32)) for part in parts], np.float64)

    def one_by_one(self, way: Way) -> np.ndarray:
        """Return [6, B], each pair in a batch of its own."""
        return np.concatenate([self.scores(way, [i]) for i in self.all], axis=1)

    def loss(self) -> float:
        """Return the loss of all pairs, each in a plain batch of its own."""
        scoring = Scoring(Plain(), self.scope)
        batches = [scoring.build(self.pairs, [i]) for i in self.all]
        return float(evaluate(self.model, batches, objective(self.config), scoring)[0])

    def gradient(
        self,
        way: Way,
        division: Sequence[Sequence[int]] = (),
        compiled: bool = False,
        feed: Feed = own_arrays,
        **options: Any,
    ) -> Gradient:
        """Return a training step's gradient over all pairs, in one micro-batch or as divided.

        Args:
            way: of scoring.
            division: pairs of each micro-batch; empty = all in one.
            compiled: whether the step is compiled.
            feed: gives the arrays of a batch.
            options: of `Scoring`.
        """
        scoring = Scoring(way, self.scope, **options)
        optimizer, goal = build_optimizer(self.config), objective(self.config)
        step = TrainStep(self.model, optimizer, goal, scoring, compiled=compiled, feed=feed)
        batches = [scoring.build(self.pairs, part) for part in division or [self.all]]
        flat: Any = tree_flatten(step.gradient(batches, mx.random.key(0)))
        return {name: np.array(value.astype(mx.float32)) for name, value in flat}


def fill_adapter(model: Any) -> None:
    """Draw B, which starts at 0: the gradient of A would be 0 too, and nothing be compared."""
    named: Any = tree_flatten(model.trainable_parameters())
    drawn = [
        (name, 0.02 * mx.random.normal(value.shape, value.dtype, key=mx.random.key(i)))
        for i, (name, value) in enumerate(named)
        if name.endswith("lora_b")
    ]
    model.load_weights(drawn, strict=False)
    mx.eval(model.trainable_parameters())


def relative(found: Any, wanted: Any) -> float:
    """Return the largest relative difference of the elements (absolute where they are below 1)."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    return float((np.abs(found - wanted) / np.maximum(np.abs(wanted), 1.0)).max())


def _apart(found: Gradient, wanted: Gradient) -> float:
    """Return the largest relative difference of a parameter's gradient, by norm."""
    if found.keys() != wanted.keys():
        raise ValueError("not the same parameters have a gradient")
    distances = []
    for name, value in wanted.items():
        size = float(np.linalg.norm(value))
        distances.append(float(np.linalg.norm(found[name] - value)) / (size or 1.0))
    return float(np.max(distances))  # max() would lose a NaN


# Checks


def check_numbers(bench: Bench) -> Iterator[Check]:
    reference = _reference_of(bench)
    yield from _check_plain(bench, reference)
    for way in list(WAYS.values())[:-1]:
        yield from _check_way(bench, way, reference)
    yield from _check_composition(bench)
    yield from _check_savings(bench)
    yield from _check_activation_cache(bench)


def _reference_of(bench: Bench) -> Reference:
    scoring = Scoring(Plain(), bench.scope)
    widths = [scoring.build(bench.pairs, [i]).arrays[0].shape[1] for i in bench.all]
    bench.model.eval()
    return compute_reference(bench.model, bench.pairs, bench.config, widths)


def _check_plain(bench: Bench, reference: Reference) -> Iterator[Check]:
    note = "relative difference from float64 NumPy"
    yield measured(
        f"{bench.what} of each pair", EXACT, note,
        lambda: relative(bench.one_by_one(Plain()), reference.scores),
    )  # fmt: skip
    yield measured(
        "loss of all pairs", EXACT, note,
        lambda: relative(bench.loss(), reference.loss),
    )  # fmt: skip
    yield measured(
        f"loss at {bench.what} from -0.0001 to -100", EXACT, note,
        lambda: relative(*_losses_over_the_range(bench.config)),
    )  # fmt: skip
    yield measured(
        "every adapter parameter gets a gradient", 0, "parameters without",
        lambda: sum(not np.abs(value).max() > 0 for value in bench.plain.values()),
    )  # fmt: skip


def _losses_over_the_range(config: TrainConfig) -> tuple[list[float], list[float]]:
    """Return the loss and its reference for log-probs that a few rows never reach."""
    if config.objective == "orpo":
        config = config.model_copy(update={"lam": 1.0})
    logps = (-np.geomspace(1e-4, 100, 13)).astype(np.float32).tolist()
    found, wanted, totals = [], [], StepTotals(*[mx.array(1.0)] * 4)
    for chosen, rejected in itertools.product(logps, logps):
        # No NLL, and one token a response.
        column = np.array([[chosen], [rejected], [0.0], [1.0], [1.0], [1.0]])
        of_chosen, of_rejected, none, one = (mx.array(part, mx.float32) for part in column[:4])
        scores = PairScores(of_chosen, one, of_rejected, one, none, one)
        # By turns good and bad, for KTO.
        is_good = len(found) % 2 == 0
        compared_with = ReferenceScores(-one, -one, mx.array([is_good]))
        loss: Any = objective(config)(scores, compared_with, totals)[0].item()
        found.append(loss)
        wanted.append(reference_loss(column, np.full((2, 1), -1.0), config, np.array([is_good])))
    return found, wanted


def _check_way(bench: Bench, way: Way, reference: Reference) -> Iterator[Check]:
    """Check a way of scoring; one that cannot be computed and is not used is no failure."""
    limits, used = bench.limits, ", used in training" if way == bench.way else ""
    try:
        bench.gradient(way, [bench.all[:1]])
    except Exception as error:  # models that do not fit fail each in their own way
        note = f"does not fit this model ({describe(error)[:80]})" + used
        yield Check(f"{way} scoring", not used, None, limits.gradient, note)
        return
    bench.fitting.insert(-1, way)
    yield measured(
        f"{way} scoring: {bench.what}{used}", limits.scores,
        f"relative difference from float64 NumPy, {limits.why}",
        lambda: relative(bench.scores(way, bench.all), reference.scores),
    )  # fmt: skip
    yield _gradient_check(bench, f"{way} scoring: gradient{used}", lambda: bench.gradient(way))


def _gradient_check(
    bench: Bench, name: str, compute: Callable[[], Gradient], wanted: Gradient | None = None
) -> Check:
    note = f"largest relative difference of a parameter from plain rows, {bench.limits.why}"
    wanted = bench.plain if wanted is None else wanted
    return measured(name, bench.limits.gradient, note, lambda: _apart(compute(), wanted))


def _check_composition(bench: Bench) -> Iterator[Check]:
    """Who shares a batch with a pair, in which order, must not matter to its numbers."""
    way, limits, backwards = bench.way, bench.limits, bench.all[::-1]
    yield measured(
        f"padding and order of pairs ({way})", limits.scores,
        f"relative difference of {bench.what}, {limits.why}",
        lambda: relative(
            [bench.scores(way, bench.all), bench.scores(way, backwards)[:, ::-1]],
            [bench.one_by_one(way)] * 2,
        ),
    )  # fmt: skip
    divisions = {
        "each pair by itself": [[i] for i in bench.all],
        "two uneven parts": [part for part in (bench.all[:1], bench.all[1:]) if part],
    }
    for way, (name, division) in itertools.product(bench.fitting, divisions.items()):
        name = f"micro-batches, {name} ({way}): gradient"
        yield _gradient_check(bench, name, lambda w=way, d=division: bench.gradient(w, d))


def _check_savings(bench: Bench) -> Iterator[Check]:
    """What saves memory or time must not matter to the gradient."""
    for size in (1, 7, 64):
        yield measured(
            f"head in chunks of {size}", bench.limits.gradient,
            f"relative difference from the whole head, {bench.limits.why}",
            lambda size=size: _chunks_apart(bench, size),
        )  # fmt: skip
    for way in bench.fitting:
        if way.has_chunks:
            name = f"{way} scoring, head in chunks of 7: gradient"
            yield _gradient_check(bench, name, lambda w=way: bench.gradient(w, chunk=7))
    for way, every in itertools.product(bench.fitting, (1, 2)):
        if way.can_recompute:
            what = ("gradient checkpointing", "checkpointing every 2nd block")[every - 1]
            name = f"{what} ({way}): gradient"
            yield _gradient_check(
                bench, name, lambda w=way, e=every: _recomputed_gradient(bench, w, e)
            )
    for way in bench.fitting:
        if not way.can_bucket:
            continue
        name = f"batches filled up to one shape ({way}): gradient"
        yield _gradient_check(bench, name, lambda w=way: _filled_gradient(bench, w))
        if can_compile():
            name = f"compiled step ({way}): gradient"
            yield _gradient_check(bench, name, lambda w=way: bench.gradient(w, compiled=True))


def _filled_gradient(bench: Bench, way: Way) -> Gradient:
    """Fill each pair up to the room of all of them."""
    table = build_buckets([bench.pairs], way.bucket_cost)
    return bench.gradient(way, [[i] for i in bench.all], bucket_table=table)


def _check_activation_cache(bench: Bench) -> Iterator[Check]:
    """Outputs of the lower half of the blocks, kept: in memory, on disk, and read back."""
    ways = [way for way in bench.fitting if way.can_keep]
    with _lower_half_frozen(bench.model) as cut, tempfile.TemporaryDirectory() as folder:
        if not cut:
            yield Check("trunk cache", True, None, bench.limits.gradient, "there is one block only")
            return
        trained = dict(tree_flatten(bench.model.trainable_parameters()))
        wanted = {name: bench.plain[name] for name in trained}
        for way in ways:
            stores: dict[str, Store] = {
                "in memory": MemoryStore(PLENTY),
                "on disk": DiskStore(Path(folder, way.name), PLENTY),
                "read back from disk": DiskStore(Path(folder, way.name), PLENTY),
            }
            for where, store in stores.items():
                name = f"trunk cache {where} ({way}): gradient"
                yield _gradient_check(
                    bench, name, lambda w=way, s=store: _kept_gradient(bench, w, s), wanted
                )


PLENTY = 1 << 40
"""Bytes a store may hold here: no few pairs fill it."""


def _kept_gradient(bench: Bench, way: Way, store: Store) -> Gradient:
    """Return the gradient with kept outputs, divided differently from when they were made."""
    cut = find_cut(bench.model, way)
    scoring = Scoring(way, bench.scope, cut=cut)
    cache = ActivationCache(bench.model, scoring, store)
    bench.gradient(way, feed=cache.feed, cut=cut)
    return bench.gradient(way, [[i] for i in bench.all], feed=cache.feed, cut=cut)


@contextmanager
def _lower_half_frozen(model: Any) -> Iterator[int]:
    """Train the adapter of the upper blocks only; gives how many are below, 0 if none can be."""
    is_trained = [bool(tree_flatten(block.trainable_parameters())) for block in model.layers]
    first = is_trained.index(True) if True in is_trained else len(is_trained)
    cut = max(first, len(model.layers) // 2)
    frozen = [
        part for block in model.layers[first:cut] for part in block.modules() if "lora_a" in part
    ]
    for part in frozen:
        part.freeze(recurse=False)
    try:
        yield cut if model.trainable_parameters() else 0
    finally:
        for part in frozen:
            names = [name for name in ("lora_a", "lora_b", "m") if name in part]
            part.unfreeze(recurse=False, keys=names)


def _recomputed_gradient(bench: Bench, way: Way, every: int) -> Gradient:
    with recomputing(bench.model.layers, every):
        return bench.gradient(way)


def _chunks_apart(bench: Bench, size: int) -> float:
    """Compare log-probs and their slopes by the hidden states: in chunks, and all at once."""
    model, pair = bench.model, bench.pairs[0]
    ids = mx.array([*pair.prompt, *pair.chosen])
    model.train()
    hidden, targets = run_body(model, ids[None, :-1])[0], ids[1:]
    weights = mx.random.normal(targets.shape, key=mx.random.key(0))

    def computed(logps: Callable[[mx.array], mx.array]) -> list[np.ndarray]:
        values, slopes = mx.vjp(logps, [hidden], [weights])
        return [np.array(array.astype(mx.float32)) for array in (values[0], slopes[0])]

    found = computed(lambda states: head_logps(model, states, targets, chunk=size))
    wanted = computed(lambda states: token_logps(run_head(model, states[None])[0], targets))
    return _apart(
        dict(zip(("logps", "slopes"), found, strict=True)),
        dict(zip(("logps", "slopes"), wanted, strict=True)),
    )
