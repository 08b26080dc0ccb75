"""A few buckets hold the batches of a run, and little of what they hold is filling."""

import numpy as np
import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.buckets import (
    MAX_BUCKETS,
    bucket_of,
    build_buckets,
    packed_cost,
    padded_cost,
)
from orpo_mlx.data.batching.packed import pack
from orpo_mlx.data.types import TokenPair
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.batches import buckets_of_run, step_parts
from orpo_mlx.scoring.select import WAYS

WORKLOADS = {"uf": (120, 300, 0.6), "rag": (1000, 80, 0.4), "hh": (150, 60, 0.6)}
"""Medians of prompts and answers in tokens, and the sigma of their logarithm."""


def pairs_like(workload, count=1500, limit=2048):
    prompt, answer, sigma = WORKLOADS[workload]
    rng = np.random.default_rng(1)
    medians = np.log([prompt, answer, answer])
    sizes = np.exp(medians + sigma * rng.standard_normal((count, 3))).astype(int) + 1
    sizes = sizes[sizes[:, 0] + sizes[:, 1:].max(axis=1) < limit]
    return [TokenPair([1] * p, [2] * c, [3] * r) for p, c, r in sizes.tolist()]


def shapes_of(scoring, batches):
    return {tuple(a.shape for a in scoring.lay_out(b, range(len(b))).arrays) for b in batches}


@pytest.mark.parametrize(
    ("workload", "pairs_per_step", "way"),
    [("uf", 4, "packed"), ("rag", 16, "packed"), ("hh", 4, "packed"), ("rag", 4, "plain"),
     ("hh", 16, "plain")],
)  # fmt: skip
def test_a_run_of_three_epochs_has_less_than_a_dozen_shapes(workload, pairs_per_step, way):
    pairs = pairs_like(workload, 600)
    config = TrainConfig(micro_batch_size=4, grad_accumulation_steps=pairs_per_step // 4)
    steps = 3 * -(-len(pairs) // pairs_per_step)
    tight = Scoring(WAYS[way], "full")
    table = buckets_of_run(config, tight, pairs, steps)
    parts = [p for step in range(1, steps + 1) for p in step_parts(config, tight, pairs, step)]
    batches = [[pairs[i] for i in part] for part in parts]

    few = Scoring(WAYS[way], "full", bucket_table=table)

    assert len(shapes_of(tight, batches)) > 20
    assert len(shapes_of(few, batches)) <= MAX_BUCKETS < 12
    if way == "packed":
        rows = [len(few.lay_out(b, range(len(b))).arrays[0]) for b in batches]
        real = sum(bucket_of(batch).tokens for batch in batches)
        assert sum(rows) / real < 1.16


def test_batches_of_one_length_are_not_filled_up():
    batches = [[TokenPair([1] * 50, [2] * 40, [3] * 40)] * 2] * 5

    (bucket,) = build_buckets(batches, packed_cost).buckets

    assert bucket.slots == ((49, 40), (49, 40))
    assert (bucket.tokens, bucket.scored, bucket.longest) == (2 * 129, 160, 89)
    assert build_buckets(batches, packed_cost).filling == 0
    assert build_buckets(batches, padded_cost).filling == 0


def test_the_cheapest_frame_that_holds_a_batch_is_taken():
    small, large = [[TokenPair([1] * n, [2] * n, [3] * n)] for n in (20, 200)]
    table = build_buckets([small, large, large, small], packed_cost)

    assert len(table.buckets) == 2
    assert table.bucket_for(small).tokens == 59
    assert table.bucket_for([TokenPair([1] * 30, [2] * 9, [3])]).tokens == 599
    assert table.bucket_for([TokenPair([1] * 300, [2], [3])]) is None


def test_a_frame_changes_no_place_of_a_pair():
    """Ids behind every scored position and cell are those of the tight layout."""
    rng = np.random.default_rng(0)
    sizes = [(5, 3, 9), (1, 7, 2), (12, 4, 4)]
    pairs = [TokenPair(*(rng.integers(9, 99, n).tolist() for n in size)) for size in sizes]
    room = [TokenPair([1] * 40, [2] * 30, [3] * 20)] * 5
    (bucket,) = build_buckets([room], packed_cost).buckets

    def scored_by_pair(packed):
        found = []
        for group in packed.groups:
            count = len(group.prompt_lengths)
            rows = [
                (packed.targets[places[:length]].tolist())
                for places, length in zip(group.answer_scores, group.answer_lengths, strict=True)
            ]
            found += list(zip(rows[:count], rows[count:], strict=True))
        return [found[place] for place in packed.order]

    tight, filled = pack(pairs, True), pack(pairs, True, bucket)

    wanted = [(pair.chosen, pair.rejected) for pair in pairs]
    assert scored_by_pair(tight) == wanted
    assert scored_by_pair(filled) == [*wanted, ([], []), ([], [])]
