"""Intervals from draws of groups, against formulas and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orpo_mlx.evaluation.interval import Interval, Resampling, Sums, mean_of, wilson


def shares(right: int, count: int) -> np.ndarray:
    return np.array([True] * right + [False] * (count - right))


def test_wilson_is_the_published_example():
    # 8 of 10: 0.4902 to 0.9433, as in Newcombe 1998 and every textbook since.
    found = wilson(0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=5e-4)
    assert wilson(0.0, 10).low == 0.0
    assert wilson(0.0, 10).high == pytest.approx(0.2775, abs=5e-4)


@pytest.mark.parametrize(("right", "count"), [(120, 200), (35, 50), (900, 1000)])
def test_the_interval_of_a_share_is_close_to_wilsons(right: int, count: int):
    values = shares(right, count)
    found = Resampling(np.arange(count)).interval(mean_of(values), is_share=True)
    wanted = wilson(right / count, count)
    assert found.value == right / count
    # A percentile interval of 35 of 50 lies on multiples of 0.02.
    close = 0.5 / count + 0.012
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=close)


def test_a_share_of_all_is_not_said_to_be_certain():
    found = Resampling(np.arange(40)).interval(mean_of(shares(40, 40)), is_share=True)
    assert found == wilson(1.0, 40)
    assert found.low == pytest.approx(0.9124, abs=5e-4)


def test_a_mean_of_normal_values_has_the_textbook_interval():
    values = np.random.Generator(np.random.PCG64(5)).normal(size=400)
    found = Resampling(np.arange(400), draws=8000).interval(mean_of(values))
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_copies_of_a_pair_in_one_group_tell_nothing_new():
    values = shares(30, 50)
    alone = Resampling(np.arange(50), seed=3).interval(mean_of(values))
    copied = Resampling(np.repeat(np.arange(50), 4), seed=3).interval(mean_of(values.repeat(4)))
    as_if_independent = Resampling(np.arange(200), seed=3).interval(mean_of(values.repeat(4)))
    assert copied == alone
    assert as_if_independent.high - as_if_independent.low < 0.6 * (alone.high - alone.low)


def test_a_difference_is_paired():
    """Two sides that share all that is hard about the pairs: apart by 1, and nearly surely so."""
    random = np.random.Generator(np.random.PCG64(1))
    before = random.normal(scale=10, size=100)
    after = before + 1 + random.normal(scale=0.1, size=100)
    draws = Resampling(np.arange(100))
    found, error = draws.difference(mean_of(before), mean_of(after))
    assert found.value == pytest.approx(1, abs=0.05)
    assert 0 < found.high - found.low < 0.1
    assert error == pytest.approx(0.01, rel=0.3)
    assert draws.difference(mean_of(before), mean_of(before))[0] == Interval(0, 0, 0)


def test_a_share_that_has_not_moved_is_not_said_to_be_certain_to_stay():
    draws, some = Resampling(np.arange(40)), mean_of(shares(15, 40))
    found, error = draws.difference(some, some, is_share=True)
    assert (found.value, error) == (0, 0)
    assert (found.low, found.high) == pytest.approx((-0.0876, 0.0876), abs=5e-4)
    none, every = mean_of(shares(0, 40)), mean_of(shares(40, 40))
    assert draws.difference(none, every, is_share=True)[0] == wilson(1.0, 40)
    fell = draws.difference(every, none, is_share=True)[0]
    assert (fell.value, fell.low, fell.high) == (-1, -1, -wilson(1.0, 40).low)


def test_nats_per_token_weigh_tokens_not_pairs():
    sums = Sums(np.array([10.0, 1.0]), np.array([20.0, 1.0]))
    assert sums.value == pytest.approx(11 / 21)
    assert sums.where(np.array([True, False])).value == 0.5


def test_the_seed_decides_and_the_number_of_draws_at_once_does_not(monkeypatch):
    values = np.random.Generator(np.random.PCG64(2)).normal(size=60)
    first = Resampling(np.arange(60), seed=1).interval(mean_of(values))
    assert Resampling(np.arange(60), seed=1).interval(mean_of(values)) == first
    assert Resampling(np.arange(60), seed=2).interval(mean_of(values)) != first
    monkeypatch.setattr("orpo_mlx.evaluation.interval._CELLS", 600)
    assert Resampling(np.arange(60), seed=1).interval(mean_of(values)) == first


def test_no_pairs_have_no_interval():
    with pytest.raises(ValueError, match="no pairs"):
        Resampling(np.array([], int))
