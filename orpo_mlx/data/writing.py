"""Pairs as this project writes them: one JSON object a line, valid input for a training.

A line has prompt, chosen and rejected (text, or messages), or prompt_ids, chosen_ids and
rejected_ids; an answer with a label has prompt, completion and label; tools where the prompt offers
some; margin where the row says by how much chosen is better; and `provenance`, which training does
not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orpo_mlx.data.types import Pair, TokenPair
from orpo_mlx.errors import DataError, reason_of
from orpo_mlx.storage.atomic import replace_file


def normal_row(pair: Pair, provenance: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a pair as the object of one line.

    Args:
        pair: to write.
        provenance: what made it, besides the row it came from.
    """
    ids = "_ids" if isinstance(pair, TokenPair) else ""
    row: dict[str, Any] = {f"prompt{ids}": pair.prompt}
    if pair.label is None:
        row |= {f"chosen{ids}": pair.chosen, f"rejected{ids}": pair.rejected}
    else:
        row |= {f"completion{ids}": pair.chosen, "label": pair.label}
    if not isinstance(pair, TokenPair) and pair.tools:
        row["tools"] = pair.tools
    if pair.margin is not None:
        row["margin"] = pair.margin
    about = {"source": pair.source, **(provenance or {})}
    known = {key: value for key, value in about.items() if value not in (None, "")}
    return {**row, "provenance": known}


def json_line(row: dict[str, Any]) -> str:
    """Return an object as a line of JSON, its newline included."""
    return json.dumps(row, ensure_ascii=False, default=str) + "\n"


def check_out(path: Path, force: bool) -> None:
    """Refuse a place that cannot be written, before the work is done.

    Raises:
        DataError: it exists and is not to be replaced, is a folder, or its folder is missing.
    """
    if path.suffix.lower() not in (".jsonl", ".json"):
        raise DataError(f"{path}: pairs are written as JSON lines.", f"Name it {path}.jsonl.")
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise DataError(f"{path}: exists and is not a file.", "Give another name.")
    if path.exists() and not force:
        raise DataError(f"{path}: exists.", "Give another name, or --force to replace it.")
    if not path.absolute().parent.is_dir():
        raise DataError(f"{path}: there is no folder {path.parent}.", f"mkdir -p {path.parent}")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows aside and rename them into place; returns their number.

    Raises:
        DataError: they cannot be written; what stood there before still does.
    """
    count = 0

    def write(aside: Path) -> None:
        nonlocal count
        with aside.open("x", encoding="utf-8", newline="\n") as stream:
            for row in rows:
                stream.write(json_line(row))
                count += 1

    try:
        replace_file(path, write)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({reason_of(error)}).", "Check the folder and its space."
        ) from None
    return count
