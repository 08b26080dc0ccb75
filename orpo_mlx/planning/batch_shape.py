"""The shape of the largest batch that lengths allow; what memory is counted from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.order import split_by_tokens
from orpo_mlx.data.batching.shape import BatchShape, Lengths, in_blocks, rectangles

if TYPE_CHECKING:
    from orpo_mlx.scoring.base import Way


def longest_batch(
    pairs: Sequence[Lengths], config: TrainConfig, way: Way, members: int | None = None
) -> BatchShape:
    """Return the most that a forward pass over some of these pairs can compute, in each number.

    The order of the pairs is random, so batches are tried that are full of the worst pairs: the
    longest ones, those with the longest prompts, answers or attention. Within a step pairs of like
    length come together, so windows of the sorted pairs are tried as well.

    Args:
        pairs: all that may meet in a step.
        config: how a step is divided.
        way: of scoring.
        members: pairs in a step; None for those of a training step.
    """
    if members is None:
        members = config.micro_batch_size * config.grad_accumulation_steps
    pairs = way.worst_of(pairs, members)
    ordered = sorted(pairs, key=lambda pair: pair.longest, reverse=True)
    starts = range(0, len(ordered), max(1, len(ordered) // 64))
    tried = [_fill(ordered[start:], config, way, members) for start in starts]
    tried += [_fill(sorted(pairs, key=key, reverse=True), config, way, members) for key in _WORST]
    worst = BatchShape()
    for batch in dict.fromkeys(map(tuple, tried)):  # many are the same, where lengths are alike
        worst |= way.batch_shape(batch, config.nll_scope)
    if config.batching == "fixed":
        return worst
    sizes = sorted(map(sum, pairs), reverse=True)
    most = min(max(config.tokens_per_batch, sizes[0]), sum(sizes[:members]))
    return way.allow_for(worst, most)


def some_batches(
    pairs: Sequence[Lengths], config: TrainConfig, way: Way
) -> list[Sequence[Lengths]]:
    """Return the forward passes of steps over pairs in this order."""
    size = config.micro_batch_size
    if config.batching == "fixed":
        return [pairs[start : start + size] for start in range(0, len(pairs), size)]
    members = size * config.grad_accumulation_steps
    steps = [pairs[start : start + members] for start in range(0, len(pairs), members)]
    return [
        [step[i] for i in part]
        for step in steps
        for part in split_by_tokens(range(len(step)), step, way.cost, config.tokens_per_batch)
    ]


_WORST: tuple[Callable[[Lengths], float], ...] = (
    lambda pair: pair.prompt,
    lambda pair: pair.answer,
    sum,
    lambda pair: rectangles([pair.slot])[2],
    lambda pair: in_blocks([pair.slot], [[0]])[0],
    lambda pair: in_blocks([pair.slot], [[0]])[1],
)


def _fill(
    pairs: Sequence[Lengths], config: TrainConfig, way: Way, members: int
) -> Sequence[Lengths]:
    """Return as many of the first pairs as one forward pass takes."""
    if config.batching == "fixed":
        return pairs[: config.micro_batch_size]
    count = 1
    while count < min(members, len(pairs)) and (
        way.cost(pairs[: count + 1]) <= config.tokens_per_batch
    ):
        count += 1
    return pairs[:count]
