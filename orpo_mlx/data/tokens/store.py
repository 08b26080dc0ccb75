"""Many token pairs in little memory: all ids in one array, a pair made when it is asked for.

A Python list takes 8 bytes for an id and up to 32 more for the number itself; here it is 4.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from orpo_mlx.data.types import TokenPair


class TokenPairs(Sequence[TokenPair]):
    """A sequence of token pairs; equal to any sequence of the same pairs.

    Attributes:
        ids: [I] int32, for each pair prompt, chosen and rejected one after the other.
        starts: [N, 4] where the three begin and the last ends.
        margins: of each pair, None where its row has none.
        labels: of labelled answers; None for each pair.
    """

    def __init__(
        self,
        ids: np.ndarray,
        starts: np.ndarray,
        sources: Sequence[str],
        notes: Sequence[tuple[str, ...]],
        margins: Sequence[float | None],
        labels: Sequence[bool | None],
    ) -> None:
        self.ids, self.starts = ids, starts
        self.sources, self.notes = sources, notes
        self.margins, self.labels = margins, labels

    @property
    def lengths(self) -> np.ndarray:
        """[N, 3] tokens of prompt, chosen and rejected."""
        return np.diff(self.starts, axis=1)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> TokenPair: ...
    @overload
    def __getitem__(self, index: slice) -> TokenPairs: ...
    def __getitem__(self, index: int | slice) -> TokenPair | TokenPairs:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        prompt, chosen, rejected, end = self.starts[index].tolist()
        return TokenPair(
            self.ids[prompt:chosen].tolist(),
            self.ids[chosen:rejected].tolist(),
            self.ids[rejected:end].tolist(),
            self.sources[index],
            self.notes[index],
            margin=self.margins[index],
            label=self.labels[index],
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def take(self, indices: Iterable[int]) -> TokenPairs:
        """Return some of the pairs; the ids are shared, not copied."""
        chosen = list(indices)
        return TokenPairs(
            self.ids,
            self.starts[np.array(chosen, np.int64)],
            [self.sources[i] for i in chosen],
            [self.notes[i] for i in chosen],
            [self.margins[i] for i in chosen],
            [self.labels[i] for i in chosen],
        )


class TokenPairsBuilder:
    """Takes pairs one by one."""

    def __init__(self) -> None:
        self._ids = array("i")
        self._ends = array("q", [0])
        self._sources: list[str] = []
        self._notes: list[tuple[str, ...]] = []
        self._margins: list[float | None] = []
        self._labels: list[bool | None] = []
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, pair: TokenPair) -> None:
        """Append a pair."""
        for part in (pair.prompt, pair.chosen, pair.rejected):
            self._ids.extend(part)
            self._ends.append(len(self._ids))
        self._sources.append(pair.source)
        self._notes.append(self._known.setdefault(pair.notes, pair.notes))
        self._margins.append(pair.margin)
        self._labels.append(pair.label)

    def __len__(self) -> int:
        return len(self._sources)

    def build(self) -> TokenPairs:
        """Return what was added; the builder must not be used any more."""
        ends = np.frombuffer(self._ends, np.int64)
        starts = np.lib.stride_tricks.sliding_window_view(ends, 4)[::3] if len(ends) > 1 else None
        return TokenPairs(
            np.frombuffer(self._ids, np.int32) if len(self._ids) else np.zeros(0, np.int32),
            starts if starts is not None else np.zeros((0, 4), np.int64),
            self._sources,
            self._notes,
            self._margins,
            self._labels,
        )


def gather(pairs: Iterable[TokenPair]) -> TokenPairs:
    """Return pairs in the compact form."""
    if isinstance(pairs, TokenPairs):
        return pairs
    builder = TokenPairsBuilder()
    for pair in pairs:
        builder.add(pair)
    return builder.build()


def select(pairs: Sequence[TokenPair], indices: Sequence[int]) -> Sequence[TokenPair]:
    """Return some pairs in the form they are in."""
    return pairs.take(indices) if isinstance(pairs, TokenPairs) else [pairs[i] for i in indices]


def pair_lengths(pairs: Sequence[TokenPair]) -> np.ndarray:
    """Return the tokens of prompt, chosen and rejected of each pair as [N, 3]."""
    if isinstance(pairs, TokenPairs):
        return pairs.lengths
    return np.array([[len(p.prompt), len(p.chosen), len(p.rejected)] for p in pairs]).reshape(-1, 3)


def pair_labels(pairs: Sequence[TokenPair]) -> Sequence[bool | None]:
    """Return the label of each row, None for a pair."""
    return pairs.labels if isinstance(pairs, TokenPairs) else [pair.label for pair in pairs]
