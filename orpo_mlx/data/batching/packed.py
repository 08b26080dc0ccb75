"""One packed row per micro-batch: every prompt once, both answers after it, no padding between.

    [ p0 | p1 | ... | c0 | r0 | c1 | r1 | ... | filling ]

A prompt stands there without its last token and an answer begins with that token, so what the
tokens of an answer predict is exactly its response. Linear layers, norms and the MLP see this row
of real tokens. Attention needs rectangles: pairs of like length form a group, and a group has one
rectangle of prompts and one of answers, padded only inside.

Laid out exactly, a group is of prompts of one length, whose rectangle has no padding. An answer's
tokens then look at all that stands before them, which attention can do without an array for a mask.

Pure numpy. T is the length of the row, B the pairs of a group, P and A the widths of its
rectangles, M the cells of all rectangles, N the scored positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from orpo_mlx.data.batching.buckets import Bucket, slot_of, slot_order
from orpo_mlx.data.types import TokenPair

ROW_MULTIPLE = 64
WIDTH_MULTIPLE = 16
QUERY_BLOCK = 128
"""Queries that attend together, at least; fewer leave less to compute and cost more calls."""
HEAD_CHUNK = 256
"""Scored positions whose logits are held at a time, where nothing is said about memory."""
MAX_GROUPS = 4
GROUP_COST = 20_000
"""Cells of attention that one more group costs in overhead; keeps small batches in one group."""


Array = Any
"""numpy where rows are laid out, mx.array where they are computed."""


class Group(NamedTuple):
    """A group of pairs of like length.

    Attributes:
        prompt_lengths: [B] prompt tokens in the prompt rectangle (all but the last of the prompt).
        answer_lengths: [2B] response tokens, chosen answers first.
        prompt_scores: [B, P] places of the prompt's predictions among the scored positions; its
            shape is that of the prompt rectangle, its values mean nothing if prompts are not
            scored.
        answer_scores: [2B, A] likewise for the answers.
    """

    prompt_lengths: Array
    answer_lengths: Array
    prompt_scores: Array
    answer_scores: Array


class Packed(NamedTuple):
    """A packed micro-batch.

    Attributes:
        ids: [T] tokens.
        positions: [T] place of each token in its own sequence, for the rotary embedding.
        cells: [M] the row position behind each cell of all rectangles, in order; 0 for padding.
        is_cell: [M] false on the padding of rectangles.
        rows: [T] the cell of each row position; 0 for filling.
        is_row: [T] false on the filling at the end.
        scored: [N] row positions whose prediction is scored.
        places: [T] for each row position its place among them, -1 if it is not scored.
        targets: [N] the tokens they predict.
        groups: the rectangles.
        order: [pairs] for each pair in the order asked for, its place in group order; pairs that
            only fill a bucket up come last.
    """

    ids: Array
    positions: Array
    cells: Array
    is_cell: Array
    rows: Array
    is_row: Array
    scored: Array
    places: Array
    targets: Array
    groups: tuple[Group, ...]
    order: Array


def pack(
    pairs: Sequence[TokenPair],
    score_prompts: bool,
    bucket: Bucket | None = None,
    exact: bool = False,
) -> Packed:
    """Lay pairs out in one row.

    Args:
        pairs: of one micro-batch.
        score_prompts: whether the prompt's own tokens are scored (NLL scope "full").
        bucket: fill everything up to what it has room for; its slots without a pair become pairs
            without tokens, the last ones in the order of the result.
        exact: groups are of prompts of one length, not padded; not with a bucket.
    """
    if bucket is None:
        slots, seated = [slot_of(pair) for pair in pairs], list(range(len(pairs)))
    else:
        slots, seated = list(bucket.slots), slot_order(pairs)
        seated += range(len(pairs), len(slots))
    filled = [*pairs, *[_EMPTY] * (len(slots) - len(pairs))]
    groups = split_exactly(slots) if exact else split_into_groups(slots)
    members = [seated[slot] for group in groups for slot in group]
    row = _Row()
    laid = [
        _lay_group(
            [filled[seated[slot]] for slot in group], row, [slots[slot] for slot in group], exact
        )
        for group in groups
    ]
    total = round_up(bucket.tokens if bucket else len(row.ids), ROW_MULTIPLE)
    scores = _score_places(row, score_prompts)
    cells, is_cell = _join_cells(laid)
    rows = np.zeros(total, np.int32)
    rows[cells[is_cell]] = np.flatnonzero(is_cell)
    scored = np.flatnonzero(scores >= 0)
    count = round_up(_scored_room(bucket, score_prompts) or len(scored), ROW_MULTIPLE)
    return Packed(
        ids=_filled(row.ids, total),
        positions=_filled(row.positions, total),
        cells=cells,
        is_cell=is_cell,
        rows=rows,
        is_row=np.arange(total) < len(row.ids),
        scored=_filled(scored, count),
        places=_filled(scores, total, fill=-1),
        targets=_filled(np.asarray(row.targets)[scored], count),
        groups=tuple(_group(g, scores) for g in laid),
        order=np.argsort(members).astype(np.int32),
    )


_EMPTY = TokenPair([], [], [])


def _scored_room(bucket: Bucket | None, score_prompts: bool) -> int:
    if bucket is None:
        return 0
    return bucket.tokens if score_prompts else bucket.scored


class _Row:
    """The row under construction."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.targets: list[int] = []
        self.positions: list[int] = []
        self.is_answer: list[bool] = []

    def add(self, ids: list[int], targets: list[int], start: int, is_answer: bool) -> range:
        """Append a segment; returns its places in the row."""
        first = len(self.ids)
        self.ids += ids
        self.targets += targets
        self.positions += range(start, start + len(ids))
        self.is_answer += [is_answer] * len(ids)
        return range(first, first + len(ids))


