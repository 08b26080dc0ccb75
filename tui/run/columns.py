"""A table of floats that grows at the end, one array per name; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Table:
    """Rows of numbers in one array that doubles when it is full.

    Attributes:
        names: one per column; `column(name)` is a view of what is filled.
    """

    def __init__(self, names: Sequence[str], capacity: int = 256) -> None:
        self.names = tuple(names)
        self._index = {name: i for i, name in enumerate(self.names)}
        self._rows = np.empty((len(self.names), capacity))
        self._length = 0
        self._new: list[float] = []

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __len__(self) -> int:
        return self._length + len(self._new) // len(self.names)

    def append(self, values: Iterable[float]) -> None:
        """Add one row, in the order of `names`."""
        self._new.extend(values)

    def extend(self, rows: Floats) -> None:
        """Add many rows: [rows, names]."""
        self._settle()
        self._put(rows)

    def _settle(self) -> None:
        """Move the new rows into the arrays: many at once cost little more than one."""
        if self._new:
            self._put(np.array(self._new).reshape(-1, len(self.names)))
            self._new.clear()

    def _put(self, rows: Floats) -> None:
        end = self._length + len(rows)
        while end > self._rows.shape[1]:
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)], axis=1)
        self._rows[:, self._length : end] = rows.T
        self._length = end

    def column(self, name: str) -> Floats:
        """Return the values of a name, none if it is no column; a view, valid until `append`."""
        self._settle()
        if name not in self._index:
            return np.empty(0)
        return self._rows[self._index[name], : self._length]

    def last(self, name: str) -> float:
        """Return the newest value of a name, NaN if there is none."""
        column = self.column(name)
        return float(column[-1]) if len(column) else np.nan

    def with_names(self, names: Sequence[str]) -> Table:
        """Return the same rows with these columns; a new one is NaN."""
        if tuple(names) == self.names:
            return self
        table, unknown = Table(names), np.full(len(self), np.nan)
        columns = [self.column(name) if name in self else unknown for name in names]
        table.extend(np.column_stack(columns))
        return table

    def keep(self, length: int) -> None:
        """Forget all rows after the first `length`."""
        self._settle()
        self._length = min(self._length, max(0, length))
