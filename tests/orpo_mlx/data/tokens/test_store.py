"""Many pairs in one array: the same pairs, in little memory."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_mlx.data.tokens.store import TokenPairs, TokenPairsBuilder, gather, pair_lengths, select
from orpo_mlx.data.types import TokenPair

ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5)
pairs = st.builds(
    TokenPair, ids, ids, ids, st.text(max_size=3), st.tuples(st.sampled_from("ab")),
    margin=st.none() | st.floats(-9, 9),
)  # fmt: skip


@given(st.lists(pairs, max_size=6))
def test_what_goes_in_comes_out(given_pairs: list[TokenPair]) -> None:
    stored = gather(given_pairs)
    assert list(stored) == given_pairs
    assert stored == given_pairs
    assert len(stored) == len(given_pairs)
    assert stored[1:] == given_pairs[1:]
    assert pair_lengths(stored).tolist() == pair_lengths(given_pairs).tolist()


def make(count: int) -> list[TokenPair]:
    return [TokenPair([i], [i, i], [i, i, i], f"{i}", ("cut",)) for i in range(count)]


def test_some_are_selected_in_the_order_asked_for_without_copying_ids() -> None:
    stored = gather(make(5))
    some = select(stored, [4, 0, 2])
    assert [pair.source for pair in some] == ["4", "0", "2"]
    assert isinstance(some, TokenPairs)
    assert some.ids is stored.ids
    assert select(make(5), [4, 0]) == [make(5)[4], make(5)[0]]


def test_a_pair_from_the_end_and_one_that_is_not_there() -> None:
    stored = gather(make(3))
    assert stored[-1] == make(3)[-1]
    with pytest.raises(IndexError):
        stored[3]


def test_ids_are_python_numbers_and_lists() -> None:
    pair = gather(make(2))[1]
    assert type(pair.prompt) is list
    assert type(pair.prompt[0]) is int


def test_an_id_takes_four_bytes() -> None:
    builder = TokenPairsBuilder()
    for _ in range(100):
        builder.add(TokenPair([100_000] * 300, [100_001] * 300, [100_002] * 400))
    stored = builder.build()
    assert stored.ids.dtype == np.int32
    assert stored.ids.nbytes == 4 * 100 * 1000
    assert sys.getsizeof(stored.starts) < 10_000


def test_different_pairs_are_not_equal() -> None:
    assert gather(make(2)) != make(3)
    assert gather(make(2)) != list(reversed(make(2)))
    assert gather(make(2)) != 7
