"""`--map prompt=question chosen=good rejected=bad`: the user says what the columns are."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from orpo_mlx.data.sources.source import Row
from orpo_mlx.errors import DataError
from orpo_mlx.text.spelling import did_you_mean

FIELDS = (
    "prompt",
    "chosen",
    "rejected",
    "system",
    "tools",
    "conversations",
    "score_chosen",
    "score_rejected",
    "margin",
    "response_1",
    "response_2",
    "preference_strength",
    "prompt_ids",
    "chosen_ids",
    "rejected_ids",
    "completion",
    "completion_ids",
    "label",
)
"""What a column can be mapped to."""

EXAMPLE = "--map prompt=question chosen=good rejected=bad"


def map_rows(
    rows: Sequence[Row], mapping: Mapping[str, str], fields: Sequence[str] = FIELDS
) -> list[Row]:
    """Return rows with the mapped columns only, under the names of `fields`.

    A path is a column, or leads into one: "messages.0.content", "messages[-1].content".

    Raises:
        DataError: a field is unknown, or a path leads to nothing in every row.
    """
    _check_fields(mapping, fields)
    mapped = [map_row(row, mapping) for row in rows]
    for field, path in mapping.items():
        if all(row.values[field] is None for row in mapped):
            raise _leads_nowhere(rows, field, path)
    return mapped


def map_row(row: Row, mapping: Mapping[str, str]) -> Row:
    """Return one row with the mapped columns; null where a path leads to nothing."""
    values = {field: follow(row.values, path) for field, path in mapping.items()}
    return Row(values, row.source, row.notes)


def with_others(rows: Sequence[Row], mapping: Mapping[str, str]) -> dict[str, str]:
    """Return a mapping with the columns that it leads nowhere near, each under its own name."""
    columns = {name for row in rows for name in row.values}
    taken = {root(path, columns) for path in mapping.values()}
    return {**{name: name for name in sorted(columns - taken)}, **mapping}


def follow(values: dict[str, Any], path: str) -> Any:
    """Return what a path leads to, or None."""
    if path in values:  # a column whose own name has dots
        return values[path]
    found: Any = values
    for part in re.sub(r"\[(-?\d+)\]", r".\1", path).split("."):
        if isinstance(found, dict):
            found = found.get(part)
        elif isinstance(found, list) and re.fullmatch(r"-?\d{1,9}", part):
            index = int(part)
            found = found[index] if -len(found) <= index < len(found) else None
        else:
            return None
    return found


def root(path: str, columns: Collection[str]) -> str:
    """Return the column that a path leads into."""
    return path if path in columns else re.split(r"[.\[]", path)[0]


def _check_fields(mapping: Mapping[str, str], fields: Sequence[str]) -> None:
    for field in mapping:
        if field not in fields:
            raise DataError(
                f"--map {field}={mapping[field]}: there is no field {field}"
                f"{did_you_mean(field, fields)}",
                f"Fields are {', '.join(fields)}.",
            )


def _leads_nowhere(rows: Sequence[Row], field: str, path: str) -> DataError:
    columns = sorted({name for row in rows for name in row.values})
    near = did_you_mean(path, columns)
    return DataError(
        f"{rows[0].source}: --map {field}={path}: no row has such a value{near}\n"
        f"Columns found: {list_columns(columns)}.",
        f"Give columns that exist, or paths into them such as messages.0.content: {EXAMPLE}.",
    )


def list_columns(columns: Sequence[str]) -> str:
    """Return the first dozens of column names for a message."""
    names = [name[:60] for name in sorted(columns)]
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return (", ".join(names[:40]) or "none") + more
