"""A few shapes for all batches of a run, so that a compiled step is compiled a few times only.

What a batch looks like depends on the lengths of its pairs, so nearly every batch has a shape of
its own. Since the order of a run follows from its seed, all its batches are known beforehand: they
are divided into at most `MAX_BUCKETS` kinds, and those of a kind are filled up to one bucket that
holds each of them. Pure numpy.

Pairs within a batch are sorted by what their attention costs; the first pair of each batch goes
into the first slot of its bucket, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from orpo_mlx.data.types import TokenPair

MAX_BUCKETS = 10
"""Shapes that batches are filled up to; leaves room for a few that fit none."""
CELLS_PER_TOKEN = 6144
"""Cells of attention that cost as much as a token in the linear layers: six times the width of the
model, here 1024."""


class Bucket(NamedTuple):
    """Room for a batch.

    Attributes:
        slots: for each pair the tokens of its prompt (without the last) and of its longer answer.
        tokens: of all pairs, prompts once.
        scored: of them, those of answers.
        longest: prompt and longer answer of a pair, less the token both count.
    """

    slots: tuple[tuple[int, int], ...]
    tokens: int
    scored: int
    longest: int


def slot_of(pair: TokenPair) -> tuple[int, int]:
    """Return the tokens of a pair's prompt (without the last) and of its longer answer."""
    return len(pair.prompt) - 1, max(len(pair.chosen), len(pair.rejected))


def slot_order(pairs: Sequence[TokenPair]) -> list[int]:
    """Return the places of the pairs by what their attention costs, the dearest first."""
    return sorted(range(len(pairs)), key=lambda i: (-_area(*slot_of(pairs[i])), i))


def _area(prompt: int, answer: int) -> int:
    return prompt * prompt + 2 * answer * (prompt + answer)


def bucket_of(pairs: Sequence[TokenPair]) -> Bucket:
    """Return the room that a batch needs."""
    slots = tuple(slot_of(pairs[i]) for i in slot_order(pairs))
    answers = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
    return Bucket(
        slots=slots,
        tokens=answers + sum(prompt for prompt, _ in slots),
        scored=answers,
        longest=max(map(sum, slots)),
    )


class Usual(NamedTuple):
    """The batch of a run that stands for all of them.

    Attributes:
        place: among the batches.
        mean: what they cost on average, as they are; 1 = as much as this one.
        mean_filled: the same of all and of this one filled up to their buckets.
    """

    place: int = 0
    mean: float = 1.0
    mean_filled: float = 1.0


ITSELF = Usual()


@dataclass(frozen=True)
class BucketTable:
    """The buckets of a run.

    Attributes:
        buckets: from the cheapest to the dearest.
        filling: what they cost more than the batches themselves, 0.1 = a tenth.
        batches: how many they were chosen for.
        usual: one of these.
    """

    buckets: tuple[Bucket, ...]
    filling: float
    batches: int = 1
    usual: Usual = ITSELF

    def bucket_for(self, pairs: Sequence[TokenPair]) -> Bucket | None:
        """Return the cheapest bucket that holds a batch; None if none does."""
        needed = bucket_of(pairs)
        return next((bucket for bucket in self.buckets if _holds(bucket, needed)), None)


def _holds(bucket: Bucket, needed: Bucket) -> bool:
    return (
        len(needed.slots) <= len(bucket.slots)
        and needed.tokens <= bucket.tokens
        and needed.scored <= bucket.scored
        and needed.longest <= bucket.longest
        and all(p <= own_p and a <= own_a
                for (p, a), (own_p, own_a) in zip(needed.slots, bucket.slots, strict=False))
    )  # fmt: skip


