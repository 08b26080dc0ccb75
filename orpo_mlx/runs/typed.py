"""What a run's files say, checked once for kind and size, so that whoever reads it may rely on it.

A run folder may be damaged, edited by hand or made to do harm: text where a number belongs, a size
that no clock or float holds. `problem` names the first such value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeGuard

LARGEST_INT = 1 << 53
"""A float holds every integer up to here."""
LARGEST_FLOAT = 1e39
"""Above what float32 holds, so above what a run can compute."""
LATEST = 1e11
"""Unix seconds, in the year 5138; calendars fail later."""


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value is a finite number of a size that a run can have."""
    if isinstance(value, int):
        return abs(value) <= LARGEST_INT
    return isinstance(value, float) and abs(value) <= LARGEST_FLOAT


def is_time(value: Any) -> bool:
    """Tell whether a value is a moment in Unix seconds that a calendar holds."""
    return is_number(value) and 0 <= value <= LATEST


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and is_number(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and all(item is None or is_number(item) for item in row)
        for row in value
    )


def _is_map_of(is_kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_kind, value.values()))


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_is_int, "a whole number"),
    "float": (is_number, "a number"),
    "str": (_is_text, "text"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "int | None": (lambda value: value is None or _is_int(value), "a whole number or null"),
    "str | None": (lambda value: value is None or _is_text(value), "text or null"),
    "list[str]": (lambda value: isinstance(value, list) and all(map(_is_text, value)), "texts"),
    "list[int]": (lambda v: isinstance(v, list) and all(map(_is_int, v)), "whole numbers"),
    "dict[str, int]": (_is_map_of(_is_int), "an object of whole numbers"),
    "dict[str, float]": (_is_map_of(is_number), "an object of numbers"),
    "dict[str, str]": (_is_map_of(_is_text), "an object of texts"),
    "dict[str, Any]": (lambda value: isinstance(value, dict), "an object"),
    "float | None": (lambda value: value is None or is_number(value), "a number or null"),
    "list[list[float | None]]": (_is_rows, "rows of numbers"),
    "FailureKind": (_is_text, "text"),
    "Status": (_is_text, "text"),
}
"""By the annotation of a field: what it may hold, and that in words."""


def problem(cls: Any, raw: Mapping[str, Any]) -> str:
    """Return what keeps a JSON object from being one of a dataclass, "" if nothing does."""
    for field in fields(cls):
        if field.name not in raw:
            if field.default is MISSING and field.default_factory is MISSING:
                return f"{field.name} is missing"
            continue
        is_kind, needed = _KINDS[field.type]  # type: ignore[index]
        if not is_kind(raw[field.name]):
            return f"{field.name} is {_shown(raw[field.name])}; {needed} is needed"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, int) and not is_number(value):
        return "a number too large for a run"  # its digits may be more than Python writes
    return repr(value)[:40] if isinstance(value, int | float | str) else type(value).__name__
