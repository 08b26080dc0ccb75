"""Points become columns and dots without losing an extreme; axes stay while data grows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.charts.scaling import Scale, data_range, fill_spans, grown_x, resample, settled_y

NAN = math.nan


def arrays(*values):
    return [np.array(one, dtype=float) for one in values]


def test_a_column_keeps_first_last_lowest_and_highest_of_its_points():
    xs, ys = arrays([0.1, 0.2, 0.3, 0.9, 2.5], [3, 9, 1, 4, 7])
    columns = resample(xs, ys, 3)
    assert columns.first.tolist() == pytest.approx([3, NAN, 7], nan_ok=True)
    assert columns.last.tolist() == pytest.approx([4, NAN, 7], nan_ok=True)
    assert columns.low.tolist() == pytest.approx([1, NAN, 7], nan_ok=True)
    assert columns.high.tolist() == pytest.approx([9, NAN, 7], nan_ok=True)


def test_an_empty_column_is_crossed_on_the_straight_line_between_its_neighbours():
    xs, ys = arrays([0.5, 4.5], [0, 8])
    low, high = resample(xs, ys, 5).line_span()
    # The line y = 2 (x - 0.5), column by column.
    assert low.tolist() == [0, 1, 3, 5, 7]
    assert high.tolist() == [1, 3, 5, 7, 8]


def test_a_value_that_is_no_number_breaks_the_line():
    xs, ys = arrays([0.5, 2.5, 4.5], [1, NAN, 1])
    low, high = resample(xs, ys, 5).line_span()
    assert np.isnan(low[1:4]).all()
    assert np.isnan(high[1:4]).all()
    assert (low[0], low[4]) == (1, 1)


def test_points_beside_the_window_join_the_line_at_its_border():
    xs, ys = arrays([-1.0, 3.0], [0, 4])
    low, high = resample(xs, ys, 2).line_span()
    assert low.tolist() == [1, 2]
    assert high.tolist() == [2, 3]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 40))
def test_resampling_keeps_the_extremes_of_any_data(values, width):
    ys = np.array(values)
    xs = np.linspace(0, width - 1e-3, len(ys))
    columns = resample(xs, ys, width)
    assert np.nanmin(columns.low) == ys.min()
    assert np.nanmax(columns.high) == ys.max()


def test_spans_fill_dots_from_the_bottom():
    low, high = arrays([0, 1.5, NAN, 4], [0.9, 2.5, NAN, 4])
    dots = fill_spans(low, high, 4)
    assert dots.astype(int).tolist() == [
        [0, 0, 0, 1],  # 4 is the upper border: it belongs to the top row
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [1, 0, 0, 0],
    ]


def test_what_lies_outside_is_cut_off():
    low, high = arrays([-5, 9, -5], [-1, 12, 12])
    assert fill_spans(low, high, 2).astype(int).tolist() == [[0, 0, 1], [0, 0, 1]]


def test_the_x_axis_grows_in_steps_of_about_a_tenth():
    axis, changes = grown_x(None, 0, 1), 0
    for x in range(2, 1001):
        grown = grown_x(axis, 0, x)
        changes += grown is not axis
        axis = grown
        assert axis.high >= x
    assert axis.high <= 1300
    assert changes < 60


def test_the_y_axis_stays_until_left_or_hardly_used():
    axis = settled_y(None, 0, 10)
    assert settled_y(axis, 0.5, 10.2) is axis
    assert settled_y(axis, 0, 11) is not axis
    shrunk = settled_y(axis, 4, 6)
    assert (shrunk.low > 3, shrunk.high < 7) == (True, True)


def test_a_logarithmic_axis_maps_powers_evenly_and_back():
    scale = Scale(1, 1000, log=True)
    assert scale.to_dots(np.array([1.0, 10.0, 100.0, 0.0, -1.0]), 30).tolist() == pytest.approx(
        [0, 10, 20, NAN, NAN], nan_ok=True
    )
    assert scale.from_dots(10, 30) == pytest.approx(10)


def test_zooming_keeps_the_place_under_the_pointer():
    zoomed = Scale(0, 100).zoomed(2, 75)
    assert (zoomed.low, zoomed.high) == (37.5, 87.5)
    assert Scale(0, 100).moved(0.25) == Scale(25, 125)


def test_the_range_ignores_what_cannot_be_drawn():
    assert data_range(arrays([1, NAN, 3], [math.inf, -2])) == (-2, 3)
    assert data_range(arrays([-1, 0.5, 3]), log=True) == (0.5, 3)
    assert data_range(arrays([NAN])) is None