def build_buckets(
    batches: Iterable[Sequence[TokenPair]], cost: Callable[[Bucket], float]
) -> BucketTable:
    """Choose buckets for the batches of a run: each fits one, and little is filled up.

    All batches begin as one kind; the division of a kind in two that saves most is made, until
    there are `MAX_BUCKETS`.

    Args:
        batches: all of a run.
        cost: what a full bucket takes, to tell how much filling up adds.
    """
    needs = [bucket_of(batch) for batch in batches]
    table = _Needs(needs)
    kinds = [table.divide(np.arange(len(table.tokens)))]
    while len(kinds) < MAX_BUCKETS:
        most = max(range(len(kinds)), key=lambda i: kinds[i].saved)
        if kinds[most].saved <= 0:
            break
        kinds[most : most + 1] = [table.divide(part) for part in kinds[most].parts]
    buckets = [table.bucket(kind.members) for kind in kinds]
    own, filled = np.array([cost(need) for need in needs]), np.zeros(len(needs))
    for bucket, kind in zip(buckets, kinds, strict=True):
        filled[kind.members] = cost(bucket)
    return BucketTable(
        buckets=tuple(sorted(set(buckets), key=packed_cost)),
        filling=float(filled.sum() / own.sum() - 1),
        batches=len(needs),
        usual=_usual(own, filled),
    )


def _usual(own: np.ndarray, filled: np.ndarray) -> Usual:
    """Find the batch that is nearest to the mean, as it is [n] and filled up [n]."""
    means = np.stack([own.mean() / own, filled.mean() / filled])
    place = int(np.abs(np.log(means)).sum(axis=0).argmin())
    return Usual(place, *means[:, place].tolist())


def packed_cost(bucket: Bucket) -> float:
    """Return what a packed row costs, in tokens of the linear layers."""
    return bucket.tokens + sum(_area(*slot) for slot in bucket.slots) / CELLS_PER_TOKEN


def padded_cost(bucket: Bucket) -> float:
    """Return what padded rows cost."""
    return 2 * len(bucket.slots) * bucket.longest * (1 + bucket.longest / CELLS_PER_TOKEN)


class _Kind(NamedTuple):
    """Batches of one bucket, and the best division of them in two."""

    members: np.ndarray
    saved: float
    parts: tuple[np.ndarray, ...]


class _Needs:
    """The needs of all batches as arrays: [n, slots], [n]."""

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        width = max(len(bucket.slots) for bucket in buckets)
        slots = np.zeros((len(buckets), width, 2), np.int64)
        for row, bucket in zip(slots, buckets, strict=True):
            row[: len(bucket.slots)] = bucket.slots
        self.prompts, self.answers = slots[..., 0], slots[..., 1]
        self.counts = (self.answers > 0).sum(axis=1)
        self.tokens = np.array([bucket.tokens for bucket in buckets])
        self.scored = np.array([bucket.scored for bucket in buckets])
        self.longest = np.array([bucket.longest for bucket in buckets])

    def bucket(self, members: np.ndarray) -> Bucket:
        """Return the smallest bucket that holds these batches."""
        count = int(self.counts[members].max())
        prompts = self.prompts[members].max(axis=0)[:count].tolist()
        answers = self.answers[members].max(axis=0)[:count].tolist()
        largest = (getattr(self, n)[members].max() for n in ("tokens", "scored", "longest"))
        tokens, scored, longest = map(int, largest)
        return Bucket(tuple(zip(prompts, answers, strict=True)), tokens, scored, longest)

    def divide(self, members: np.ndarray) -> _Kind:
        """Find the threshold of the number whose two sides together cost least."""
        saved, parts = 0.0, ()
        if len(members) < 2:
            return _Kind(members, saved, parts)
        keys = (self.tokens, self.longest, self.prompts.max(axis=1), self.answers.max(axis=1))
        for key in (*keys, self.counts):
            order = members[np.argsort(key[members], kind="stable")]
            below, above = self._costs(order)[:-1], self._costs(order[::-1])[::-1][1:]
            sizes = np.arange(1, len(order))
            costs = below * sizes + above * (len(order) - sizes)
            best = int(costs.argmin())
            gain = float(self._costs(order)[-1] * len(order) - costs[best])
            if gain > saved:
                saved, parts = gain, (order[: best + 1], order[best + 1 :])
        return _Kind(members, saved, parts)

    def _costs(self, order: np.ndarray) -> np.ndarray:
        """Return what a bucket for the first 1, 2, ... of these batches costs."""
        prompts = np.maximum.accumulate(self.prompts[order], axis=0)
        answers = np.maximum.accumulate(self.answers[order], axis=0)
        area = (prompts * prompts + 2 * answers * (prompts + answers)).sum(axis=1)
        return np.maximum.accumulate(self.tokens[order]) + area / CELLS_PER_TOKEN
