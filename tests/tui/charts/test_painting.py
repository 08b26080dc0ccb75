"""Charts as text: known lines give known cells in each charset."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from tui.charts.cells import CHARSETS
from tui.charts.painting import Painter, clock_text, nearest_index
from tui.charts.picture import Ink, Line, Painting, View, ink_name
from tui.charts.scaling import Scale


def line(xs, ys, **given):
    marker, colour = given.pop("marker", "o"), given.pop("colour", 0)
    xs, ys = np.array(xs, dtype=float), np.array(ys, dtype=float)
    return Line(given.pop("name", "train"), marker, colour, xs, ys, **given)


def paint(lines, view=None, charset="braille", size=(30, 8), marks=()):
    painter = Painter("Loss", CHARSETS[charset])
    return painter.paint(lines, view or View(), *size, marks)


@pytest.mark.parametrize(
    ("charset", "dots", "expected"),
    [
        # Braille counts its dots down the left column, then the right, the last row being 7 and 8.
        ("braille", [[1, 0], [0, 0], [0, 0], [0, 1]], "⢁"),
        ("braille", [[1, 1]] * 4, "⣿"),
        ("blocks", [[0, 1], [1, 0]], "▞"),
        ("blocks", [[1, 0], [1, 1]], "▙"),
        ("ascii", [[1], [0]], "'"),
        ("ascii", [[1], [1]], ":"),
    ],
)
def test_dots_become_the_character_with_just_these_dots(charset, dots, expected):
    found = CHARSETS[charset]
    cells = found.cells(np.array(dots, dtype=bool))
    assert [[chr(found.codes[cell]) for cell in row] for row in cells] == [[expected]]


def test_a_rising_line_goes_from_bottom_left_to_top_right():
    picture = paint([line([0, 10], [0, 10])], charset="blocks")
    rows = [picture.row_text(row)[picture.left :] for row in range(1, 6)]
    drawn = [[i for i, c in enumerate(row) if c not in " ·"] for row in rows]
    assert drawn[0][-1] > drawn[-1][-1]
    assert all(min(a) >= min(b) for a, b in pairwise(drawn))


def test_title_names_each_line_with_its_letter_and_newest_value():
    lines = [line([0, 1], [2, 1.5]), line([0], [9], name="valid", marker="x", colour=1)]
    picture = paint(lines, size=(60, 8))
    assert picture.row_text(0).rstrip() == "Loss  o train 1.500  x valid 9.000"
    assert picture.inks[0, 6] == Ink.LINE


@pytest.mark.parametrize(
    ("width", "legend"),
    [
        (34, "Loss  o train 1.000  x held out"),
        (28, "Loss  o train  x held out"),
        (24, "Loss o train x held out"),
        (23, "Loss o train x held out"),
        (22, "Loss  o train 1.000  x"),
        (18, "Loss  o train  x"),
        (16, "Loss  o train  x"),
    ],
)
def test_in_a_narrow_chart_values_give_way_from_the_last_line_on_and_names_stay(width, legend):
    lines = [line([0], [1], name="train"), line([0], [2], marker="x", name="held out")]
    assert paint(lines, size=(width, 8)).row_text(0).rstrip() == legend


@pytest.mark.parametrize(
    ("width", "legend"),
    [
        (49, "Loss  c chosen -1.500  r rejected  C R validation"),
        (48, "Loss  c chosen  r rejected  C R validation"),
        (42, "Loss  c chosen  r rejected  C R validation"),
        (39, "Loss c chosen r rejected C R validation"),
        (36, "Loss c chosen r rejected C R valid"),
        (33, "Loss  c chosen  r rej  C R valid"),
        (29, "Loss c chosen r rej C R valid"),
        (28, "Loss c chosen r rejected C R"),
        (23, "Loss c chosen r rej C R"),
    ],
)
def test_names_become_short_after_all_values_went_and_the_last_one_goes_first(width, legend):
    sides = [line([0], [-1.5], marker=s[0], name=s) for s in ("chosen", "rejected")]
    sides += [line([0], [-2.5], marker=s, name="validation") for s in "CR"]
    assert paint(sides, size=(width, 8)).row_text(0).rstrip() == legend


def test_lines_of_one_name_share_it():
    lines = [line([0], [1], name="a"), *(line([0], [n], marker=str(n), name="b") for n in (2, 3))]
    assert paint(lines, size=(60, 8)).row_text(0).rstrip() == "Loss  o a 1.000  2 3 b 2.000 3.000"
    # One value of two would not say whose it is.
    assert paint(lines, size=(33, 8)).row_text(0).rstrip() == "Loss  o a 1.000  2 3 b"


@pytest.mark.parametrize(("low", "high"), [(0.31, 0.36), (1.0, 1.0), (-7.3, 9000.0)])
def test_the_y_axis_has_two_labels_at_least(low, high):
    rows = paint([line([0, 5], [low, high])], size=(40, 5)).text().split("\n")[1:3]
    assert all(row[:6].strip() for row in rows)


@pytest.mark.parametrize(
    ("steps", "end", "high"),
    [
        ([0], 6, 6),  # the evaluation before the first step
        ([1], 6, 6),
        ([1, 8], 1000, 1000),
        ([1, 6], 6, 6),
        ([1, 7], 6, 8),  # went on: a tick of one and a tenth beyond
        ([0], 0, 10),  # nobody knows
    ],
)
def test_the_x_axis_goes_to_the_end_from_the_first_value_on(steps, end, high):
    painter = Painter("Loss", CHARSETS["braille"])
    painter.paint([line([], [])], View(), 60, 10, end=end)
    assert painter.paint([line(steps, steps)], View(), 60, 10, end=end).x == Scale(0, high)


def test_marks_and_values_that_are_no_numbers_stand_on_the_x_axis():
    lines = [line([0, 5, 10], [1, math.nan, 1])]
    picture = paint(lines, marks=[(2, "checkpoint"), (8, "pause"), (99, "resume")])
    axis = picture.row_text(6)
    assert axis.count("▴") == axis.count("‖") == axis.count("!") == 1
    assert "▸" not in axis
    assert axis.index("▴") < axis.index("!") < axis.index("‖")
    assert picture.inks[6, axis.index("!")] == Ink.BAD


def test_ascii_uses_nothing_but_ascii():
    lines = [line(range(50), np.sin(range(50))), line([0, 40], [0, 1], marker="x", points=True)]
    text = paint(lines, View(smoothing=0.9, cursor=20), "ascii", marks=[(3, "resume")]).text()
    assert text.isascii()


def test_the_cursor_reads_the_nearest_point():
    picture = paint([line([0, 10, 20], [1, 2, 3])], View(cursor=12.0), size=(60, 8))
    assert "step 12" in picture.row_text(0)
    assert "train 2.000" in picture.row_text(0)


def test_the_raw_values_lie_behind_only_the_chosen_line():
    ys = np.random.default_rng(0).normal(0, 1, 400)
    lines = [line(range(400), ys), line(range(400), ys + 5, marker="x", colour=1)]
    inks = {int(ink) for ink in np.unique(paint(lines, View(smoothing=0.9, band=1)).inks)}
    assert Ink.BAND + 1 in inks
    assert Ink.BAND not in inks
    assert Ink.BAND + 1 not in np.unique(paint(lines, View(smoothing=0.9, band=-1)).inks)


def test_growing_data_leaves_most_rows_as_they_are():
    """What the terminal receives is the rows that differ: the axes must not move each time."""
    painter = Painter("Loss", CHARSETS["braille"])
    xs, ys = np.arange(1.0, 501), 2 + 0.01 * np.random.default_rng(0).normal(size=500)
    changed = []
    before = painter.paint([line(xs[:400], ys[:400])], View(smoothing=0.9), 100, 20)
    for count in range(401, 500):
        after = painter.paint([line(xs[:count], ys[:count])], View(smoothing=0.9), 100, 20)
        changed.append(int((before.codes != after.codes).any(axis=1).sum()))
        before = after
    assert np.median(changed) <= 3


def test_no_data_says_so_and_a_tiny_chart_draws_nothing_wrong():
    assert "no loss yet" in paint([]).text()
    assert paint([line([0], [1])], size=(8, 2)).text().startswith("Loss")


@pytest.mark.parametrize(
    ("window", "width", "labels"),
    [
        (Scale(0, 100), 60, ["0", "50", "100"]),
        # One that would run into the one before is left out.
        (Scale(99_990, 100_010), 29, ["99.99k", "100.00k"]),
    ],
)
def test_the_x_axis_is_labelled_and_labels_keep_apart(window, width, labels):
    xs = [window.low, window.high]
    picture = paint([line(xs, [0, 1])], View(window=window), size=(width, 10))
    assert picture.row_text(9).split() == ["step", *labels]


def test_each_of_two_lines_carries_its_letter_on_it():
    lines = [line([0, 9], [1, 1], marker="A"), line([0, 9], [3, 3], marker="B", colour=1)]
    picture = paint(lines, size=(60, 12))
    rows = {sign: {r for r in range(1, 10) if sign in picture.row_text(r)} for sign in "AB"}
    assert len(rows["A"]) == len(rows["B"]) == 1
    assert rows["B"] < set(range(1, max(rows["A"])))
    assert not {"A", "B"} & set(paint(lines[:1], size=(60, 12)).row_text(max(rows["A"])))


def test_a_zoomed_chart_shows_its_window_only():
    picture = paint([line(range(100), range(100))], View(window=Scale(40, 60)), size=(60, 10))
    assert (picture.x.low, picture.x.high) == (40, 60)
    assert picture.y.low > 30
    assert picture.y.high < 70


@pytest.mark.parametrize(("x", "index"), [(-5, 0), (0.4, 0), (0.6, 1), (9, 2)])
def test_nearest_point(x, index):
    assert nearest_index(np.array([0.0, 1.0, 2.0]), x) == index


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45s"), (60, "1m"), (90, "1m30"), (3600, "1h"), (5400, "1h30")]
)
def test_times_on_an_axis(seconds, text):
    assert clock_text(seconds) == text


def test_changes_name_the_cells_that_differ_and_no_others():
    old, new = Painting.blank(20, 4), Painting.blank(20, 4)
    new.write(1, 3, "ab", Ink.LABEL)
    new.write(3, 0, "x", Ink.LABEL)
    new.write(3, 19, "x", Ink.LABEL)
    assert new.changes(old) == [(1, 3, 5), (3, 0, 20)]
    assert new.changes(new) == []


def test_a_row_comes_in_pieces_of_one_ink():
    picture = Painting.blank(8, 1)
    picture.write(0, 2, "ab", Ink.TITLE)
    picture.write(0, 4, "c", Ink.LINE + 1)
    blank, title, line = int(Ink.BLANK), int(Ink.TITLE), Ink.LINE + 1
    assert list(picture.pieces(0)) == [("  ", blank), ("ab", title), ("c", line), ("   ", blank)]
    assert [ink_name(ink) for ink in (blank, title, line)] == ["", "title", "line-2"]


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (View(log_y=True), "no value above 0 for a log axis"),
        (View(window=Scale(5, 9)), "no value in this part"),
    ],
)
def test_an_empty_view_of_what_has_values_says_why(view, words):
    assert words in paint([line([0, 1, 2], [-1, -2, -3])], view, size=(60, 8)).text()


def test_the_x_axis_has_a_name():
    painter = Painter("Loss", CHARSETS["ascii"], x_name="tokens")
    picture = painter.paint([line([0, 5000], [1, 2])], View(), 60, 8)
    assert picture.row_text(7).startswith("tokens ")


def test_a_line_of_one_value_is_seen_by_its_letter():
    lines = [line([0], [2.0], marker="A"), line([0, 10], [2.0, 1.0], marker="B", colour=1)]
    rows = paint(lines, size=(60, 10)).text().split("\n")[1:]
    assert sum(row.count("A") for row in rows) == 1
