"""What a user has chosen about the app itself, kept in the user's config folder.

    app.toml    theme, charset, ...; written by the app
    keys.toml   command id = key; written by the user

A key this version does not know is kept and ignored: a newer version may have written it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from orpo_mlx.storage.atomic import write_atomically
from orpo_mlx.text.spelling import nearest_name
from tui.shell.charset import CHARSET_NAMES
from tui.shell.themes import THEME_NAMES


@dataclass(frozen=True)
class Settings:
    """The app's settings.

    Attributes:
        theme: "auto" follows the terminal's background.
        charset: of charts: auto, braille, blocks or ascii.
        calm: no animation.
        smoothing: of charts at the start, 0 to 0.99.
        bell: ring at the end of a run.
        auto_resume: go on with a run that crashed while the app is open.
        relax_gpu_watchdog: start trainers with AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1, which keeps macOS
            from stopping long GPU work while the display is on.
        charts: the charts shown on the live screen, by name.
        export_folder: where exports were written last; "": nowhere yet.
        rest: keys of the file that are not known here.
    """

    theme: str = "auto"
    charset: str = "auto"
    calm: bool = False
    smoothing: float = 0.9
    bell: bool = True
    auto_resume: bool = False
    relax_gpu_watchdog: bool = True
    charts: str = "loss,log_odds,logps,accuracy"
    export_folder: str = ""
    rest: dict[str, Any] = field(default_factory=dict)


CHOICES = {
    "theme": ("auto", *THEME_NAMES),
    "charset": ("auto", *CHARSET_NAMES),
}
"""Settings with a fixed list of values."""


def config_folder() -> Path:
    """Return the folder of the app's settings: `$ORPO_MLX_HOME`, else the user's config folder."""
    if home := os.environ.get("ORPO_MLX_HOME"):
        return Path(home).expanduser()
    from platformdirs import user_config_path

    return user_config_path("orpo-mlx")


def load_settings(folder: Path) -> tuple[Settings, list[str]]:
    """Return the settings, and sentences about what in the file could not be used."""
    raw, problems = _read(folder / "app.toml")
    known = {f.name: f for f in fields(Settings) if f.name != "rest"}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in known:
            continue
        default = known[name].default
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            problems.append(f"app.toml: {name} = {value!r} is not usable; using {default!r}")
        elif name in CHOICES and value not in CHOICES[name]:
            near = nearest_name(str(value), list(CHOICES[name]))
            hint = f" (did you mean {near}?)" if near else ""
            problems.append(f"app.toml: {name} = {value!r} is not known{hint}; using {default!r}")
        else:
            values[name] = value
    rest = {name: value for name, value in raw.items() if name not in known}
    settings = Settings(**values, rest=rest)
    return replace(settings, smoothing=min(0.99, max(0.0, settings.smoothing))), problems


def load_keys(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the user's keys by command id; tables are joined: [live] stop = "s" is live.stop."""
    raw, problems = _read(folder / "keys.toml")
    return dict(_flat(raw)), problems


def _flat(raw: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in raw.items():
        if isinstance(value, dict):
            found += _flat(value, f"{before}{name}.")
        else:
            found.append((before + name, value))
    return found


def save_settings(settings: Settings, folder: Path) -> None:
    """Write the settings; a file that could not be read is kept beside them.

    Raises:
        OSError: they could not be written.
    """
    values = {f.name: getattr(settings, f.name) for f in fields(Settings) if f.name != "rest"}
    values |= settings.rest
    lines = [f"{_key(name)} = {_toml(value)}" for name, value in values.items()]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "app.toml"
    if _read(file)[1]:
        file.replace(folder / "app.toml.damaged")
    write_atomically(file, ("\n".join(lines) + "\n").encode())


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    """Return a value as TOML, tables inline: a newer version may have written anything."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A string of JSON is one of TOML, but for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(name)} = {_toml(one)}' for name, one in value.items())}}}"
    return str(value)


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    with contextlib.suppress(FileNotFoundError):
        try:
            return tomllib.loads(path.read_text(encoding="utf-8")), []
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            return {}, [f"{path}: is not read ({error})"]
        except FileNotFoundError:
            raise
        except OSError as error:
            return {}, [f"{path}: is not read ({error.strerror})"]
    return {}, []
