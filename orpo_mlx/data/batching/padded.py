"""Pairs as padded rows [2B, T] with masks, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orpo_mlx.data.types import Batch, TokenPair


def build_batch(
    pairs: Sequence[TokenPair],
    indices: Sequence[int],
    pad_id: int,
    pad_multiple: int = 32,
    at_least: int = 0,
) -> Batch:
    """Lay pairs out as padded rows: chosen rows first, then rejected rows, padding on the right.

    Args:
        pairs: the dataset.
        indices: [B] positions in it.
        pad_id: fills the padding; what it is changes nothing, since both masks are false there.
        pad_multiple: T - 1, what the model sees, is rounded up to a multiple of it: few
            shapes are compiled, and matrices have sizes that hardware likes.
        at_least: the smallest T.

    Raises:
        ValueError: there are no indices.
    """
    if not indices:
        raise ValueError("a batch needs at least one pair")
    chosen = [(pairs[i].prompt, pairs[i].chosen) for i in indices]
    rejected = [(pairs[i].prompt, pairs[i].rejected) for i in indices]
    rows = chosen + rejected
    longest = max(at_least, *(len(prompt) + len(response) for prompt, response in rows))
    # The model sees one token less: that width is the one to round.
    width = -(-(longest - 1) // pad_multiple) * pad_multiple + 1
    input_ids = np.full((len(rows), width), pad_id, dtype=np.int32)
    response_mask = np.zeros((len(rows), width), dtype=np.bool_)
    token_mask = np.zeros((len(rows), width), dtype=np.bool_)
    for row, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response)
        input_ids[row, :end] = prompt + response
        response_mask[row, len(prompt) : end] = True
        token_mask[row, :end] = True
    return Batch(input_ids, response_mask, token_mask, tuple(indices))
