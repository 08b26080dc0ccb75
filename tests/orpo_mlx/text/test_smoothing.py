from __future__ import annotations

import numpy as np
import pytest

from orpo_mlx.text.smoothing import smooth

NAN = float("nan")


def slow_average(values, weight):
    """The definition, one value after the other."""
    average, total, result = 0.0, 0.0, []
    for value in values:
        average = weight * average + (1 - weight) * value
        total = weight * total + (1 - weight)
        result.append(average / total)
    return result


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9, 0.99])
def test_smoothing_equals_its_definition_over_many_blocks(weight):
    values = np.random.default_rng(0).normal(3, 2, 3000)
    assert smooth(values, weight) == pytest.approx(slow_average(values, weight), rel=1e-9)


def test_smoothing_starts_at_the_first_value_and_passes_over_gaps():
    smoothed = smooth(np.array([5.0, NAN, 5.0]), 0.9)
    assert smoothed.tolist() == pytest.approx([5, NAN, 5], nan_ok=True)
    assert smooth(np.array([1.0, 2.0]), 0).tolist() == [1, 2]


def test_the_average_is_debiased():
    # weight 1/2: (1), (1/2*1 + 2)/(3/2), ...
    assert smooth(np.array([1.0, 2.0, 4.0]), 0.5) == pytest.approx([1.0, 5 / 3, 3.0])
    assert smooth(np.full(5, 7.0), 0.9) == pytest.approx([7.0] * 5)
