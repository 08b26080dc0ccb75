"""A few shapes for all batches of a run, so that a compiled step is compiled a few times only.

What a batch looks like depends on the lengths of its pairs, so nearly every batch has a shape of
its own. Since the order of a run follows from its seed, all its batches are known beforehand: they
are divided into at most `MAX_FRAMES` kinds, and those of a kind are filled up to one frame that
holds each of them. Pure numpy.

Pairs within a batch are sorted by what their attention costs; the first pair of each batch goes
into the first slot of its frame, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from orpo_mlx.data.pairs import TokenPair

MAX_FRAMES = 10
"""Shapes that batches are filled up to; leaves room for a few that fit none."""
CELLS_PER_TOKEN = 6144
"""Cells of attention that cost as much as a token in the linear layers: six times the width of the
model, here 1024."""


class Frame(NamedTuple):
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


def frame_of(pairs: Sequence[TokenPair]) -> Frame:
    """Return the room that a batch needs."""
    slots = tuple(slot_of(pairs[i]) for i in slot_order(pairs))
    answers = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
    return Frame(
        slots=slots,
        tokens=answers + sum(prompt for prompt, _ in slots),
        scored=answers,
        longest=max(map(sum, slots)),
    )


@dataclass(frozen=True)
class ShapeLadder:
    """The frames of a run.

    Attributes:
        frames: from the cheapest to the dearest.
        filling: what they cost more than the batches themselves, 0.1 = a tenth; by way of scoring.
    """

    frames: tuple[Frame, ...]
    filling: Mapping[str, float]

    def frame_for(self, pairs: Sequence[TokenPair]) -> Frame | None:
        """Return the cheapest frame that holds a batch; None if none does."""
        needed = frame_of(pairs)
        return next((frame for frame in self.frames if _holds(frame, needed)), None)


def _holds(frame: Frame, needed: Frame) -> bool:
    return (
        len(needed.slots) <= len(frame.slots)
        and needed.tokens <= frame.tokens
        and needed.scored <= frame.scored
        and needed.longest <= frame.longest
        and all(p <= own_p and a <= own_a
                for (p, a), (own_p, own_a) in zip(needed.slots, frame.slots, strict=False))
    )  # fmt: skip


def build_ladder(batches: Iterable[Sequence[TokenPair]]) -> ShapeLadder:
    """Choose frames for the batches of a run: each fits one, and little is filled up.

    All batches begin as one kind; the division of a kind in two that saves most is made, until
    there are `MAX_FRAMES`.
    """
    needs = [frame_of(batch) for batch in batches]
    table = _Table(needs)
    kinds = [table.divide(np.arange(len(table.tokens)))]
    while len(kinds) < MAX_FRAMES:
        most = max(range(len(kinds)), key=lambda i: kinds[i].saved)
        if kinds[most].saved <= 0:
            break
        kinds[most : most + 1] = [table.divide(part) for part in kinds[most].parts]
    frames = [table.frame(kind.members) for kind in kinds]
    filling = {
        way: sum(cost(frame) * len(kind.members) for frame, kind in zip(frames, kinds, strict=True))
        / sum(map(cost, needs))
        - 1
        for way, cost in (("packed", _cost), ("plain", _padded))
    }
    return ShapeLadder(tuple(sorted(set(frames), key=_cost)), filling)


def _cost(frame: Frame) -> float:
    """Return what a packed row costs, in tokens of the linear layers."""
    return frame.tokens + sum(_area(*slot) for slot in frame.slots) / CELLS_PER_TOKEN


def _padded(frame: Frame) -> float:
    """Return what padded rows cost."""
    return 2 * len(frame.slots) * frame.longest * (1 + frame.longest / CELLS_PER_TOKEN)


class _Kind(NamedTuple):
    """Batches of one frame, and the best division of them in two."""

    members: np.ndarray
    saved: float
    parts: tuple[np.ndarray, ...]


class _Table:
    """The needs of all batches as arrays: [n, slots], [n]."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        width = max(len(frame.slots) for frame in frames)
        slots = np.zeros((len(frames), width, 2), np.int64)
        for row, frame in zip(slots, frames, strict=True):
            row[: len(frame.slots)] = frame.slots
        self.prompts, self.answers = slots[..., 0], slots[..., 1]
        self.counts = (self.answers > 0).sum(axis=1)
        self.tokens = np.array([frame.tokens for frame in frames])
        self.scored = np.array([frame.scored for frame in frames])
        self.longest = np.array([frame.longest for frame in frames])

    def frame(self, members: np.ndarray) -> Frame:
        """Return the smallest frame that holds these batches."""
        count = int(self.counts[members].max())
        prompts = self.prompts[members].max(axis=0)[:count].tolist()
        answers = self.answers[members].max(axis=0)[:count].tolist()
        largest = (getattr(self, n)[members].max() for n in ("tokens", "scored", "longest"))
        tokens, scored, longest = map(int, largest)
        return Frame(tuple(zip(prompts, answers, strict=True)), tokens, scored, longest)

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
        """Return what a frame for the first 1, 2, ... of these batches costs."""
        prompts = np.maximum.accumulate(self.prompts[order], axis=0)
        answers = np.maximum.accumulate(self.answers[order], axis=0)
        area = (prompts * prompts + 2 * answers * (prompts + answers)).sum(axis=1)
        return np.maximum.accumulate(self.tokens[order]) + area / CELLS_PER_TOKEN
