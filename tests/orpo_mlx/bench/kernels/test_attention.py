"""The comparison of masks is right itself: it sees what is wrong, and knows the answer."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.bench.kernels import attention
from orpo_mlx.bench.kernels.attention import iter_attention


def compared(*shapes: tuple[str, int, int, int]):
    return list(iter_attention({"shapes": shapes}, lambda label: None))


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (3, 11)])
def test_both_masks_equal_float64_forward_and_backward(queries: int, keys: int):
    (row,) = compared(("float32", queries, keys, 32))
    assert row["passed"] is True
    assert row["limit"] == 1e-5
    for name in ("forward_apart", "gradient_apart", "causal_error", "array_error"):
        assert row[name] < 2e-6, name
    assert row["causal"]["bytes"] > 0
    assert row["array"]["seconds"] > 0


def test_the_mask_lets_the_last_query_see_the_last_key():
    mask = np.array(attention._mask(2, 4))
    assert mask.tolist() == [[True, True, True, False], [True, True, True, True]]


def test_derivatives_written_out_equal_differences():
    """Of the weighted sum by one query, by hand: the loss moves as the gradient says."""
    q, k, v = attention._draw(mx.float32, 3, 5, 8)
    mask = np.array(attention._mask(3, 5))
    out, by_queries, by_keys, by_values = attention._in_float64((q, k, v), mask)
    weights = np.array(attention._weights(mx.zeros(out.shape)))
    for index, gradient in enumerate((by_queries, by_keys, by_values)):
        moved = [np.array(x, np.float64) for x in (q, k, v)]
        step = np.zeros_like(moved[index])
        step[0, 0, 1, 2] = 1e-2
        sums = []
        for sign in (1, -1):
            inputs = [mx.array(x) for x in moved]
            inputs[index] = mx.array(moved[index] + sign * step)
            sums.append((attention._in_float64(tuple(inputs), mask)[0] * weights).sum())
        assert (sums[0] - sums[1]) / 2e-2 == pytest.approx(gradient[0, 0, 1, 2], rel=2e-3)


def test_an_attention_that_looks_ahead_fails(monkeypatch: pytest.MonkeyPatch):
    real = mx.fast.scaled_dot_product_attention

    def careless(q, k, v, *, scale, mask):
        return real(q, k, v, scale=scale, mask=None if isinstance(mask, str) else mask)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", careless)
    (row,) = compared(("float32", 6, 6, 16))
    assert row["passed"] is False
    assert row["array_error"] < 1e-5 < row["causal_error"]


def test_what_might_not_fit_is_skipped_with_its_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 1e6})
    (row,) = compared(("float32", 64, 64, 32))
    assert (row["passed"], row["text"]) == (None, "skipped: may need 0 GB")
