"""Bytes of an exchange by hand, and by sending the parts one by one as MLX's ring does."""

from __future__ import annotations

import pytest

from orpo_mlx.distributed.traffic import (
    HOP_SECONDS,
    exchange_memory,
    ring_bytes,
    ring_seconds,
    step_seconds,
)


def sent_in_ring(numbers: int, size: int) -> list[int]:
    """Bytes that each process sends when the parts travel round: once added up, once as sums."""
    part = -(-numbers // size)
    lengths = [max(0, min(numbers, (i + 1) * part) - i * part) for i in range(size)]
    sent = [0] * size
    for _ in range(2):
        for rank in range(size):
            for hop in range(size - 1):
                sent[rank] += 4 * lengths[(rank - hop) % size]
    return sent


@pytest.mark.parametrize(
    ("numbers", "size", "each"),
    [(1000, 1, 0), (1000, 2, 4000), (1000, 4, 6000), (900, 3, 4800), (1000, 8, 7000)],
)
def test_each_process_sends_two_times_all_parts_but_one(numbers: int, size: int, each: int):
    assert ring_bytes(4 * numbers, size) == each
    assert sent_in_ring(numbers, size) == [each] * size


def test_parts_that_are_not_equal_come_to_the_same_in_all():
    assert sum(sent_in_ring(1001, 4)) == 2 * 3 * 4004
    assert ring_bytes(4004, 4) == 6006


def test_an_exchange_holds_the_vector_and_its_sum():
    assert exchange_memory(1000, 2) == exchange_memory(1000, 8) == 8000
    assert exchange_memory(1000, 1) == 0


def test_time_is_bytes_by_speed_and_hops():
    # 125 MB for each of two processes through 1 Gbit/s: a second, and 2 x 2 hops.
    assert ring_seconds(125_000_000, 2, 1.0) == pytest.approx(1 + 4 * HOP_SECONDS)
    assert ring_seconds(125_000_000, 4, 10.0) == pytest.approx(0.15 + 8 * HOP_SECONDS)
    assert ring_seconds(125_000_000, 1, 1.0) == 0


def test_a_step_lasts_as_long_as_the_busiest_and_the_exchange():
    assert step_seconds(2.0, 0.6, 0.1) == pytest.approx(1.3)
