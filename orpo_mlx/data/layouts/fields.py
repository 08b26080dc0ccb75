"""One value of a row: present or missing, of the right type or refused by file and line."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from orpo_mlx.data.sources.source import Row, kind_of
from orpo_mlx.data.types import Drop
from orpo_mlx.errors import DataError

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

ONE_LAYOUT = "Correct the rows; every row of a file has the same layout."


def wrong_type(row: Row, field: str, value: Any, needed: str) -> DataError:
    """Return the error for a value that is not what its column holds."""
    return DataError(f"{row.source}: {field} is {kind_of(value)}; needed: {needed}.", ONE_LAYOUT)


def text_of(row: Row, field: str) -> str:
    """Return a column's text.

    Raises:
        DataError: it is something else.
    """
    value = row.values[field]
    if not isinstance(value, str):
        raise wrong_type(row, field, value, "text")
    return value


def missing(row: Row, *fields: str) -> Drop | None:
    """Return the reason to drop a row in which one of the columns is absent or null."""
    absent = [name for name in fields if row.values.get(name) is None]
    return Drop(f"missing {absent[0]}") if absent else None


def number_of(value: Any) -> float | None:
    """Return a finite number, also one written as text (CSV has nothing else); None if it is not.

    true and false count as 1 and 0.
    """
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parsed(value: Any) -> Any:
    """Return the list or object that a text holds as JSON (as CSV files do), else the value."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = json.loads(value)
        if SURROGATE.search(value):  # written as an escape, half a character becomes one here
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return value
    return found


def without_nulls(value: Any) -> Any:
    """Return a nested value without keys of objects that are null.

    Tables give every object the keys of all: what another tool has is null in this one.
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def first_column(values: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """Return the first of the names that is a column."""
    return next((name for name in names if name in values), None)
