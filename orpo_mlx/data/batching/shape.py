"""What one forward pass computes, counted from the lengths of its pairs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from orpo_mlx.data.batching.packed import (
    QUERY_BLOCK,
    ROW_MULTIPLE,
    WIDTH_MULTIPLE,
    round_up,
)


class Lengths(NamedTuple):
    """Tokens of a pair."""

    prompt: int
    chosen: int
    rejected: int

    @property
    def answer(self) -> int:
        """Tokens of the longer response."""
        return max(self.chosen, self.rejected)

    @property
    def longest(self) -> int:
        """Tokens of the prompt plus the longer response."""
        return self.prompt + self.answer

    @property
    def slot(self) -> tuple[int, int]:
        """Tokens of the prompt (without the last) and of the longer response."""
        return self.prompt - 1, self.answer


@dataclass(frozen=True)
class BatchShape:
    """What one forward pass computes, in tokens.

    Attributes:
        rows: tokens in the linear layers.
        scored: positions whose log-probs are needed.
        cells: query places of the attention's rectangles, padding included.
        keys: key places of the rectangles; a prompt counts once for each answer, too.
        area: query times key places that are computed, summed over the rectangles.
        logits: positions whose logits exist all at once (plain scoring only).
        block: of the area, what is computed at a time; 0 = all.
    """

    rows: int = 0
    scored: int = 0
    cells: int = 0
    keys: int = 0
    area: int = 0
    logits: int = 0
    block: int = 0

    def __or__(self, other: BatchShape) -> BatchShape:
        """Return the larger of both in each number."""
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return BatchShape(*(max(pair) for pair in pairs))


def padded_shape(pairs: int, longest: int) -> BatchShape:
    """Return what both rows of each pair in full compute, logits of all tokens included.

    Args:
        pairs: how many.
        longest: tokens of the longest row that the model sees.
    """
    width = round_up(longest, 32)
    rows = 2 * pairs * width
    return BatchShape(rows, 0, rows, rows, rows * width, rows)


def grouped_shape(
    slots: Sequence[tuple[int, int]],
    groups: Sequence[Sequence[int]],
    tokens: int,
    scored: int,
    multiple: int = WIDTH_MULTIPLE,
) -> BatchShape:
    """Return what rows without padding compute whose attention is padded in groups.

    Args:
        slots: of each pair, as `Lengths.slot`.
        groups: places of the pairs that share rectangles.
        tokens: in the linear layers.
        scored: positions whose log-probs are needed.
        multiple: of the width of a rectangle of prompts.
    """
    shapes = [rectangles([slots[i] for i in group], multiple) for group in groups]
    cells, keys, area = (sum(column) for column in zip(*shapes, strict=True))
    rows, scored = round_up(tokens, ROW_MULTIPLE), round_up(scored, ROW_MULTIPLE)
    return BatchShape(rows, scored, cells, keys, area)


def in_blocks(
    slots: Sequence[tuple[int, int]],
    groups: Sequence[Sequence[int]],
    multiple: int = WIDTH_MULTIPLE,
    queries: int = QUERY_BLOCK,
) -> tuple[int, int]:
    """Return the area of rectangles whose queries attend in blocks, each over the keys up to its
    own last one, and what the largest block of each has of it: at most, and never less for longer
    ones.

    Args:
        slots, groups, multiple: as of `grouped_shape`.
        queries: of a block, at least; it has less than twice as many.
    """
    area, largest = 0, 0
    for group in groups:
        prompt = round_up(max(slots[i][0] for i in group), multiple)
        answer = round_up(max(slots[i][1] for i in group), WIDTH_MULTIPLE)
        for rows, width, before in ((1, prompt, 0), (2, answer, prompt)):
            block, rows = min(width, 2 * queries), rows * len(group)
            area += rows * width * (2 * before + width + block) // 2
            largest += rows * block * (before + width)
    return area, largest


def rectangles(
    slots: Sequence[tuple[int, int]], multiple: int = WIDTH_MULTIPLE
) -> tuple[int, int, int]:
    """Return query places, key places and area of a group's two rectangles."""
    prompt = round_up(max(size for size, _ in slots), multiple)
    answer = round_up(max(size for _, size in slots), WIDTH_MULTIPLE)
    count = len(slots)
    cells = count * prompt + 2 * count * answer
    keys = count * prompt + 2 * count * (prompt + answer)
    area = count * prompt * prompt + 2 * count * answer * (prompt + answer)
    return cells, keys, area


def count_tokens(pairs: Sequence[Lengths], nll_scope: str) -> tuple[int, int]:
    """Return the tokens of pairs whose prompts are computed once, and how many are scored.

    Args:
        pairs: of a micro-batch.
        nll_scope: of the objective; "full" scores the prompts, too.
    """
    prompts = sum(pair.prompt - 1 for pair in pairs)
    answers = sum(pair.chosen + pair.rejected for pair in pairs)
    return prompts + answers, answers + (prompts if nll_scope == "full" else 0)
