"""Settings files: flat TOML, one key per setting of `train_config.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orpo_mlx.config.declaration import GROUPS, Setting
from orpo_mlx.config.mixture import parse_mixture, write_mixture
from orpo_mlx.config.train_config import TrainConfig, build_config, iter_settings
from orpo_mlx.errors import ConfigError, reason_of
from orpo_mlx.storage.regular import read_regular
from orpo_mlx.text.spelling import nearest_name

PATH_SETTINGS = ("model", "chat_template", "data", "valid_data", "init_adapter")


def read_settings(path: Path) -> dict[str, Any]:
    """Read a settings file into setting names and raw values (ranges are checked later).

    Raises:
        ConfigError: the file cannot be read, is not TOML (with line and column), or has keys that
            are no settings (each with the nearest known one).
    """
    values = _parse(path, _read_text(path))
    if problems := list(_key_problems(values)):
        lines = "\n".join(f"{path}: {problem}" for problem in problems)
        raise ConfigError(lines, "Correct the file; `--help` lists all settings (rank = --rank).")
    return values


def load_config(path: Path) -> TrainConfig:
    """Read and validate a settings file.

    Raises:
        ConfigError: listing every problem.
    """
    values = read_settings(path)
    return build_config(values, {name: f"{path}: {name}" for name in values})


def _read_text(path: Path) -> str:
    try:
        data = read_regular(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: the settings file cannot be read ({error.strerror})",
            "Give --config the path of a TOML file; `--show-config` prints one to start from.",
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: byte {error.start} is not UTF-8",
            "Save the file as UTF-8.",
        ) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return parse_toml(text)
    except ValueError as error:
        reason, line, column = _locate(str(error), text)
        raise ConfigError(
            f"{path}, line {line}, column {column}: {reason}",
            'Settings files are TOML: one `name = value` per line, text in quotes ("...").',
        ) from None


def parse_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text holds.

    Raises:
        ValueError: it is not TOML, or nested deeper than the parser can follow.
    """
    import tomllib

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None


def _locate(message: str, text: str) -> tuple[str, int, int]:
    """Split tomllib's message into reason, line and column (both 1-based)."""
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if found:
        return message[: found.start()], int(found[1]), int(found[2])
    lines = text.split("\n")
    return message.removesuffix(" (at end of document)"), len(lines), len(lines[-1]) + 1


def _key_problems(values: Mapping[str, Any]) -> Any:
    settings = {setting.name: setting for setting in iter_settings()}
    for key, value in values.items():
        if key in settings and settings[key].kind == "map" and isinstance(value, dict):
            yield from _map_problems(key, value)
        elif key in settings:
            # pydantic would take true for 1.
            if isinstance(value, bool) and settings[key].kind != "bool":
                yield f"{key}: found {str(value).lower()}, needs {settings[key].allowed}"
        elif isinstance(value, dict):
            inner = ", ".join(list(value)[:3]) or "nothing"
            yield f"[{key}]: settings have no sections; put {inner} above all [sections]"
        else:
            near = nearest_name(key.replace("-", "_"), list(settings))
            hint = f"; did you mean {near}?" if near else ""
            yield f"unknown setting {key}{hint}"


def _map_problems(key: str, table: dict[str, Any]) -> Any:
    for name, path in table.items():
        if not isinstance(path, str):
            yield f'[{key}] {name}: needs a column in quotes ("...")'


def write_settings(config: TrainConfig, origins: Mapping[str, str] | None = None) -> str:
    """Return the settings as a TOML file that reads back as the same settings.

    What is not set is left out, and so is what another setting overrules (epochs by steps).

    Args:
        config: the settings.
        origins: where each value came from, added as a comment behind it.

    Raises:
        ConfigError: a text cannot be written as UTF-8.
    """
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    overruled = overruled_settings(config)
    for setting in iter_settings():
        value = getattr(config, setting.name)
        if value is not None and setting.name not in overruled:
            groups[setting.group].append(_line(setting, value, origins))
    blocks = (f"# {GROUPS[group]}\n" + "".join(lines) for group, lines in groups.items() if lines)
    return "\n".join(blocks)


def overruled_settings(config: TrainConfig) -> set[str]:
    """Return the names of settings that have no effect because another one is set."""
    overruled = set()
    if config.steps is not None:
        overruled.add("epochs")
    if config.valid_data is not None and config.valid_fraction:
        overruled.add("valid_fraction")
    return overruled


def _line(setting: Setting, value: Any, origins: Mapping[str, str] | None) -> str:
    text = f"{setting.name} = {_toml_value(setting.name, value)}"
    if origins is None:
        return text + "\n"
    origin = re.sub(r"[\x00-\x1f\x7f]", "?", origins.get(setting.name, "default"))
    return f"{text:<38}  # {origin}\n"


def _toml_value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(name, item) for item in value) + "]"
    if isinstance(value, dict):
        # Between lines of names and values only a table on one line leaves what follows alone.
        inner = (f"{_toml_value(name, key)} = {_toml_value(name, v)}" for key, v in value.items())
        return "{ " + ", ".join(inner) + " }"
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ConfigError(
            f"--{name.replace('_', '-')}: {value!r} is not valid Unicode",
            "Rename the file or folder so that its name is valid UTF-8.",
        )
    # JSON's escapes are a subset of TOML's, except that JSON leaves DEL as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Return the settings with every existing local path made absolute.

    A run can then be resumed from any working directory; Hub ids and names stay as they are.
    """
    changes = {}
    for name in PATH_SETTINGS:
        value = getattr(config, name)
        if value and "\0" not in value:
            changes[name] = _absolute(name, value)
    if config.trunk_cache_dir:  # need not exist yet
        changes["trunk_cache_dir"] = str(expanded(config.trunk_cache_dir).absolute())
    return config.model_copy(update=changes)


def _absolute(name: str, value: str) -> str:
    if path := _existing(name, value):
        return str(path.absolute())
    if name not in ("data", "valid_data"):
        return value
    parts = [(part, _existing(name, part.name)) for part in parse_mixture(value)]
    if not any(path for _, path in parts):
        return value
    return write_mixture(
        [replace(part, name=str(path.absolute())) if path else part for part, path in parts]
    )


def expanded(text: str) -> Path:
    """Return a path with `~` written out; of a user who does not exist, as it stands."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _existing(name: str, value: str) -> Path | None:
    try:
        path = Path(value).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError) as error:  # no such user, no right to look, too long a name
        raise ConfigError(
            f"--{name.replace('_', '-')}: {value[:80]!r} cannot be looked up ({reason_of(error)})",
            "Check the path and its permissions.",
        ) from None