class _Laid(NamedTuple):
    prompts: np.ndarray
    prompt_lengths: np.ndarray
    answers: np.ndarray
    answer_lengths: np.ndarray


def _lay_group(
    pairs: Sequence[TokenPair], row: _Row, slots: Sequence[tuple[int, int]], exact: bool
) -> _Laid:
    """Append the segments of a group to the row; returns where they are, as rectangles wide enough
    for the slots."""
    prompts = [row.add(p.prompt[:-1], p.prompt[1:], 0, False) for p in pairs]
    answers = [
        row.add([*p.prompt[-1:], *response][: len(response)], response, len(p.prompt) - 1, True)
        for side in ("chosen", "rejected")
        for p in pairs
        for response in [getattr(p, side)]
    ]
    prompt, answer = (max(widths) for widths in zip(*slots, strict=True))
    multiple = 1 if exact else WIDTH_MULTIPLE
    return _Laid(*rectangle(prompts, -1, prompt, multiple), *rectangle(answers, -1, answer))


def rectangle(
    segments: Sequence[Sequence[int]],
    fill: int = 0,
    at_least: int = 0,
    multiple: int = WIDTH_MULTIPLE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return segments as [n, width] int32, padded with `fill` on the right, and their lengths [n].

    The width is that of the longest segment, or `at_least`, rounded up to `multiple`.
    """
    lengths = np.array([len(segment) for segment in segments], np.int32)
    width = round_up(max(int(lengths.max()), at_least), multiple)
    cells = np.full((len(segments), width), fill, np.int32)
    for i, segment in enumerate(segments):
        cells[i, : len(segment)] = segment
    return cells, lengths


def _score_places(row: _Row, score_prompts: bool) -> np.ndarray:
    """For each row position its place among the scored ones, -1 if it is not scored."""
    is_scored = np.array(row.is_answer) | score_prompts
    return np.where(is_scored, np.cumsum(is_scored) - 1, -1)


def _join_cells(laid: Sequence[_Laid]) -> tuple[np.ndarray, np.ndarray]:
    flat = np.concatenate([part.ravel() for g in laid for part in (g.prompts, g.answers)])
    return np.maximum(flat, 0), flat >= 0


def _group(laid: _Laid, scores: np.ndarray) -> Group:
    def places(cells: np.ndarray) -> np.ndarray:
        return np.where(cells >= 0, scores[np.maximum(cells, 0)], 0).astype(np.int32)

    return Group(
        prompt_lengths=laid.prompt_lengths,
        answer_lengths=laid.answer_lengths,
        prompt_scores=places(laid.prompts),
        answer_scores=places(laid.answers),
    )


def _filled(values: Sequence[int] | np.ndarray, total: int, fill: int = 0) -> np.ndarray:
    array = np.full(total, fill, np.int32)
    array[: len(values)] = values
    return array


def query_blocks(width: int, block: int = QUERY_BLOCK) -> list[tuple[int, int]]:
    """Return start and end of each block of queries, at least so large, in a rectangle."""
    block = round_up(-(-width // max(1, width // block)), WIDTH_MULTIPLE)
    return [(start, min(start + block, width)) for start in range(0, width, block or 1)]


def round_up(value: int, multiple: int) -> int:
    """Return the next multiple at or above a value."""
    return -(-value // multiple) * multiple


def split_into_groups(lengths: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Sort pairs by length and cut them where the rectangles of attention get smallest.

    Args:
        lengths: for each pair the tokens of its prompt and of its longer answer.

    Returns:
        Indices of the pairs, group by group; at most `MAX_GROUPS` groups.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    n = len(order)
    cost = _cut_costs([lengths[i] for i in order])
    best = {0: (0, [])}
    for _ in range(min(MAX_GROUPS, n)):
        reached = dict(best)
        for start, (spent, cuts) in best.items():
            for end in range(start + 1, n + 1):
                total = spent + cost[start][end]
                if end not in reached or total < reached[end][0]:
                    reached[end] = (total, [*cuts, (start, end)])
        best = reached
    return [order[start:end] for start, end in best[n][1]]


def split_exactly(lengths: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Divide pairs as `split_into_groups` does, but keep prompts of different length apart."""
    members: dict[int, list[int]] = {}
    for place, (prompt, _) in enumerate(lengths):
        members.setdefault(prompt, []).append(place)
    return [
        [places[i] for i in group]
        for places in members.values()
        for group in split_into_groups([lengths[place] for place in places])
    ]


def _cut_costs(lengths: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Cells of attention of the group from `start` to `end`, for all of both."""
    n = len(lengths)
    costs = [[0] * (n + 1) for _ in range(n)]
    for start in range(n):
        prompt = answer = 0
        for end in range(start + 1, n + 1):
            prompt = max(prompt, round_up(lengths[end - 1][0], WIDTH_MULTIPLE))
            answer = max(answer, round_up(lengths[end - 1][1], WIDTH_MULTIPLE))
            pairs = end - start
            area = pairs * prompt * prompt + 2 * pairs * answer * (prompt + answer)
            costs[start][end] = area + GROUP_COST
    return costs
