"""What a run would save on, and the memory it would need then: one question, many answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.order import draw_some
from orpo_mlx.data.batching.shape import BatchShape, Lengths
from orpo_mlx.data.tokens.store import pair_lengths
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.shape import ModelShape
from orpo_mlx.planning.batch_shape import longest_batch
from orpo_mlx.planning.memory import Estimate, Savings, count_costs, iter_savings

if TYPE_CHECKING:
    from orpo_mlx.scoring.base import Way

LONGEST = 1 << 17
"""Longest pair that is looked at, in tokens."""


@dataclass(frozen=True)
class Plan:
    """What a run saves on, and what it needs then."""

    savings: Savings
    estimate: Estimate


@dataclass(frozen=True)
class Question:
    """A run whose memory is asked for.

    Attributes:
        shape: of the model.
        config: the settings.
        way: of scoring.
        train, valid: lengths of the pairs, of any length: those beyond `max_seq_length` are cut or
            dropped as in a run. Without training pairs the worst the settings allow is assumed.
        limit: bytes there are.
        beside: bytes the trunk cache may take.
        buckets: shapes that training batches are filled up to.
    """

    shape: ModelShape
    config: TrainConfig
    way: Way
    train: Sequence[Lengths] = ()
    valid: Sequence[Lengths] = ()
    limit: int = sys.maxsize
    beside: int = 0
    buckets: tuple[BatchShape, ...] = ()
    _batches: dict[Any, list[BatchShape]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def plan(self, savings: Savings | None = None, **changes: Any) -> Plan:
        """Return the least savings that fit, or those that need least memory if none does.

        Args:
            savings: take these and look for no others.
            changes: other values of some settings.
        """
        config = self.config.model_copy(update=changes)
        train, *valid = self._longest_batches(config)
        costs = [count_costs(self.shape, config, train)]
        costs += [count_costs(self.shape, config, one, trains=False) for one in valid]
        may_recompute = self.way.can_recompute
        options = [savings] if savings else iter_savings(config, costs[0], may_recompute)
        found: list[Plan] = []
        for option in options:
            each = [cost.with_savings(option) for cost in costs]
            largest = max(each, key=lambda one: one.total)
            found.append(Plan(option, replace(largest, cache=self.beside)))
            if found[-1].estimate.total <= self.limit:
                return found[-1]
        return min(found, key=lambda plan: plan.estimate.total)

    def answer(self, **changes: Any) -> Estimate:
        """Return the estimate, with other values of some settings."""
        return self.plan(**changes).estimate

    def fits(self, **changes: Any) -> bool:
        """Tell whether the memory suffices, with other values of some settings."""
        return self.answer(**changes).total <= self.limit

    def _longest_batches(self, config: TrainConfig) -> list[BatchShape]:
        """Return the longest forward pass of a step and, with validation pairs, of evaluations."""
        key = (config.max_seq_length, config.batching, config.tokens_per_batch)
        if key not in self._batches:
            train = clipped(self.train, config.max_seq_length) if self.train else []
            found = [longest_batch(train or _worst_pairs(config), config, self.way)]
            for bucket in self.buckets:
                found[0] |= bucket
            valid = clipped(self.valid, config.max_seq_length)
            valid = draw_some(valid, config.eval_pairs, config.seed)
            if valid:
                found.append(longest_batch(valid, config, self.way, members=len(valid)))
            self._batches[key] = found
        return self._batches[key]


def lengths_of(pairs: Sequence[TokenPair]) -> list[Lengths]:
    """Return the tokens of each pair."""
    return [Lengths(*row) for row in pair_lengths(pairs).tolist()]


def clipped(pairs: Sequence[Lengths], limit: int) -> list[Lengths]:
    """Return the lengths of the pairs after prompts were cut and too long pairs dropped."""
    return [
        pair._replace(prompt=min(pair.prompt, limit - pair.answer))
        for pair in pairs
        if pair.answer < limit
    ]


def _worst_pairs(config: TrainConfig) -> list[Lengths]:
    """Return a forward pass of pairs as long as may be: all answer, which attention costs most."""
    longest = config.max_seq_length - 1
    pair, count = Lengths(1, longest, longest), config.micro_batch_size
    if config.batching == "tokens":
        # More than fill it need not be looked at, however large a step is.
        fill = config.tokens_per_batch // sum(pair) + 1
        count = min(count * config.grad_accumulation_steps, fill)
    return [pair] * count
