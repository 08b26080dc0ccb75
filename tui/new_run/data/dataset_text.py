"""Datasets of the Hub to choose from: what is said of one in a row, and below the list; pure."""

from __future__ import annotations

import re
import shlex
from typing import Any

from orpo_mlx.data.catalogue.card import DatasetCard
from orpo_mlx.data.catalogue.search import FoundDataset
from orpo_mlx.text.formatting import format_bytes, format_count
from tui.new_run.draft import SETTINGS

_OF_DATA = ("data_subset", "data_split")


def rows_text(found: FoundDataset, card: DatasetCard | None = None) -> str:
    """Return how many rows a dataset has, as exactly as is known: "44,245", "10K-100K", "?"."""
    if card is not None and card.rows:
        return f"{card.rows:,}"
    size = found.size or "?"
    between = re.fullmatch(r"(\w+)<n<(\w+)", size)
    if between:
        return f"{between[1]}-{between[2]}"
    return re.sub(r"^n([<>])", r"\1 ", size).partition(" pairs")[0]


def downloads_text(found: FoundDataset) -> str:
    """Return how often it was downloaded lately, "?" if the Hub was not asked."""
    return "?" if found.downloads is None else format_count(found.downloads)


def licence_text(found: FoundDataset, card: DatasetCard | None = None) -> str:
    """Return its licence, "?" if it is not known."""
    return found.licence or (card.licence if card else "") or "?"


def needed_settings(found: FoundDataset) -> dict[str, str]:
    """Return the subset and split to read, for a dataset that has several."""
    return {name: value for name, value in _settings(found).items() if name in _OF_DATA}


def _settings(found: FoundDataset) -> dict[str, str]:
    words = shlex.split(found.settings)
    names = {setting.flag: name for name, setting in SETTINGS.items()}
    pairs = zip(words[::2], words[1::2], strict=False)
    return {names[flag]: value for flag, value in pairs if flag in names}


def about_lines(found: FoundDataset, card: DatasetCard | str | None) -> list[str]:
    """Return what is known of a dataset.

    Args:
        found: what the search told.
        card: what the Hub told of this one; or why it told nothing; None while it is asked.
    """
    told = card if isinstance(card, DatasetCard) else None
    first = [f"{rows_text(found, told)} rows", *_layout_parts(told)]
    first.append(f"licence {licence_text(found, told)}")
    if told and told.download_bytes:
        first.append(f"choosing it downloads {format_bytes(told.download_bytes)}")
    is_gated = found.gated or (told is not None and told.is_gated)
    lines = [" · ".join(first), found.teaches or ""]
    lines.append("gated: accept its terms on its page, then `hf auth login`" if is_gated else "")
    needed, settings = needed_settings(found), _settings(found)
    if needed:
        lines.append("Taken with it: " + _flags(needed))
    elif told and told.unclear:
        lines.append(told.unclear)
    if advised := {n: v for n, v in settings.items() if n not in _OF_DATA}:
        lines.append("Suits it: " + _flags(advised))
    lines.append({None: "asking the Hub for its columns and size ..."}.get(card, ""))  # type: ignore[arg-type]
    lines.append(card if isinstance(card, str) else "")
    return [line for line in lines if line]


def _layout_parts(card: DatasetCard | None) -> list[str]:
    if card is None or not card.columns:
        return []
    if card.layout:
        return [f"layout probably {card.layout}"]
    return ["columns " + ", ".join(card.columns)]


def _flags(settings: dict[str, Any]) -> str:
    return " ".join(f"{SETTINGS[name].flag} {value}" for name, value in settings.items())
