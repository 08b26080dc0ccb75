"""The user's own keys: which can be used, and what is said of the others; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orpo_mlx.text.spelling import did_you_mean
from tui.shell.commands import AREAS, KEY_TEXTS, all_commands


def keymap_from(keys: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """Split a user's keys into a usable keymap and sentences about what is not usable."""
    known = {command.id for command in all_commands()}
    keymap, problems = {}, []
    for name, key in keys.items():
        if name not in known:
            hint = did_you_mean(name, known)
            problems.append(f"keys.toml: there is no command {name!r}{hint}")
        elif not isinstance(key, str) or not key.strip():
            problems.append(f'keys.toml: {name} needs a key such as "p" or "ctrl+k"')
        else:
            keymap[name] = re.sub(r"\bF(\d{1,2})\b", r"f\1", key.strip())  # as help writes it
    for name, why in _refused_keys(keymap).items():
        problems.append(f"keys.toml: {name} keeps its key: {why}")
        del keymap[name]
    return keymap, problems


def _refused_keys(keymap: Mapping[str, str]) -> dict[str, str]:
    """Return the ids whose new key cannot be used, and why; those whose keys swap can."""
    refused: dict[str, str] = {}
    for name, text in keymap.items():
        wrong = [key for key in text.split(",") if not _KEY.fullmatch(key.strip())]
        if wrong:
            refused[name] = f"{wrong[0]!r} is no key that terminals send everywhere"
    for area in AREAS:
        shared = [] if area == "app" else [*AREAS["app"], *AREAS["screen"]]
        taken: dict[str, str] = {}
        # Those that stay as they are come first: they keep their keys.
        commands = dict.fromkeys((*AREAS[area], *shared))
        for command in sorted(commands, key=lambda one: one.id in keymap):
            for key in keymap.get(command.id, command.key).split(","):
                other = taken.setdefault(_key_name(key), command.id)
                # A key of the whole app may mean something else on one screen; that one goes first.
                if other != command.id and command.id in keymap and command in AREAS[area]:
                    refused.setdefault(command.id, f"{key.strip()} is the key of {other}")
    return refused


def _key_name(key: str) -> str:
    """Return one name for a key that has several: "?" is question_mark."""
    key = key.strip()
    return next((name for name, sign in KEY_TEXTS.items() if sign == key and sign != name), key)


_KEY = re.compile(
    r"[!-~]|f\d{1,2}|(ctrl|shift|alt)\+([a-z0-9]|\w{2,})|"
    r"[a-z]+(_[a-z]+)*"
)
"""A character, an F-key, one with a modifier, or a key by its name."""
