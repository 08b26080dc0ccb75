"""The proofs that a training computes what it should, on a user's own model and rows.

Losses and log-probs are compared with a second computation that shares no code with the first:
float64 NumPy from the logits of each row by itself (reference.py). Everything that makes a
step fast or small (ways of scoring, chunks, checkpointing, micro-batches, compilation, outputs kept
below the adapter) is compared with plain rows: loss and gradient of every adapter parameter must
not change (gradients.py). Short trainings show that a run can be repeated and resumed
(trainings.py).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx import demo
from orpo_mlx.config import TrainConfig, build_config
from orpo_mlx.data.batching.buckets import MAX_BUCKETS
from orpo_mlx.data.batching.order import steps_in_epoch
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.precision import EXACT_PRODUCT, ROUNDED_PRODUCT
from orpo_mlx.scoring.base import Scoring, Shifted, Way, score_logits
from orpo_mlx.scoring.batches import buckets_of_run, iter_parts, scored_of
from orpo_mlx.scoring.packed import PackedRow
from orpo_mlx.scoring.plain import Plain
from orpo_mlx.training.prepare import prepare
from orpo_mlx.verify.check import Check, measured
from orpo_mlx.verify.gradients import Bench, check_numbers
from orpo_mlx.verify.trainings import check_trainings

TOKEN_BUDGET = 4096
"""Tokens of both rows of all pairs looked at: more pairs prove little more and take longer."""


def run_checks(config: TrainConfig, pairs: int = 6) -> Iterator[Check]:
    """Check the computation on a model and a few rows; yields each result as it is known.

    Args:
        config: model, data, and the settings of adapter and objective; how a run is divided,
            validated and reported is replaced by what the checks need.
        pairs: look at this many, the shortest first, within `TOKEN_BUDGET`.

    Raises:
        OrpoError: the model or the data cannot be used.
    """
    prepared = prepare(config.model_copy(update=_WITHOUT_A_RUN))
    rows = shortest(prepared.data.train, pairs)
    yield _check_products(config, prepared.product_error)
    yield from _check_rows(rows, prepared.tokenizer)
    bench = Bench(prepared, rows, config.scoring)
    yield from check_numbers(bench)
    way, blocks = bench.way, len(prepared.model.layers)
    yield from _check_shapes(config, prepared.data.train, way)
    del prepared, bench
    gc.collect()  # the trainings load the model again
    yield from check_trainings(config, rows, way, blocks)


def _check_products(config: TrainConfig, error: float) -> Check:
    limit = EXACT_PRODUCT if config.float32 == "exact" else ROUNDED_PRODUCT
    note = "relative error of a float32 product from float64 NumPy"
    return measured(f"float32 products, {config.float32}", limit, note, lambda: error)


def check_demo_trainings() -> Iterator[Check]:
    """Check trainings alone, of the built-in model; yields each result as it is known."""
    data = {"model": str(demo.model_path()), "data": str(demo.train_path())}
    config = build_config({**demo.SETTINGS, **data})
    prepared = prepare(config.model_copy(update=_WITHOUT_A_RUN))
    rows, blocks = shortest(prepared.data.train, 6), len(prepared.model.layers)
    yield from check_trainings(config, rows, PackedRow(), blocks)


_WITHOUT_A_RUN: dict[str, Any] = {
    "scoring": "plain", "dropout": 0.0, "grad_checkpoint": "off", "compile": "off",
    "valid_data": None, "valid_fraction": 0.0, "sample_prompts": 0, "micro_batch_size": 1,
    "batching": "fixed", "init_adapter": None, "run_dir": None, "trunk_cache": "off",
}  # fmt: skip


def shortest(pairs: Sequence[TokenPair], count: int) -> list[TokenPair]:
    """Return the shortest pairs: at most `count` and `TOKEN_BUDGET` tokens, at least one."""
    chosen: list[TokenPair] = []
    for pair in sorted(pairs, key=lambda pair: pair.size)[:count]:
        if chosen and sum(p.size for p in chosen) + pair.size > TOKEN_BUDGET:
            break
        chosen.append(pair)
    return chosen


def _check_shapes(config: TrainConfig, pairs: Sequence[TokenPair], way: Way) -> Iterator[Check]:
    """Count the shapes that one pass over the data would be compiled for."""
    if not way.can_bucket:
        return
    scope, steps = scored_of(config), steps_in_epoch(config, len(pairs))
    tight = Scoring(way, scope)
    table = buckets_of_run(config, tight, pairs, steps)
    scoring = Scoring(way, scope, bucket_table=table)

    def count() -> int:
        parts = islice(iter_parts(config, tight, pairs, steps), MOST_LAID_OUT)
        batches = (scoring.lay_out(pairs, part) for part in parts)
        return len({tuple(array.shape for array in batch.arrays) for batch in batches})

    yield measured(
        f"shapes to compile a step for ({way})", MAX_BUCKETS,
        f"shapes in one pass over the data; filling up adds {table.filling:.0%} of work",
        count,
    )  # fmt: skip


MOST_LAID_OUT = 2000
"""Batches whose shapes are counted: laying out takes about a millisecond."""


# Rows


def _check_rows(pairs: Sequence[TokenPair], tokenizer: Any) -> Iterator[Check]:
    yield measured(
        "every response ends with a token that generation stops at", 0, "responses without",
        lambda: _without_end(pairs, tokenizer),
    )  # fmt: skip
    yield measured(
        "response tokens are scored, all of them and no others", 0, "positions scored wrongly",
        lambda: sum(_wrongly_scored(pair) for pair in pairs),
    )  # fmt: skip


def _without_end(pairs: Sequence[TokenPair], tokenizer: Any) -> int:
    stops = {int(token) for token in tokenizer.eos_token_ids}
    # What a labelled answer has beside it may be cut, or nothing.
    sides = [
        side
        for pair in pairs
        for side in ((pair.chosen, pair.rejected) if pair.label is None else (pair.chosen,))
    ]
    return sum(not side or side[-1] not in stops for side in sides)


def _wrongly_scored(pair: TokenPair) -> int:
    """Count the logits that move a response's log-prob and should not, or the reverse.

    Only which positions count is looked at, so a vocabulary of 5 will do.
    """
    sides = (pair.chosen, pair.rejected)
    prompt, chosen, rejected = ([token % 5 for token in ids] for ids in (pair.prompt, *sides))
    small = TokenPair(prompt, chosen, rejected)
    shifted = Shifted(*Scoring(Plain(), "full").build([small], [0]).arrays)
    logits = mx.random.normal((*shifted.inputs.shape, 5), key=mx.random.key(0))
    first, wrong = len(pair.prompt) - 1, 0
    for row, which in enumerate(("chosen_logps", "rejected_logps")):
        slope = mx.grad(lambda x, w=which: getattr(score_logits(x, shifted), w).sum())(logits)
        moving = np.abs(np.array(slope)).sum(axis=-1) > 0
        # The logits at t predict token t + 1, so the first response token is scored one before.
        wanted = np.zeros_like(moving)
        wanted[row, first : first + len(sides[row])] = True
        wrong += int((moving != wanted).sum())
    return wrong
