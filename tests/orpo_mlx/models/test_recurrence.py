"""Recurrences in chunks against the same ones token by token, in float64 NumPy."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.models import delta_kernel, recurrence
from orpo_mlx.models.recurrence import delta_rule, inverse_of_unit_triangle, state_space

ROWS, GROUPS, HEADS, KEY, VALUE = 3, 2, 4, 8, 6
LENGTHS = [1, 17, 32, 33, 70]
"""Tokens: one, parts of a chunk, one chunk, one more, and several."""


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def delta_arrays(tokens: int) -> list[np.ndarray]:
    q, k, v, a, b, state = drawn(
        0, (ROWS, tokens, GROUPS, KEY), (ROWS, tokens, GROUPS, KEY), (ROWS, tokens, HEADS, VALUE),
        (ROWS, tokens, HEADS), (ROWS, tokens, HEADS), (ROWS, HEADS, VALUE, KEY),
    )  # fmt: skip
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    return [q, k, v, a, b, state]


# Decays from hardly any to nearly all of a state in one token.
A_LOG = np.log(np.array([0.02, 0.5, 3.0, 16.0]))
BIAS = np.array([-2.0, 0.0, 1.0, 1.0])


def softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(x))


def token_by_token(q: Any, k: Any, v: Any, a: Any, b: Any, state: Any, real: Any) -> Any:
    """The gated delta rule as its papers write it; `real` [B, T] says which tokens there are."""
    g, beta = np.exp(-np.exp(A_LOG) * softplus(a + BIAS)), 1 / (1 + np.exp(-b))
    q, k = (np.repeat(x, HEADS // GROUPS, axis=2) for x in (q, k))
    y, S = np.zeros(v.shape), state.copy()
    for row, t in zip(*np.nonzero(real), strict=True):
        for head in range(HEADS):
            key, old = k[row, t, head], g[row, t, head] * S[row, head]
            step = beta[row, t, head] * (v[row, t, head] - old @ key)
            S[row, head] = old + np.outer(step, key)
            y[row, t, head] = S[row, head] @ q[row, t, head]
    return y, S


def as_mx(arrays: Any) -> Any:
    return [mx.array(x, mx.float32) for x in arrays]


def apart(found: Any, wanted: Any) -> float:
    found, wanted = np.array(found, np.float64), np.asarray(wanted)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def masks(tokens: int) -> list[np.ndarray]:
    """All tokens, and prompts of no, some and all tokens."""
    lengths = np.array([0, tokens // 2, tokens])
    return [np.ones((ROWS, tokens), bool), np.arange(tokens) < lengths[:, None]]


@pytest.mark.parametrize("tokens", LENGTHS)
def test_a_delta_rule_in_chunks_is_that_of_single_tokens(tokens):
    arrays = delta_arrays(tokens)
    for real in masks(tokens):
        q, k, v, a, b, before = arrays
        y, state = token_by_token(q, k, v, a, b, before, real)
        *first, start = as_mx(arrays)
        found = delta_rule(*first, *as_mx([A_LOG, BIAS]), start, mx.array(real))
        assert apart(np.where(real[..., None, None], found[0], 0), y) < 2e-6
        assert apart(found[1], state) < 2e-6


def test_keys_that_are_all_alike_lose_no_digits():
    """The triangle of ones, whose powers grow to 3e8 in a chunk of 32."""
    q, k, v, a, b, state = delta_arrays(70)
    k[:] = k[:, :1]
    a[:], b[:] = -30, 5
    y, last = token_by_token(q, k, v, a, b, state, np.ones((ROWS, 70), bool))
    *first, start = as_mx([q, k, v, a, b, state])
    found = delta_rule(*first, *as_mx([A_LOG, BIAS]), start)
    assert apart(found[0], y) < 5e-6
    assert apart(found[1], last) < 5e-6


def test_the_gradient_of_a_delta_rule_is_that_of_differences():
    arrays, real = delta_arrays(37), masks(37)[1]
    (of_y, of_state) = drawn(1, (ROWS, 37, HEADS, VALUE), (ROWS, HEADS, VALUE, KEY))

    def value(q, k, v, a, b, state):
        y, state = token_by_token(q, k, v, a, b, state, real)
        return float((y * of_y).sum() + (state * of_state).sum())

    weight, weight_of_state = as_mx([np.where(real[..., None, None], of_y, 0), of_state])

    def total(*arrays):
        *first, start = arrays
        y, state = delta_rule(*first, *as_mx([A_LOG, BIAS]), start, mx.array(real))
        return (y * weight).sum() + (state * weight_of_state).sum()

    gradient = mx.grad(total, argnums=tuple(range(6)))(*as_mx(arrays))
    for place, found in enumerate(gradient):
        (along,) = drawn(2 + place, arrays[place].shape)
        ends = [
            value(*[x + size * along if i == place else x for i, x in enumerate(arrays)])
            for size in (1e-5, -1e-5)
        ]
        slope = (ends[0] - ends[1]) / 2e-5
        assert (np.array(found) * along).sum() == pytest.approx(slope, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_a_state_space_in_chunks_is_that_of_single_tokens(tokens):
    x, B, C, dt, start = drawn(
        0, (ROWS, tokens, HEADS, VALUE), (ROWS, tokens, GROUPS, KEY), (ROWS, tokens, GROUPS, KEY),
        (ROWS, tokens, HEADS), (ROWS, HEADS, VALUE, KEY),
    )  # fmt: skip
    D, limits = np.array([1.0, 0.5, 0.0, -1.0]), (0.001, 1.5)
    for real in masks(tokens):
        step = np.where(real[..., None], np.clip(softplus(dt + BIAS), *limits), 0)
        y, S = np.zeros(x.shape), start.copy()
        for row, t in zip(*np.nonzero(real), strict=True):
            for head in range(HEADS):
                size, group = step[row, t, head], head // (HEADS // GROUPS)
                added = np.outer(size * x[row, t, head], B[row, t, group])
                S[row, head] = np.exp(-size * np.exp(A_LOG[head])) * S[row, head] + added
                y[row, t, head] = S[row, head] @ C[row, t, group] + D[head] * x[row, t, head]
        given = as_mx([x, A_LOG, B, C, D, dt, BIAS, start])
        found = state_space(*given, limits, mx.array(real))
        assert apart(np.where(real[..., None, None], found[0], 0), y) < 2e-6
        assert apart(found[1], S) < 2e-6


@pytest.mark.parametrize("size", [1, 5, 8, 9, 32, 40])
def test_a_triangle_and_its_inverse_make_one(size):
    (below,) = drawn(0, (2, size, size))
    below = np.tril(below / 3, -1)
    inverse = np.array(inverse_of_unit_triangle(mx.array(below, mx.float32)), np.float64)
    np.testing.assert_allclose(inverse @ (np.eye(size) + below), [np.eye(size)] * 2, atol=1e-5)


# The kernel


SIZES = (GROUPS, KEY, HEADS, VALUE)


@pytest.fixture
def seen_in_the_graph(monkeypatch):
    """Let MLX say what it says of a graph with its kernel, which no CPU has."""
    delta_kernel.is_right.cache_clear()
    monkeypatch.setattr(mx, "export_to_dot", lambda file, *_: file.write("GatedDeltaUpdate"))
    yield
    delta_kernel.is_right.cache_clear()


def test_without_a_kernel_there_is_none_to_take():
    assert not delta_kernel.is_right(SIZES, mx.float32, recurrence._in_chunks)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_a_kernel_with_the_right_gradient_is_taken(seen_in_the_graph, dtype):
    assert delta_kernel.is_right(SIZES, dtype, recurrence._in_chunks)


def test_a_kernel_that_rounds_slow_decays_to_none_is_not(seen_in_the_graph):
    # MLX gives its kernel decays in the type of the queries, so this needs no fake.
    assert not delta_kernel.is_right(SIZES, mx.bfloat16, recurrence._in_chunks)


def test_a_kernel_with_other_bits_each_time_is_not(seen_in_the_graph, monkeypatch):
    original, calls = mx.fast.gated_delta_update, []

    def unordered(q, *rest):
        calls.append(q)
        return original(q * (1 + 1e-6 * len(calls)), *rest)

    monkeypatch.setattr(mx.fast, "gated_delta_update", unordered)
    assert not delta_kernel.is_right(SIZES, mx.float32, recurrence._in_chunks)


def test_a_kernel_with_another_gradient_is_not(seen_in_the_graph, monkeypatch):
    original = mx.fast.gated_delta_update

    def wrong(q, k, v, g, beta, state):
        return original(q, k, v, g, mx.stop_gradient(beta), state)

    monkeypatch.setattr(mx.fast, "gated_delta_update", wrong)
    assert not delta_kernel.is_right(SIZES, mx.float32, recurrence._in_chunks)


def test_a_kernel_that_fails_is_not(seen_in_the_graph, monkeypatch):
    def failing(*_):
        raise RuntimeError("not on this device")

    monkeypatch.setattr(mx.fast, "gated_delta_update", failing)
    assert not delta_kernel.is_right(SIZES, mx.float32, recurrence._in_chunks)
