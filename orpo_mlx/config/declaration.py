"""How a setting is declared, and what a declaration says of it.

A declaration gives type, range, default, unit, help and effects; from it come the settings-file key
(TOML), the command-line flag, the form field, the help text and the table in the docs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

GROUPS = {
    "model": "Model",
    "data": "Data",
    "objective": "Objective",
    "adapter": "Adapter (LoRA)",
    "optimisation": "Optimisation",
    "evaluation": "Evaluation and samples",
    "run": "Run directory and reports",
}

_LONGEST_SHOWN = 60
"""Characters of a refused value that are repeated."""

EFFECTS = ("memory", "speed", "quality", "disk")
"""What a setting may have an effect on, in the order in which it is told."""


def declare(
    group: str,
    default: Any,
    help: str,
    *,
    unit: str = "",
    memory: str = "",
    speed: str = "",
    quality: str = "",
    disk: str = "",
    usual: str = "",
    may_change: bool = False,
    known: tuple[str, ...] = (),
    **bounds: Any,
) -> Any:
    """Declare one setting.

    Args:
        group: a key of `GROUPS`.
        default: its value when neither flag nor file gives one.
        help: one sentence for `--help`, forms and docs.
        unit: what a number counts ("steps", "tokens", ...), "" if it has none.
        memory, speed, quality, disk: what another, mostly a higher value does to it; "" = nothing.
        usual: values that practice or the paper gives, "" if it gives none.
        may_change: whether a resumed run may use another value without becoming another run.
        known: names that are offered; whether another one is right shows when the run is prepared.
        bounds: pydantic limits (`ge`, `gt`, `le`, `lt`).
    """
    effects = dict(zip(EFFECTS, (memory, speed, quality, disk), strict=True))
    about = {"group": group, "unit": unit, "usual": usual, "may_change": may_change, "known": known}
    about["effects"] = {what: text for what, text in effects.items() if text}
    return Field(default, description=help, json_schema_extra={"setting": about}, **bounds)


@dataclass(frozen=True)
class Setting:
    """A declared setting, flattened for help texts, forms and docs."""

    name: str
    help: str
    default: Any
    group: str
    unit: str
    effects: dict[str, str]
    """What it does to some of `EFFECTS`; those it does nothing to are left out."""
    usual: str
    may_change: bool
    known: tuple[str, ...]
    """Offered as choices, though another name may be right."""
    kind: str
    """"int", "float", "bool", "str", "list", "map" or "choice"."""
    choices: tuple[str, ...]
    allowed: str
    """The accepted values in words, such as "a number above 0"."""

    @property
    def flag(self) -> str:
        """The command-line option."""
        return "--" + self.name.replace("_", "-")

    def refusal(self, value: Any) -> str:
        """Return what is said of a value that cannot be used; how it is written right, if known."""
        shown = repr(value)
        shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
        said = f"found {shown}, needs {self.allowed}"
        text = str(value).strip()
        if self.kind == "float" and re.fullmatch(r"[+-]?\d*,\d+(e[+-]?\d+)?", text, re.IGNORECASE):
            return f"{said}; write {text.replace(',', '.')}"
        if self.kind == "float" and re.fullmatch(r"\d+(\.\d+)?\s*%", text):
            return f"{said}; write {float(text.rstrip(' %')) / 100:g}"
        return said

    @property
    def effect(self) -> str:
        """The effects in a sentence without its end: "memory: ...; speed: ..."."""
        return "; ".join(f"{what}: {text}" for what, text in self.effects.items())


def described(name: str, field: FieldInfo) -> Setting:
    """Return what the declaration of a setting says."""
    extra: Any = field.json_schema_extra
    known = extra["setting"]["known"]
    kind, choices = ("choice", known) if known else _kind(field)
    return Setting(
        name=name,
        help=field.description or "",
        default=field.get_default(),
        kind=kind,
        choices=choices,
        allowed=_allowed(kind, choices, field),
        **extra["setting"],
    )


def _kind(field: FieldInfo) -> tuple[str, tuple[str, ...]]:
    annotation: Any = field.annotation
    if get_origin(annotation) is Literal:
        return "choice", tuple(get_args(annotation))
    options = [a for a in get_args(annotation) if a is not type(None)] or [annotation]
    if get_origin(annotation) is list or annotation is list:
        return "list", ()
    if get_origin(options[0]) is dict:
        return "map", ()
    return {int: "int", float: "float", bool: "bool"}.get(options[0], "str"), ()


_BOUND_WORDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _allowed(kind: str, choices: tuple[str, ...], field: FieldInfo) -> str:
    if choices:
        return "one of " + ", ".join(choices)
    noun = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "list": "names separated by commas",
        "map": "words such as prompt=question",
        "str": "text",
    }[kind]
    limits = [
        f"{word} {_plain(getattr(limit, key))}"
        for limit in field.metadata
        for key, word in _BOUND_WORDS.items()
        if getattr(limit, key, None) is not None
    ]
    return " ".join([noun, " and ".join(limits)]).strip()


def _plain(number: float) -> str:
    return f"{number:g}" if abs(number) < 1e6 else f"{number:,.0f}"
