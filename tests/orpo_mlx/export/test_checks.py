"""What the checks let pass and what not."""

import math

import numpy as np
import pytest

from orpo_mlx.export.checks import (
    PRECISION,
    DeltaDifference,
    check_delta,
    check_finite,
    check_tensors,
    compare_factors,
)

RNG = np.random.default_rng(0)


def test_the_same_product_of_other_factors_is_no_difference():
    """(B T) (T^-1 A) = B A for any turn T."""
    b, a = RNG.normal(size=(9, 3)), RNG.normal(size=(3, 7))
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    found = compare_factors("x", (b, a), (b @ turn, turn.T @ a))
    assert found.difference < 1e-14
    assert found.largest == np.abs(b @ a).max()


def test_one_wrong_entry_of_one_expert_in_the_last_rows_is_the_difference():
    b, a = RNG.normal(size=(2, 5000, 3)), RNG.normal(size=(2, 3, 7))
    other = b.copy()
    other[1, 4999] += 1.0
    found = compare_factors("x", (b, a), (other, a))
    assert found.difference == pytest.approx(np.abs(a[1].sum(0)).max())


@pytest.mark.parametrize("dtype", PRECISION)
def test_the_worst_layer_decides_by_its_own_size(dtype):
    limit = PRECISION[dtype]
    small = DeltaDifference("small", 0.9 * limit * 1e-3, 1e-3)
    large = DeltaDifference("large", 0.1 * limit * 10, 10.0)
    assert check_delta([small, large], dtype).passed
    check = check_delta([large, DeltaDifference("small", 1.1 * limit * 1e-3, 1e-3)], dtype)
    assert not check.passed
    assert "small" in check.text


def test_nan_never_passes():
    assert not check_delta([DeltaDifference("x", math.nan, 1.0)], "float32").passed
    assert not check_finite([("x", np.array([1.0, np.inf]))]).passed


def test_an_adapter_of_zeros_passes():
    zeros = np.zeros((4, 2)), np.zeros((2, 4))
    assert check_delta([compare_factors("x", zeros, zeros)], "float32").passed


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"a": (1, 2)}, "1 tensors missing"),
        ({"a": (1, 2), "b": (3,), "c": (1,)}, "1 surplus"),
        ({"a": (2, 1), "b": (3,)}, "1 of another shape"),
    ],
)
def test_missing_surplus_and_misshapen_tensors_are_counted(found, says):
    check = check_tensors(found, {"a": (1, 2), "b": (3,)})
    assert not check.passed
    assert says in check.text
