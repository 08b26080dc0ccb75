"""Order, plan and layout of batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_mlx.data.batching.order import (
    cut_by_tokens,
    draw_some,
    epoch_order,
    locate,
    plan_epoch,
    steps_per_epoch,
)
from orpo_mlx.data.batching.padded import build_batch
from orpo_mlx.data.types import TokenPair

sizes = st.integers(1, 60)
ids = st.lists(st.integers(1, 99), min_size=1, max_size=40)
token_pairs = st.lists(st.builds(TokenPair, ids, ids, ids), min_size=1, max_size=6)


@given(n=sizes, seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 50))
def test_an_epoch_visits_every_pair_once(n: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(n, seed, epoch)) == list(range(n))


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    assert epoch_order(50, 7, 3) == epoch_order(50, 7, 3)
    assert epoch_order(50, 7, 3) != epoch_order(50, 7, 4)
    assert epoch_order(50, 7, 3) != epoch_order(50, 8, 3)


def test_the_order_is_the_documented_permutation() -> None:
    """Checkpoints name steps, so another order would make old runs resume elsewhere."""
    assert epoch_order(8, 0, 0) == [2, 4, 3, 6, 5, 0, 1, 7]


def test_file_order_is_the_order_of_the_file() -> None:
    assert epoch_order(5, 7, 3, "file") == [0, 1, 2, 3, 4]


def test_a_plan_written_out() -> None:
    assert plan_epoch([4, 3, 2, 1, 0, 5, 6], 2, 2) == [[(4, 3), (2, 1)], [(0, 5), (6,)]]


@given(n=sizes, micro=st.integers(1, 9), accumulation=st.integers(1, 9))
def test_a_plan_leaves_nothing_out_and_has_the_announced_steps(
    n: int, micro: int, accumulation: int
) -> None:
    plan = plan_epoch(epoch_order(n, 0, 0), micro, accumulation)
    assert len(plan) == steps_per_epoch(n, micro, accumulation)
    assert [i for step in plan for batch in step for i in batch] == epoch_order(n, 0, 0)
    assert all(len(step) == accumulation for step in plan[:-1])
    assert all(len(batch) == micro for step in plan[:-1] for batch in step)


@pytest.mark.parametrize(
    ("step", "place"), [(1, (0, 0)), (3, (0, 2)), (4, (1, 0)), (5, (1, 1)), (7, (2, 0))]
)
def test_steps_are_counted_from_one_and_epochs_from_zero(step: int, place: tuple[int, int]) -> None:
    assert locate(step, 3) == place


def test_there_is_no_step_zero() -> None:
    with pytest.raises(ValueError, match="step 0"):
        locate(0, 3)


def tokens(pairs):
    return sum(len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs)


@pytest.mark.parametrize(
    ("lengths", "pieces", "loads"),
    [
        ([5] * 8, 3, [15, 15, 10]),
        ([5] * 8, 2, [20, 20]),
        ([7, 6, 5, 4, 3, 3], 2, [14, 14]),
        ([9, 3, 3], 2, [9, 6]),  # a pair is never cut
        ([4, 4], 5, [4, 4]),
    ],
)
def test_a_micro_batch_is_cut_into_pieces_of_nearly_as_many_tokens(lengths, pieces, loads):
    pairs = [TokenPair([1] * (length - 2), [1], [1]) for length in lengths]
    found = cut_by_tokens(tuple(range(len(pairs))), pairs, tokens, pieces)
    assert sorted(sum(found, ())) == list(range(len(pairs)))
    assert sorted((tokens([pairs[i] for i in part]) for part in found), reverse=True) == loads


def test_a_batch_written_out() -> None:
    pairs = [
        TokenPair([9], [9], [9]),
        TokenPair([1, 5], [6, 2], [7]),
        TokenPair([1], [8], [4, 4, 2]),
    ]
    batch = build_batch(pairs, [2, 1], pad_id=0, pad_multiple=3)
    assert batch.input_ids.tolist() == [
        [1, 8, 0, 0],
        [1, 5, 6, 2],
        [1, 4, 4, 2],
        [1, 5, 7, 0],
    ]
    assert batch.response_mask.astype(int).tolist() == [
        [0, 1, 0, 0],
        [0, 0, 1, 1],
        [0, 1, 1, 1],
        [0, 0, 1, 0],
    ]
    assert batch.token_mask.sum(axis=1).tolist() == [2, 4, 4, 3]
    assert batch.indices == (2, 1)
    assert batch.pairs == 2
    assert batch.tokens == 13
    assert batch.input_ids.dtype == np.int32
    assert batch.response_mask.dtype == batch.token_mask.dtype == np.bool_


@given(pairs=token_pairs, multiple=st.integers(1, 40))
def test_masks_count_every_token_once(pairs: list[TokenPair], multiple: int) -> None:
    batch = build_batch(pairs, range(len(pairs)), 0, multiple)
    assert (batch.input_ids.shape[1] - 1) % multiple == 0
    assert 0 <= batch.input_ids.shape[1] - max(p.longest for p in pairs) < multiple
    assert batch.tokens == sum(p.size for p in pairs)
    assert int(batch.response_mask.sum()) == sum(len(p.chosen) + len(p.rejected) for p in pairs)
    assert not (batch.response_mask & ~batch.token_mask).any()


@given(pairs=token_pairs, seed=st.integers(0, 99), pad=st.integers(0, 99))
def test_a_pair_is_the_same_whatever_it_is_batched_with(
    pairs: list[TokenPair], seed: int, pad: int
) -> None:
    order = epoch_order(len(pairs), seed, 0)
    batch = build_batch(pairs, order, pad)
    for row, i in enumerate(order):
        for half, response in ((0, pairs[i].chosen), (len(order), pairs[i].rejected)):
            at = row + half
            assert batch.input_ids[at][batch.token_mask[at]].tolist() == pairs[i].prompt + response
            assert batch.input_ids[at][batch.response_mask[at]].tolist() == response


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        build_batch([TokenPair([1], [2], [3])], [], 0)


def test_some_are_drawn_by_seed_from_all_of_them_in_their_order():
    drawn = [draw_some(range(1000), 100, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({*drawn[0]}) == 100
    assert list(drawn[0]) == sorted(drawn[0])
    # Of the first hundred alone the mean would be 49.5; of a fair draw it is near 499.5.
    assert 400 < sum(drawn[0]) / 100 < 600
    assert draw_some(range(7), 0, 0) == draw_some(range(7), 7, 0) == range(7)
