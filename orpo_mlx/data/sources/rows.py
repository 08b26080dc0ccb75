"""One row of a data file, and how problems with rows are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orpo_mlx.errors import DataError

SHOWN_PROBLEMS = 3


@dataclass(frozen=True)
class Row:
    """One object of a data file.

    Attributes:
        values: column names to values.
        source: "file.jsonl:7" (1-based line), "file.json[6]" (0-based position in a list) or
            "file.parquet:row 7" (1-based row, a CSV's header not counted).
        notes: what is unusual about it, beside what its pair says.
    """

    values: dict[str, Any]
    source: str
    notes: tuple[str, ...] = ()


@dataclass
class Problems:
    """What is wrong with a file: the first few in full, all counted."""

    what_to_do: str
    shown: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, text: str) -> None:
        """Count one; the first few are kept as text."""
        self.count += 1
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(text)

    def raise_any(self, noun: str = "lines") -> None:
        """Do nothing if there are none.

        Raises:
            DataError: one error of them all.
        """
        if self.count:
            count = f" ({self.count:,} such {noun} in all)" if self.count > 1 else ""
            raise DataError("\n".join(self.shown) + count, self.what_to_do)


def report_problems(problems: list[str], what_to_do: str, noun: str = "lines") -> DataError:
    """Build one error from several: the first three in full, then how many there are."""
    shown = "\n".join(problems[:SHOWN_PROBLEMS])
    count = f" ({len(problems):,} such {noun} in all)" if len(problems) > 1 else ""
    return DataError(shown + count, what_to_do)


def kind_of(value: Any) -> str:
    """Name the JSON kind of a value for a message: "a number", "null", ..."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)
