"""What may be written for a setting that is neither text nor number."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class SettingsGroup(BaseModel):
    """The settings of one group; immutable, and none but the declared ones."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


def _split_list(value: Any) -> Any:
    """Accept "q_proj,v_proj" from the command line for list settings."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


NameList = Annotated[list[str], BeforeValidator(_split_list)]


def split_map(value: Any) -> Any:
    """Accept "prompt=question chosen=good", or a list of such words, for a table of names.

    Raises:
        ValueError: a word is not of this form, or a name stands there twice.
    """
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list):
        return value
    table: dict[str, str] = {}
    # A column's name may hold blanks, so they only part words that name several.
    texts = [part for text in words for part in str(text).split(",")]
    several = [part.split() if part.count("=") > 1 else [part] for part in texts]
    for word in (part for parts in several for part in parts if part.strip()):
        name, path = (part.strip() for part in word.partition("=")[::2])
        if not name or not path or name in table:
            raise ValueError(f"{word} is not NAME=COLUMN, or {name} stands there twice")
        table[name] = path
    return table or None


NameMap = Annotated[dict[str, str] | None, BeforeValidator(split_map)]
