"""Convolutions and recurrences over a packed row: out into rectangles, back into the row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import mlx.core as mx

from orpo_mlx.data.batching.packed import Group, Packed
from orpo_mlx.scoring.attention import permuted


class PackedMixer:
    """Lets layers with states see the sequences of a packed micro-batch: prompts from nothing,
    answers from where their own prompt ended.

    Args:
        packed: with mx arrays.
    """

    def __init__(self, packed: Packed) -> None:
        self._groups = packed.groups
        self._to_cells = permuted(packed.cells, packed.rows, packed.is_row)
        self._to_row = permuted(packed.rows, packed.cells, packed.is_cell)

    def convolve(self, convolution: Callable[..., mx.array], x: mx.array, before: int) -> mx.array:
        """Convolve each sequence.

        Args:
            convolution: of [rows, before + width, C], to [rows, width, C].
            x: [1, before + T, C], what comes before the row means nothing.
            before: tokens that an output sees besides its own.
        """
        done = []
        for group, (prompts,), (answers,) in self._rectangles([x[:, before:]]):
            prompts = mx.pad(prompts, [(0, 0), (before, 0), (0, 0)])
            last = group.prompt_lengths[:, None] + mx.arange(before)
            state = mx.take_along_axis(prompts, last[..., None], axis=1)
            if prompts.shape[1] > before:
                done.append(convolution(prompts))
            done.append(convolution(mx.concatenate([mx.concatenate([state] * 2), answers], axis=1)))
        return self._row(done)

    def scan(
        self, rule: Callable[..., tuple[mx.array, mx.array]], sequences: Sequence[mx.array]
    ) -> tuple[mx.array, None]:
        """Go through each sequence.

        Args:
            rule: called with sequences [rows, width, ...], state and mask; returns outputs [rows,
                width, ...] and the last state.
            sequences: [1, T, ...].

        Returns:
            [1, T, ...], and no state.
        """
        done = []
        for group, prompts, answers in self._rectangles(sequences):
            state = None
            if prompts[0].shape[1]:
                mask = mx.arange(prompts[0].shape[1]) < group.prompt_lengths[:, None]
                out, state = rule(prompts, None, mask)
                done.append(out)
                state = mx.concatenate([state] * 2)
            done.append(rule(answers, state, None)[0])
        return self._row(done), None

    def _rectangles(
        self, sequences: Sequence[mx.array]
    ) -> Iterator[tuple[Group, list[mx.array], list[mx.array]]]:
        """Yield each group with its prompts [B, P, ...] and answers [2B, A, ...]."""
        places = [x for group in self._groups for x in (group.prompt_scores, group.answer_scores)]
        bounds = list(accumulate(x.size for x in places))[:-1]
        cells = [mx.split(self._to_cells(x.squeeze(0)), bounds) for x in sequences]
        parts = [
            [part.reshape(*shape.shape, *part.shape[1:]) for part in own]
            for shape, own in zip(places, zip(*cells, strict=True), strict=True)
        ]
        yield from zip(self._groups, parts[::2], parts[1::2], strict=True)

    def _row(self, done: Sequence[mx.array]) -> Any:
        flat = [x.reshape(-1, *x.shape[2:]) for x in done]
        return self._to_row(mx.concatenate(flat))[None]
