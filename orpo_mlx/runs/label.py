"""What a person says about a run: a name, tags, a note; in a file of its own beside its settings.

The file may be damaged or made to do harm: what is not a label in kind and size is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.errors import ConfigError, RunError, reason_of
from orpo_mlx.storage.atomic import write_atomically
from orpo_mlx.storage.regular import read_regular

FILE = "label.json"
LONGEST_NAME, LONGEST_TAG, MOST_TAGS, LONGEST_NOTE = 60, 32, 16, 4000
_MAX_BYTES = 1 << 16
_TAG = re.compile(rf"\w[\w.=+-]{{0,{LONGEST_TAG - 1}}}")


@dataclass(frozen=True)
class RunLabel:
    """A run's name, tags and note; all may be empty."""

    name: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""

    @property
    def short(self) -> str:
        """Name and tags in a line: "first try #poems #old"."""
        return " ".join([*([self.name] if self.name else []), *(f"#{tag}" for tag in self.tags)])


NO_LABEL = RunLabel()


def read_label(run: Path) -> RunLabel:
    """Return what was said about a run; an empty label where nothing usable was."""
    try:
        raw = json.loads(read_regular(run / FILE, _MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return NO_LABEL
    return _label(raw) if isinstance(raw, dict) else NO_LABEL


def _label(raw: dict[str, Any]) -> RunLabel:
    name, tags, note = (raw.get(key) for key in ("name", "tags", "note"))
    kept = [tag for tag in tags if _is_tag(tag)] if isinstance(tags, list) else []
    return RunLabel(
        name=_line(name)[:LONGEST_NAME] if isinstance(name, str) else "",
        tags=tuple(dict.fromkeys(kept))[:MOST_TAGS],
        note=note[:LONGEST_NOTE] if isinstance(note, str) else "",
    )


def write_label(run: Path, label: RunLabel) -> None:
    """Keep a label in a run's folder; an empty one leaves no file.

    Raises:
        ConfigError: a part of it is too long, or a tag is more than a word.
        RunError: it cannot be written.
    """
    _require_fitting(label)
    try:
        if label == NO_LABEL:
            (run / FILE).unlink(missing_ok=True)
        else:
            text = json.dumps(asdict(label), ensure_ascii=True, indent=1) + "\n"
            write_atomically(run / FILE, text.encode())
    except OSError as error:
        raise RunError(
            f"{run / FILE}: cannot be written ({reason_of(error)})",
            "Make the run's folder writable, or free some disk.",
        ) from None


def parse_tags(text: str) -> tuple[str, ...]:
    """Return the tags in a text, between blanks or commas; a leading # does no harm."""
    words = (word.lstrip("#") for word in re.split(r"[\s,]+", text))
    return tuple(dict.fromkeys(word for word in words if word))


def _require_fitting(label: RunLabel) -> None:
    for what, text, most in (
        ("name", label.name, LONGEST_NAME), ("note", label.note, LONGEST_NOTE),
    ):  # fmt: skip
        if len(text) > most:
            raise ConfigError(
                f"--{what}: {len(text):,} signs, needs at most {most:,}", "Write it shorter."
            )
    if label.name != _line(label.name):
        raise ConfigError("--name: needs one line of text", "Put more into the note.")
    if wrong := [tag for tag in label.tags if not _is_tag(tag)]:
        raise ConfigError(
            f"--tag {wrong[0][:40]!r}: needs a word of at most {LONGEST_TAG} letters, digits, "
            "and - _ . = +",
            "Give several tags one by one: --tag a --tag b.",
        )
    if len(label.tags) > MOST_TAGS:
        raise ConfigError(
            f"--tag: {len(label.tags)} tags, needs at most {MOST_TAGS}", "Leave some out."
        )


def _is_tag(tag: object) -> bool:
    return isinstance(tag, str) and _TAG.fullmatch(tag) is not None


def _line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def has_tags(label: RunLabel, tags: Sequence[str]) -> bool:
    """Tell whether a label carries each of some tags, upper or lower case."""
    own = {tag.lower() for tag in label.tags}
    return all(tag.lower().lstrip("#") in own for tag in tags)
