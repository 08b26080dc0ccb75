"""Where ticks stand and what they say."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_mlx.text.ticks import format_tick, format_value, log_ticks, nice_step, nice_ticks

SPANS = st.floats(1e-6, 1e7)


@pytest.mark.parametrize(
    ("span", "count", "step"),
    [(100, 5, 20), (1, 4, 0.5), (10, 5, 2), (7, 7, 1), (0.03, 3, 0.01), (3000, 2, 2000)],
)
def test_a_step_is_one_two_or_five_times_a_power_of_ten(span, count, step):
    assert nice_step(span, count) == pytest.approx(step)


@given(SPANS, st.integers(1, 10))
def test_a_step_divides_the_span_into_no_more_than_asked(span, count):
    step = nice_step(span, count)
    assert span / step <= count * (1 + 1e-6)
    mantissa = step / 10.0 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 5, 10)) < 1e-6


@given(st.floats(-1e6, 1e6), SPANS, st.integers(1, 10))
def test_ticks_lie_within_the_axis_and_are_evenly_spaced(low, span, count):
    ticks = nice_ticks(low, low + span, count)
    slack = 1e-6 * (abs(low) + span)
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    assert len(ticks) <= count + 1
    gaps = [b - a for a, b in pairwise(ticks)]
    assert all(gap == pytest.approx(gaps[0], rel=1e-3, abs=slack) for gap in gaps)


def test_an_axis_without_length_or_end_has_one_tick_or_none():
    assert nice_ticks(3.0, 3.0) == [3.0]
    assert nice_ticks(math.nan, 1.0) == []
    assert nice_ticks(0.0, math.inf) == [0.0]


def test_a_logarithmic_axis_has_powers_of_ten_and_more_where_few_fit():
    assert log_ticks(1, 1000, 5) == [1, 10, 100, 1000]
    assert log_ticks(1, 8, 5) == [1, 2, 5]
    assert log_ticks(1e-6, 1e6, 3) == pytest.approx([1e-6, 1e-2, 1e2, 1e6])
    assert all(2.1 <= tick <= 2.6 for tick in log_ticks(2.1, 2.6, 5))
    assert log_ticks(0.0, 10.0) == []


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (0.1 + 0.2, 0.1, "0.3"), (-2.0, 1.0, "-2"), (0.25, 0.05, "0.25"), (1500.0, 500.0, "1500"),
        (20000.0, 5000.0, "20k"), (2.5e6, 5e5, "2.5M"), (0.0, 1.0, "0"), (1e-17, 0.1, "0"),
        (0.0002, 0.0001, "2e-4"), (-15000.0, 5000.0, "-15k"),
    ],
)  # fmt: skip
def test_a_tick_says_no_more_than_its_step_needs(value, step, text):
    assert format_tick(value, step) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "1.500"), (-12.345, "-12.35"), (123.45, "123.5"), (1842.3, "1842"), (5e-5, "5.0e-5"),
        (0.01234, "0.012"), (3.2e6, "3.20M"), (0.0, "0"), (math.nan, "NaN"), (-math.inf, "inf"),
    ],
)  # fmt: skip
def test_a_value_has_about_four_digits(value, text):
    assert format_value(value) == text
