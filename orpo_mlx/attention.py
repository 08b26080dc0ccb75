"""Attention over a packed row: out into rectangles, back into the row."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from orpo_mlx.data.packing import Group, Packed
from orpo_mlx.seams import Attend, answer_mask, window_mask


def permuted(
    index: mx.array, inverse: mx.array, is_inverse: mx.array
) -> Callable[[mx.array], mx.array]:
    """Return a gather of rows whose transpose is a gather too.

    MLX's own transpose of a gather is a scatter-add, which is slow; where every source row is read
    once at most, the inverse index does the same.

    Args:
        index: [M] source rows; what padding reads must not matter.
        inverse: [T] for each source row, where it went.
        is_inverse: [T] false for source rows that went nowhere.
    """

    @mx.custom_function
    def gather(x: mx.array) -> mx.array:
        return mx.take(x, index, axis=0)

    @gather.vjp
    def gather_vjp(_: mx.array, cotangent: mx.array, __: mx.array) -> mx.array:
        shape = (-1,) + (1,) * (cotangent.ndim - 1)
        return mx.where(is_inverse.reshape(shape), mx.take(cotangent, inverse, axis=0), 0)

    return cast(Callable[[mx.array], mx.array], gather)


def build_attend(packed: Packed) -> Attend:
    """Return the attention of a packed micro-batch: prompts causal among themselves, answers over
    their own prompt and causally over themselves.

    Args:
        packed: with mx arrays.

    Returns:
        A function of queries [1, H, T, D], keys and values [1, H_kv, T, D], scale, window, sinks.
    """
    to_cells = permuted(packed.cells, packed.rows, packed.is_row)
    to_row = permuted(packed.rows, packed.cells, packed.is_cell)

    def attend(
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        scale: float,
        window: int | None,
        sinks: mx.array | None,
    ) -> mx.array:
        q, k, v = (to_cells(x[0].swapaxes(0, 1)) for x in (queries, keys, values))
        done, start = [], 0
        for group in packed.groups:
            size = group.prompt_scores.size + group.answer_scores.size
            gq, gk, gv = (x[start : start + size] for x in (q, k, v))
            done.append(_attend_group(group, gq, gk, gv, scale, window, sinks))
            start += size
        out = to_row(mx.concatenate(done) if len(done) > 1 else done[0])
        return out.swapaxes(0, 1)[None]

    return attend


def _attend_group(
    group: Group,
    q: mx.array,
    k: mx.array,
    v: mx.array,
    scale: float,
    window: int | None,
    sinks: mx.array | None,
) -> mx.array:
    """Attend within one group; all cells in, [cells, H, D] out."""
    cells = group.prompt_scores.size
    qp, kp, vp = (_rectangle(x[:cells], group.prompt_scores.shape) for x in (q, k, v))
    qa, ka, va = (_rectangle(x[cells:], group.answer_scores.shape) for x in (q, k, v))
    both = [
        mx.concatenate([mx.concatenate([prompt, prompt]), answer], axis=2)
        for prompt, answer in ((kp, ka), (vp, va))
    ]
    lengths = mx.concatenate([group.prompt_lengths] * 2)
    mask = answer_mask(lengths, kp.shape[2], ka.shape[2], window)
    attention = mx.fast.scaled_dot_product_attention
    answers = attention(qa, *both, scale=scale, mask=mask, sinks=sinks)
    if not cells:
        return _cells(answers)
    mask = "causal" if window is None else window_mask(kp.shape[2], window)
    prompts = attention(qp, kp, vp, scale=scale, mask=mask, sinks=sinks)
    return mx.concatenate([_cells(prompts), _cells(answers)])


def _rectangle(x: mx.array, shape: tuple[int, ...]) -> mx.array:
    """[cells, H, D] to [rows, H, width, D]."""
    return x.reshape(*shape, *x.shape[1:]).swapaxes(1, 2)


def _cells(x: mx.array) -> mx.array:
    """[rows, H, width, D] to [cells, H, D]."""
    return x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3])
