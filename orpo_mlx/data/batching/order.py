"""Which pairs each step sees, and how they lie in memory: pure functions of counts and a seed.

Because the order depends on (seed, epoch) alone, a run resumes from its step number and needs no
saved iterator. B is pairs in a micro-batch, T tokens of the padded rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar

import numpy as np

from orpo_mlx.config import TrainConfig
from orpo_mlx.distributed.allotment import allot

T = TypeVar("T")


class Pair(Protocol):
    """What is asked of a pair: tokens of its longer row."""

    @property
    def longest(self) -> int:
        """Prompt and longer answer."""
        ...


P = TypeVar("P", bound=Pair)

Part = tuple[int, ...]
"""Positions of the pairs of a micro-batch."""
Step = list[Part]


def epoch_order(
    n: int, seed: int, epoch: int, order: Literal["shuffled", "file"] = "shuffled", block: int = 1
) -> list[int]:
    """Return the positions 0..n-1 in the order of one epoch, each exactly once.

    Args:
        n: pairs in the dataset.
        seed: of the run.
        epoch: 0-based; each epoch has its own order.
        order: "shuffled", or "file" for the positions as they are.
        block: neighbours that stay together; those that are left over come last.
    """
    if order == "file":
        return list(range(n))
    drawn = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n // block)
    whole = (drawn[:, None] * block + np.arange(block)).ravel().tolist()
    return [*whole, *range(len(whole), n)]


def plan_epoch(
    order: Sequence[int], micro_batch_size: int, grad_accumulation_steps: int
) -> list[Step]:
    """Cut an order into steps of micro-batches; the last ones may be smaller, none is left out."""
    micro = [tuple(order[i : i + micro_batch_size]) for i in range(0, len(order), micro_batch_size)]
    return [
        micro[i : i + grad_accumulation_steps]
        for i in range(0, len(micro), grad_accumulation_steps)
    ]


def cut_evenly(part: Part, pieces: int) -> list[Part]:
    """Cut a micro-batch into at most so many of nearly one size, none of them empty."""
    size = -(-len(part) // pieces)
    return [part[i : i + size] for i in range(0, len(part), size)]


def split_by_tokens(
    members: Sequence[int],
    pairs: Sequence[P],
    cost: Callable[[Sequence[P]], int],
    tokens_per_batch: int,
) -> list[Part]:
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


def cut_by_tokens(
    part: Part, pairs: Sequence[P], cost: Callable[[Sequence[P]], int], pieces: int
) -> list[Part]:
    """Cut a micro-batch into at most so many of nearly as many tokens, none of them empty.

    Pairs are dealt out, the longest first: 3, 3 and 2 of eight equal ones.

    Args:
        part: positions of its pairs in `pairs`.
        cost: tokens that a forward pass over some pairs computes.
        pieces: at most.
    """
    dealt: list[list[int]] = [[] for _ in range(pieces)]
    for index, piece in zip(part, allot([cost([pairs[i]]) for i in part], pieces), strict=True):
        dealt[piece].append(index)
    return [tuple(piece) for piece in dealt if piece]


def steps_per_epoch(n: int, micro_batch_size: int, grad_accumulation_steps: int) -> int:
    """Return the number of steps that `plan_epoch` makes of n pairs."""
    return -(-n // (micro_batch_size * grad_accumulation_steps))


def steps_in_epoch(config: TrainConfig, pairs: int) -> int:
    """Return the number of optimizer steps in one pass over `pairs` pairs."""
    return steps_per_epoch(pairs, config.micro_batch_size, config.grad_accumulation_steps)


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


def draw_some(items: Sequence[T], most: int, seed: int) -> Sequence[T]:
    """Return at most so many items in their order, drawn by seed; 0: all of them."""
    if not 0 < most < len(items):
        return items
    return [items[i] for i in drawn_places(len(items), most, seed)]


def drawn_places(count: int, most: int, seed: int) -> list[int]:
    """Return `most` of the positions 0..count-1 in their order, drawn by seed."""
    return sorted(np.random.default_rng(seed).choice(count, most, replace=False).tolist())
