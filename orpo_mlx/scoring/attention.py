"""Attention over a packed row: out into rectangles, back into the row.

Where prompts are not padded, the last key of an answer's rectangle is that of its last query, so
the mask is "causal", a word: MLX aligns it so. No array is made then, and on Metal mlx 0.32.4 has a
backward pass for that word alone which keeps no scores. Padding behind an answer is behind all its
queries. Layers with a window need their array all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import cast

import mlx.core as mx

from orpo_mlx.data.batching.packed import QUERY_BLOCK, Group, Packed, query_blocks
from orpo_mlx.models.activations import is_on_gpu
from orpo_mlx.models.patches import Attend, answer_mask, window_mask

FUSED_BLOCK = 2048
"""Queries that attend together on a GPU where the mask is a word for all: a kernel leaves out by
itself what is hidden. Not more, because it is made for some widths of a head only. Judged, not
measured."""

Heads = tuple[mx.array, ...]
"""Queries, keys and values of the same cells, [cells, H, D] each."""


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


def build_attend(packed: Packed, exact: bool = False) -> Attend:
    """Return the attention of a packed micro-batch: prompts causal among themselves, answers over
    their own prompt and causally over themselves.

    Args:
        packed: with mx arrays.
        exact: its prompts are not padded.

    Returns:
        A function of queries [1, H, T, D], keys and values [1, H_kv, T, D], scale, window, sinks.
    """
    to_cells = permuted(packed.cells, packed.rows, packed.is_row)
    to_row = permuted(packed.rows, packed.cells, packed.is_cell)
    sizes = [x.size for group in packed.groups for x in (group.prompt_scores, group.answer_scores)]
    bounds = list(accumulate(sizes))[:-1]

    def attend(
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        scale: float,
        window: int | None,
        sinks: mx.array | None,
    ) -> mx.array:
        q, k, v = (to_cells(x.squeeze(0).swapaxes(0, 1)) for x in (queries, keys, values))
        # Split, not sliced: the transpose of a slice fills a whole array with zeros.
        pieces = zip(*(mx.split(x, bounds) for x in (q, k, v)), strict=True)
        # For each group, of its prompts and of its answers: queries, keys, values.
        done = [
            _attend_group(group, next(pieces), next(pieces), scale, window, sinks, exact)
            for group in packed.groups
        ]
        out = to_row(mx.concatenate(done) if len(done) > 1 else done[0])
        return out.swapaxes(0, 1)[None]

    return attend


def _attend_group(
    group: Group,
    of_prompts: Heads,
    of_answers: Heads,
    scale: float,
    window: int | None,
    sinks: mx.array | None,
    exact: bool,
) -> mx.array:
    """Attend within one group; returns [cells, H, D], prompts first."""
    qp, kp, vp = (_rectangle(x, group.prompt_scores.shape) for x in of_prompts)
    qa, ka, va = (_rectangle(x, group.answer_scores.shape) for x in of_answers)
    both = [
        mx.concatenate([mx.concatenate([prompt, prompt]), answer], axis=2)
        for prompt, answer in ((kp, ka), (vp, va))
    ]
    # Prompts of one length have one mask.
    lengths = group.prompt_lengths[:1] if exact else mx.concatenate([group.prompt_lengths] * 2)
    mask: mx.array | str = "causal"
    if window is not None or not exact:
        mask = answer_mask(lengths, kp.shape[2], ka.shape[2], window)
    attend = partial(mx.fast.scaled_dot_product_attention, scale=scale, sinks=sinks)
    block = largest_block(exact and isinstance(mask, str))
    answers = _in_blocks(attend, qa, both[0], both[1], mask, block)
    if not group.prompt_scores.size:
        return _cells(answers)
    mask = "causal" if window is None else window_mask(kp.shape[2], window)
    prompts = _in_blocks(attend, qp, kp, vp, mask, block)
    return mx.concatenate([_cells(prompts), _cells(answers)])


def largest_block(exact: bool) -> int:
    """Return how many queries attend together, at least, if prompts are padded or not."""
    return FUSED_BLOCK if exact and is_on_gpu() else QUERY_BLOCK


def _in_blocks(
    attend: Callable[..., mx.array],
    q: mx.array,
    k: mx.array,
    v: mx.array,
    mask: mx.array | str,
    block: int,
) -> mx.array:
    """Attend block of queries by block, each over the keys up to its own last one: of a causal
    square that leaves little more than half to compute and to keep for the backward pass.

    Args:
        q: [rows, H, width, D]; its last token is that of the keys too.
        k, v: [rows, H_kv, before + width, D].
        mask: "causal", or true where a token may look, [..., width, before + width].
        block: queries, at least.
    """
    before = k.shape[2] - q.shape[2]
    done = []
    for start, end in query_blocks(q.shape[2], block):
        seen = before + end
        part = mask if isinstance(mask, str) else mask[..., start:end, :seen]
        done.append(attend(q[:, :, start:end], k[:, :, :seen], v[:, :, :seen], mask=part))
    return mx.concatenate(done, axis=2) if len(done) > 1 else done[0]


def _rectangle(x: mx.array, shape: tuple[int, ...]) -> mx.array:
    """[cells, H, D] to [rows, H, width, D]."""
    return x.reshape(*shape, *x.shape[1:]).swapaxes(1, 2)


def _cells(x: mx.array) -> mx.array:
    """[rows, H, width, D] to [cells, H, D]."""
    return x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3])
