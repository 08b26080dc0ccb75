"""Rows with several worse answers: one row for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orpo_mlx.data.layouts.convert import WORSE
from orpo_mlx.data.layouts.fields import first_column, parsed
from orpo_mlx.data.sources.rows import Row

WORSE_COLUMNS = ("rejected", WORSE, "rejected_responses")
ONE_OF_SEVERAL = "one of several worse answers to its prompt"


def one_answer_each(rows: Sequence[Row], mapping: Mapping[str, str]) -> Sequence[Row]:
    """Return rows with one worse answer each; the same rows if all have one.

    Args:
        rows: as they were read.
        mapping: column paths by field, if the user said what the columns are.
    """
    names = (mapping["rejected"],) if "rejected" in mapping else WORSE_COLUMNS
    columns = {name for row in rows for name in row.values if name in names}
    if not any(_answers(row.values.get(name)) for name in columns for row in rows):
        return rows
    return [one for row in rows for one in _each(row, first_column(row.values, names))]


def _each(row: Row, name: str | None) -> Iterator[Row]:
    answers = _answers(row.values[name]) if name else []
    if not name or not answers:
        yield row
        return
    rest = {key: value for key, value in row.values.items() if key != name}
    target = WORSE if name == "rejected_responses" else name
    notes = (ONE_OF_SEVERAL,) if len(answers) > 1 else ()
    for i, answer in enumerate(answers):
        source = f"{row.source}, {name}[{i}]" if len(answers) > 1 else row.source
        yield Row({**rest, target: answer}, source, notes)


def _answers(value: Any) -> list[Any]:
    """Return the answers of a list of texts, or of lists of messages; of anything else none."""
    found = parsed(value) if isinstance(value, list | str) else None
    if not isinstance(found, list) or not found:
        return []
    is_each = all(isinstance(item, str) for item in found) or all(
        isinstance(item, list) and item and isinstance(item[0], dict) for item in found
    )
    return found if is_each else []
