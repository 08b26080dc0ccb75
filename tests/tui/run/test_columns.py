"""A table counts every row, wherever it lies by then."""

from __future__ import annotations

import math

import numpy as np

from tui.run.columns import Table


def test_rows_are_counted_before_and_after_they_were_read():
    table = Table(("step", "loss"), capacity=2)
    assert (len(table), math.isnan(table.last("loss"))) == (0, True)
    table.extend(np.array([[1.0, 0.9], [2.0, 0.8], [3.0, 0.7]]))
    table.append((4.0, 0.6))
    table.append((5.0, 0.5))
    assert len(table) == 5
    assert table.column("step").tolist() == [1, 2, 3, 4, 5]
    assert (len(table), table.last("loss")) == (5, 0.5)


def test_what_is_forgotten_is_written_over():
    table = Table(("step",))
    for step in (1.0, 2.0, 3.0):
        table.append((step,))
    table.keep(1)
    table.append((9.0,))
    assert table.column("step").tolist() == [1, 9]
    table.keep(-1)
    assert len(table) == 0
