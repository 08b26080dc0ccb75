"""What the export screen asks for a chosen format; pure.

A part of the options of `orpo-mlx export`: those that a format cannot do without, or that change
what is written. The rest is for the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

FieldKind = Literal["text", "file", "choice", "switch"]

FILE_SUFFIXES = {"gguf": ".gguf", "gguf-lora": ".gguf"}
"""Formats that are one file; all others are a folder."""

OWN_PLACES = ("lmstudio",)
"""Formats that go where their program looks, not into the chosen folder."""


@dataclass(frozen=True)
class Field:
    """One option of the form.

    Attributes:
        name: of the option, with underscores.
        label: shown before it.
        hint: what belongs into it.
        formats: that take it.
        needed_by: formats that cannot be written without it.
        values: of a choice; the first means that nothing is given.
    """

    name: str
    label: str
    kind: FieldKind
    hint: str
    formats: tuple[str, ...]
    needed_by: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The word on the command line."""
        return "--" + self.name.replace("_", "-")


FIELDS: tuple[Field, ...] = (
    Field(
        "base_gguf", "Base GGUF", "file", "file.gguf of the base model, or OWNER/NAME:FILE.gguf",
        ("gguf", "ollama", "lmstudio"), ("gguf", "ollama"),
    ),
    Field(
        "repo", "Repository", "text", "OWNER/NAME on the Hub; made if it is not there",
        ("hub",), ("hub",),
    ),
    Field("content", "Upload", "choice", "", ("hub",), (), ("mlx", "peft", "fused")),
    Field("public", "Public", "switch", "anyone may read it", ("hub",)),
    Field("name", "Ollama name", "text", "the run's name if left empty", ("ollama",)),
    Field(
        "quantize", "Quantize", "choice", "", ("fused", "lmstudio"), (),
        ("as the base", "4", "6", "8"),
    ),
    Field(
        "dtype", "Numbers", "choice", "", ("peft", "gguf-lora"), (),
        ("float32", "float16", "bfloat16"),
    ),
    Field(
        "base_id", "Base on the Hub", "text", "OWNER/NAME of the original model; found if empty",
        ("peft", "fused"),
    ),
)  # fmt: skip


def fields_for(formats: Iterable[str]) -> list[Field]:
    """Return the fields that any of these formats takes, needed ones first."""
    chosen = set(formats)
    found = [field for field in FIELDS if chosen & set(field.formats)]
    return sorted(found, key=lambda field: not chosen & set(field.needed_by))


def missing(formats: Iterable[str], values: Mapping[str, str]) -> str:
    """Return a sentence about the first thing that is still needed, "" if nothing is."""
    for name in formats:
        for field in FIELDS:
            if name in field.needed_by and not values.get(field.name, "").strip():
                return f"{name} needs {field.label}: {field.hint}."
    return ""


def option_words(format: str, values: Mapping[str, str]) -> list[str]:
    """Return the words of the command line for what was filled in and the format takes."""
    words = []
    for field in FIELDS:
        value = values.get(field.name, "").strip()
        if format not in field.formats or not value:
            continue
        if field.kind == "switch":
            words.append(field.flag)
        elif not field.values or value != field.values[0]:
            words += [field.flag, value]
    return words


def file_name(run_id: str, format: str) -> str:
    """Return what an export is called in the chosen folder."""
    return f"{run_id}-{format}{FILE_SUFFIXES.get(format, '')}"
