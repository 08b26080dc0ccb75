"""A few frames hold the batches of a run, and little of what they hold is filling."""

import numpy as np
import pytest

from orpo_mlx.batch_plan import ladder_of_run, step_parts
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.packing import pack
from orpo_mlx.data.pairs import TokenPair
from orpo_mlx.data.shapes import MAX_FRAMES, build_ladder, frame_of
from orpo_mlx.scoring import Scoring

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
    tight = Scoring(way, "full")
    ladder = ladder_of_run(config, tight, pairs, steps)
    parts = [p for step in range(1, steps + 1) for p in step_parts(config, tight, pairs, step)]
    batches = [[pairs[i] for i in part] for part in parts]

    few = Scoring(way, "full", ladder=ladder)

    assert len(shapes_of(tight, batches)) > 20
    assert len(shapes_of(few, batches)) <= MAX_FRAMES < 12
    if way == "packed":
        rows = [len(few.lay_out(b, range(len(b))).arrays[0]) for b in batches]
        real = sum(frame_of(batch).tokens for batch in batches)
        assert sum(rows) / real < 1.16


def test_batches_of_one_length_are_not_filled_up():
    batches = [[TokenPair([1] * 50, [2] * 40, [3] * 40)] * 2] * 5

    (frame,) = build_ladder(batches).frames

    assert frame.slots == ((49, 40), (49, 40))
    assert (frame.tokens, frame.scored, frame.longest) == (2 * 129, 160, 89)
    assert build_ladder(batches).filling == {"packed": 0, "plain": 0}


def test_the_cheapest_frame_that_holds_a_batch_is_taken():
    small, large = [[TokenPair([1] * n, [2] * n, [3] * n)] for n in (20, 200)]
    ladder = build_ladder([small, large, large, small])

    assert len(ladder.frames) == 2
    assert ladder.frame_for(small).tokens == 59
    assert ladder.frame_for([TokenPair([1] * 30, [2] * 9, [3])]).tokens == 599
    assert ladder.frame_for([TokenPair([1] * 300, [2], [3])]) is None


def test_a_frame_changes_no_place_of_a_pair():
    """Ids behind every scored position and cell are those of the tight layout."""
    rng = np.random.default_rng(0)
    sizes = [(5, 3, 9), (1, 7, 2), (12, 4, 4)]
    pairs = [TokenPair(*(rng.integers(9, 99, n).tolist() for n in size)) for size in sizes]
    room = [TokenPair([1] * 40, [2] * 30, [3] * 20)] * 5
    (frame,) = build_ladder([room]).frames

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

    tight, framed = pack(pairs, True), pack(pairs, True, frame)

    wanted = [(pair.chosen, pair.rejected) for pair in pairs]
    assert scored_by_pair(tight) == wanted
    assert scored_by_pair(framed) == [*wanted, ([], []), ([], [])]
