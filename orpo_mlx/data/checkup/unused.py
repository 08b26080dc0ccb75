"""Columns that nothing is made of: how many rows hold something there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from orpo_mlx.data.checkup.findings import Finding, Tally
from orpo_mlx.data.layouts.context import CONTEXT_COLUMNS
from orpo_mlx.data.layouts.scores import VERDICT_COLUMNS
from orpo_mlx.data.layouts.table import Layout
from orpo_mlx.data.layouts.turns import TURN_KEYS
from orpo_mlx.data.sources.rows import Row
from orpo_mlx.data.types import TURN_DETAILS

TELLING = {*CONTEXT_COLUMNS, *VERDICT_COLUMNS, "winner", "preference", "image", "images"}
"""Columns that say what a row means, wherever they stand."""

_TAKEN = {"role", "content", "from", "value", *TURN_DETAILS}


class Unused:
    """Counts what the rows hold beside what their layout takes."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}

    def watch(self, rows: Iterable[Row], layout: Layout) -> Iterator[Row]:
        """Yield the rows as they are."""
        unused = cache(lambda names: set(layout.unused(names)))
        for row in rows:
            left = unused(tuple(row.values))
            for name, value in row.values.items():
                if name in left:
                    self._count(name, value, row.source)
                elif isinstance(value, list):
                    self._look_into(name, value, row.source)
            yield row

    def _count(self, name: str, value: Any, source: str) -> None:
        if value not in (None, "", [], {}):
            self._tallies.setdefault(name, Tally()).add(source)

    def _look_into(self, name: str, turns: list[Any], source: str) -> None:
        """Count what turns hold that is not passed on."""
        left = {
            key: turn[key]
            for turn in turns
            if isinstance(turn, dict) and not TURN_KEYS.isdisjoint(turn)
            for key in turn.keys() - _TAKEN
        }
        for key, value in left.items():
            self._count(f"{name}[].{key}", value, source)

    def findings(self) -> Iterator[Finding]:
        """Yield the columns by name; those that say what a row means are a warning."""
        for name, tally in self._tallies.items():
            if name in TELLING:
                yield Finding(
                    "warning",
                    "column-ignored",
                    f"the column {name!r} is not used, and it may change what a row means",
                    "Choose a --layout that takes it, or put it into the prompts; remove it if it "
                    "says nothing.",
                    tally.count,
                    tally.rows,
                )
        rest = {name: tally.count for name, tally in self._tallies.items() if name not in TELLING}
        if rest:
            named = ", ".join(f"{name} ({count:,})" for name, count in sorted(rest.items()))
            yield Finding("info", "columns-unused", f"columns that are not used, and rows: {named}")
