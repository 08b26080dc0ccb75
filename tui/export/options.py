"""What the export screen asks for a chosen format: the options of `orpo-mlx export`; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orpo_mlx.export.formats.table import FORMATS, OPTIONS, Option, find_format

FieldKind = Literal["text", "file", "choice", "switch", "place"]

NEEDED = {"ollama": "base_gguf", "hub": "repo"}
"""Option without which a format cannot be written."""

GOALS = {
    "lmstudio": "chat in LM Studio",
    "ollama": "use in Ollama",
    "gguf-lora": "llama.cpp, beside the base you have",
    "gguf": "llama.cpp and others, in one file",
    "mlx": "mlx-lm and this program",
    "peft": "Python: transformers, PEFT, vLLM",
    "fused": "a model folder, the adapter merged in",
    "hub": "share it on the Hub",
}
"""What a format is for, in the order of the list; the first word of a row is never its name."""

DEFAULT = "default"
"""The choice that gives nothing."""

_LABELS = {
    "base_gguf": "Base GGUF",
    "repo": "Repository",
    "content": "Upload",
    "public": "Public",
    "name": "Ollama name",
    "run": "ollama create",
    "quantize": "Quantize",
    "dtype": "Numbers",
    "weights_dtype": "GGUF numbers",
    "base_id": "Base on the Hub",
    "original": "Original model",
    "lmstudio": "LM Studio",
    "model": "Base model",
}
"""What stands before a field, in the order of the form."""

_HINTS = {
    "base_gguf": "file.gguf of the base model, or OWNER/NAME:FILE.gguf",
    "repo": "OWNER/NAME on the Hub; made if it is not there",
    "public": "anyone may read it",
    "run": "run it, too",
    "name": "the run's name if left empty",
    "base_id": "OWNER/NAME of the original model; found if empty",
    "original": "folder or OWNER/NAME the MLX base was made from",
    "lmstudio": "folder of its models; found if left empty",
    "model": "where the adapter says, if left empty",
}


@dataclass(frozen=True)
class Field:
    """One option of the form.

    Attributes:
        name: of the option, with underscores.
        label: shown before it.
        kind: of "place" it is no option, but says where to write; see `place_of`.
        hint: what belongs into it.
        help: what it does, a sentence or two.
        formats: that take it.
        values: of a choice; the first means that nothing is given.
    """

    name: str
    label: str
    kind: FieldKind
    hint: str
    help: str
    formats: tuple[str, ...]
    values: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The word on the command line."""
        return "--" + self.name.replace("_", "-")


def _field(option: Option) -> Field:
    kind: FieldKind = "text"
    if option.values:
        kind = "choice"
    elif not option.metavar:
        kind = "switch"
    elif option.metavar == "FILE":
        kind = "file"
    return Field(
        option.name,
        _LABELS.get(option.name, option.flag),
        kind,
        _HINTS.get(option.name, option.metavar),
        option.help,
        tuple(one.name for one in FORMATS if option.name in one.options),
        (DEFAULT, *option.values) if option.values else (),
    )


_MODEL = Field(
    "model",
    _LABELS["model"],
    "text",
    _HINTS["model"],
    "The base model, a folder or OWNER/NAME, if it is not where the adapter says.",
    tuple(one.name for one in FORMATS),
)
_LMSTUDIO = Field(
    "lmstudio",
    _LABELS["lmstudio"],
    "place",
    _HINTS["lmstudio"],
    "The folder in which LM Studio keeps its models, if it is not in your home folder.",
    ("lmstudio",),
)
_ORDER = list(_LABELS)
FIELDS: tuple[Field, ...] = (
    *sorted(map(_field, OPTIONS), key=lambda field: (*_ORDER, field.name).index(field.name)),
    _LMSTUDIO,
    _MODEL,
)
FIELDS_BY_NAME = {field.name: field for field in FIELDS}


def fields_for(formats: Iterable[str]) -> list[Field]:
    """Return the fields that any of these formats takes, needed ones first."""
    chosen = set(formats)
    needed = {NEEDED.get(name) for name in chosen}
    found = [field for field in FIELDS if chosen & set(field.formats)]
    return sorted(found, key=lambda field: field.name not in needed)


def missing(formats: Iterable[str], values: Mapping[str, str]) -> tuple[Field | None, str]:
    """Return the first field that must still be filled in and why; (None, "") if none must."""
    for name in formats:
        field = FIELDS_BY_NAME.get(NEEDED.get(name, ""))
        if field and not values.get(field.name, "").strip():
            return field, f"{name} needs {field.label}: {field.hint}."
    return None, ""


def option_words(format: str, values: Mapping[str, str]) -> list[str]:
    """Return the words of the command line for what was filled in and the format takes."""
    words = []
    for field in FIELDS:
        value = values.get(field.name, "").strip()
        if format not in field.formats or not value or field.kind == "place":
            continue
        if field.kind == "switch":
            words.append(field.flag)
        elif not field.values or value != DEFAULT:
            words += [field.flag, value]
    return words


def place_of(format: str, run_id: str, folder: Path, values: Mapping[str, str]) -> Path | None:
    """Return where an export goes; None leaves it to the export: where its program looks."""
    if format == "lmstudio":
        place = values.get("lmstudio", "").strip()
        return Path(place).expanduser() / "orpo-mlx" / run_id if place else None
    found = find_format(format)
    return folder / f"{run_id}-{format}{found.suffix if found else ''}"
