"""What is known of one model beyond its row: licence, chat template, gate, bytes to download."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from orpo_mlx.storage.hub import (
    FIRST_ANSWER_SECONDS,
    MODEL,
    MODEL_PATTERNS,
    check_id,
    explain_hub_error,
)
from orpo_mlx.text.formatting import format_bytes, format_count, format_duration
from tui.new_run.models.catalogue import ModelRow

_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
_LICENCE = re.compile(r"^---\s.*?^license:\s*[\"']?([\w.+-]+)", re.DOTALL | re.MULTILINE)
_README_CHARACTERS = 4_000
_ASSUMED_BITS_PER_SECOND = 50e6

PLACES = {
    "built-in": "comes with the program, for trying out",
    "cache": "in the Hub's cache on this machine",
    "folder": "a folder on this machine",
    "hub": "on the Hub",
}


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model; what is not known is empty, 0 or None.

    Attributes:
        has_template: whether it comes with a chat template.
        is_gated: whether its terms must be accepted before it can be downloaded.
        download_bytes: of all files a training needs; 0 for what is on this machine.
    """

    licence: str = ""
    has_template: bool | None = None
    is_gated: bool = False
    download_bytes: int = 0


def local_facts(folder: Path) -> ModelFacts:
    """Return what a model's folder tells; files that cannot be read tell nothing."""
    has_template = any((folder / name).exists() for name in _TEMPLATE_FILES)
    with contextlib.suppress(OSError, ValueError):
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        has_template |= isinstance(config, dict) and bool(config.get("chat_template"))
    licence = None
    with (
        contextlib.suppress(OSError),
        (folder / "README.md").open(encoding="utf-8", errors="replace") as stream,
    ):
        licence = _LICENCE.match(stream.read(_README_CHARACTERS))
    return ModelFacts(licence[1] if licence else "", has_template)


def hub_facts(repo_id: str) -> ModelFacts:
    """Ask the Hub about a model; nothing of it is downloaded.

    Raises:
        ModelError: one sentence for an unknown id, a refusal, or a Hub that does not answer.
    """
    check_id(repo_id, MODEL)
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repo_id, files_metadata=True, timeout=FIRST_ANSWER_SECONDS)
    except Exception as error:
        raise explain_hub_error(error, repo_id, None) from error
    card: Mapping[str, Any] = info.card_data.to_dict() if info.card_data is not None else {}
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    tokenizer = (info.config or {}).get("tokenizer_config") or {}
    licence = card.get("license") or _tagged(info.tags or [])
    return ModelFacts(
        licence if isinstance(licence, str) else "",
        bool(tokenizer.get("chat_template")) or any(name in sizes for name in _TEMPLATE_FILES),
        bool(info.gated),
        sum(size for name, size in sizes.items() if any(fnmatch(name, p) for p in MODEL_PATTERNS)),
    )


def _tagged(tags: list[str]) -> str:
    return next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), "")


def about_lines(row: ModelRow, facts: ModelFacts | str | None) -> list[str]:
    """Return what is known of a model.

    Args:
        row: what the list told.
        facts: what is known besides; or why nothing is; None while it is looked for.
    """
    known = facts if isinstance(facts, ModelFacts) else ModelFacts()
    template = {True: "has a chat template", False: "no chat template", None: ""}
    first = [row.kind, template[known.has_template], known.licence and f"licence {known.licence}"]
    first += [f"{format_count(row.downloads)} downloads a month"] if row.downloads else []
    lines = [" · ".join(part for part in first if part)]
    if row.place == "hub":
        lines.append(_download_text(row, known))
    else:
        lines.append(PLACES[row.place])
    if known.is_gated:
        lines.append("gated: accept its terms on its page, then `hf auth login`")
    return [line for line in [*lines, facts if isinstance(facts, str) else ""] if line]


def _download_text(row: ModelRow, facts: ModelFacts) -> str:
    parts = ["not on this machine"]
    if size := facts.download_bytes or row.size:
        seconds = size * 8 / _ASSUMED_BITS_PER_SECOND
        parts.append(f"the start downloads {format_bytes(size)}")
        parts.append(f"about {format_duration(seconds)} at 50 Mbit/s")
    return " · ".join(parts)
