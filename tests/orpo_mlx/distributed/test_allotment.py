"""Who computes what, by hand and against the best division that trying all of them finds."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from orpo_mlx.distributed.allotment import allot, loads_of


def test_the_heaviest_go_first_each_to_whom_has_least():
    assert allot([3, 9, 4, 4], 2) == [1, 0, 1, 1]  # 9; 4 and 4, and 3 beside them: 9 and 11
    assert loads_of([3, 9, 4, 4], 2) == [9, 11]


def test_equal_ones_go_round_in_their_order_and_some_have_none():
    assert allot([5] * 5, 3) == [0, 1, 2, 0, 1]
    assert loads_of([5, 5], 4) == [5, 5, 0, 0]
    assert loads_of([], 2) == [0, 0]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(1, 3))
def test_the_busiest_has_little_more_than_in_the_best_division(costs, size):
    best = min(
        max(sum(c for c, o in zip(costs, owners, strict=True) if o == r) for r in range(size))
        for owners in product(range(size), repeat=len(costs))
    )
    loads = loads_of(costs, size)
    assert sum(loads) == sum(costs)
    assert best <= max(loads) <= best * (4 / 3 - 1 / (3 * size)) + 1e-9
