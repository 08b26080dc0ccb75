"""Which pairs each step sees, and how they lie in memory: pure functions of counts and a seed.

Because the order depends on (seed, epoch) alone, a run resumes from its step number and needs no
saved iterator. B is pairs in a micro-batch, T tokens of the padded rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from orpo_mlx.data.pairs import Batch, TokenPair

MicroBatch = tuple[int, ...]
Step = list[MicroBatch]


def epoch_order(
    n: int, seed: int, epoch: int, order: Literal["shuffled", "file"] = "shuffled"
) -> list[int]:
    """Return the positions 0..n-1 in the order of one epoch, each exactly once.

    Args:
        n: pairs in the dataset.
        seed: of the run.
        epoch: 0-based; each epoch has its own order.
        order: "shuffled", or "file" for the positions as they are.
    """
    if order == "file":
        return list(range(n))
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n).tolist()


def plan_epoch(
    order: Sequence[int], micro_batch_size: int, grad_accumulation_steps: int
) -> list[Step]:
    """Cut an order into steps of micro-batches; the last ones may be smaller, none is left out."""
    micro = [tuple(order[i : i + micro_batch_size]) for i in range(0, len(order), micro_batch_size)]
    return [
        micro[i : i + grad_accumulation_steps]
        for i in range(0, len(micro), grad_accumulation_steps)
    ]


def split_by_tokens(
    members: Sequence[int],
    pairs: Sequence[TokenPair],
    cost: Callable[[Sequence[TokenPair]], int],
    tokens_per_batch: int,
) -> list[MicroBatch]:
    """Divide the pairs of a step into micro-batches of at most so many tokens.

    Pairs of like length come together. A pair that alone has more tokens is alone.

    Args:
        members: positions of the step's pairs in `pairs`.
        cost: tokens that a forward pass over some pairs computes.
        tokens_per_batch: the budget.
    """
    parts: list[list[int]] = []
    for index in sorted(members, key=lambda i: (pairs[i].longest, i)):
        if parts and cost([pairs[i] for i in [*parts[-1], index]]) <= tokens_per_batch:
            parts[-1].append(index)
        else:
            parts.append([index])
    return [tuple(part) for part in parts]


def steps_per_epoch(n: int, micro_batch_size: int, grad_accumulation_steps: int) -> int:
    """Return the number of steps that `plan_epoch` makes of n pairs."""
    return -(-n // (micro_batch_size * grad_accumulation_steps))


def locate(step: int, steps_per_epoch: int) -> tuple[int, int]:
    """Return the epoch and the position in its plan of a step.

    Args:
        step: 1-based, as everywhere in reports and checkpoints; the first step of a run is 1.
        steps_per_epoch: at least 1.

    Returns:
        Both 0-based: `locate(1, n)` is (0, 0).

    Raises:
        ValueError: step or steps_per_epoch is below 1.
    """
    if step < 1 or steps_per_epoch < 1:
        raise ValueError(f"step {step} and steps_per_epoch {steps_per_epoch} must be at least 1")
    return divmod(step - 1, steps_per_epoch)


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
