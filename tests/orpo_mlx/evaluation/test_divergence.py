"""KL divergence against its definition."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.evaluation.divergence import divergences


def test_the_example_by_hand():
    one, other = mx.log(mx.array([[0.5, 0.5]])), mx.log(mx.array([[0.25, 0.75]]))
    wanted = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert divergences(one, other).item() == pytest.approx(wanted, rel=1e-5)
    assert wanted == pytest.approx(0.1438, abs=1e-4)


def test_it_is_the_sum_over_the_vocabulary_in_float64_and_0_for_the_same():
    random = np.random.Generator(np.random.PCG64(0))
    logits = random.normal(scale=3, size=(2, 7, 50))
    logps = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    wanted = (np.exp(logps[0]) * (logps[0] - logps[1])).sum(axis=-1)
    one, other = (mx.array(part.astype(np.float32)) for part in logps)
    assert np.array(divergences(one, other)) == pytest.approx(wanted, rel=1e-4)
    assert np.array(divergences(one, one)).tolist() == [0.0] * 7
