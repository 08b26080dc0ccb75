"""Crosshair and zoom go where keys and wheel send them, and stop at the borders."""

from __future__ import annotations

import numpy as np
import pytest

from tui.charts.moves import moved_cursor, next_smoothing, panned_window, x_at, zoomed_window
from tui.charts.picture import Line, Painting, View
from tui.charts.scaling import Scale

LINE = Line("loss", "o", 0, np.arange(0.0, 101.0), np.zeros(101))


@pytest.fixture
def painting() -> Painting:
    """A plot of x 0 to 100 in 50 columns, after 10 columns of axis."""
    picture = Painting.blank(60, 10)
    picture.x, picture.left, picture.plot_width = Scale(0, 100), 10, 50
    return picture


def test_the_crosshair_begins_at_the_newest_point_and_goes_column_by_column(painting):
    assert moved_cursor(painting, [LINE], View(), -1) == 100
    assert moved_cursor(painting, [LINE], View(cursor=50.0), -1) == 48
    assert moved_cursor(painting, [LINE], View(cursor=100.0), 1) == 100
    assert moved_cursor(painting, [LINE], View(cursor=0.0), -1) == 0
    painting.x = Scale(20, 70)  # zoomed: half as much for a column
    assert moved_cursor(painting, [LINE], View(cursor=50.0), -1) == 49


def test_where_nothing_is_plotted_nothing_moves(painting):
    painting.plot_width = 0
    assert moved_cursor(painting, [LINE], View(), 1) is None
    assert x_at(painting, 20) == 0.0
    assert zoomed_window(painting, [LINE], View(), 2.0, 50) is None


def test_a_column_is_read_in_its_middle(painting):
    assert x_at(painting, 10) == 1.0
    assert x_at(painting, 59) == 99.0


def test_zooming_keeps_its_place_and_zooming_out_ends_with_all(painting):
    assert zoomed_window(painting, [LINE], View(), 2.0, 40) == Scale(20, 70)
    assert zoomed_window(painting, [LINE], View(window=Scale(20, 70)), 0.5, 50) is None
    # While a border is out of view, it is not all; at both, it is.
    for window, at, after in (
        (Scale(0, 20), 0, Scale(0, 40)),
        (Scale(90, 100), 100, Scale(80, 100)),
        (Scale(0, 49.75), 0, Scale(0, 99.5)),
        (Scale(0, 50), 0, None),
    ):
        painting.x = window
        assert zoomed_window(painting, [LINE], View(window=window), 0.5, at) == after
    # Too deep, or without data: as it was.
    painting.x = Scale(50, 50 + 1e-8)
    tiny = View(window=painting.x)
    assert zoomed_window(painting, [LINE], tiny, 2.0, 50) == painting.x
    assert zoomed_window(painting, [], tiny, 2.0, 50) == painting.x


def test_smoothing_goes_in_steps_and_stops_at_the_ends():
    assert [next_smoothing(0.9, way) for way in (-1, 1)] == [0.8, 0.95]
    assert next_smoothing(0.0, -1) == 0.0
    assert next_smoothing(0.99, 1) == 0.99
    assert next_smoothing(0.87, 1) == 0.95  # from the nearest step


def test_only_a_zoomed_chart_can_be_moved(painting):
    assert panned_window(painting, View(), 0.25) is None
    painting.x = Scale(20, 40)
    assert panned_window(painting, View(window=painting.x), 0.25) == Scale(25, 45)
