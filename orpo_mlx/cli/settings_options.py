"""Settings as options: declared once, merged from flags, file, run and demo."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from orpo_mlx.cli.parser import OnceAction, Parser
from orpo_mlx.config import TrainConfig, build_config
from orpo_mlx.config.declaration import GROUPS, Setting
from orpo_mlx.config.file import (
    expanded,
    overruled_settings,
    read_settings,
    with_absolute_paths,
    write_settings,
)
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.runs.directory import RunDirectory

_SIBLINGS = {
    "steps": "epochs",
    "epochs": "steps",
    "scale": "alpha",
    "alpha": "scale",
    "valid_data": "valid_fraction",
    "valid_fraction": "valid_data",
}
"""Settings that exclude each other: a flag for one wins over a file's value for the other."""


def _add_setting(group: Any, setting: Setting) -> None:
    help = setting_help(setting).replace("%", "%%")
    if setting.kind == "bool":
        action = argparse.BooleanOptionalAction
        group.add_argument(setting.flag, action=action, help=help, default=argparse.SUPPRESS)
    else:
        action = OnceAction if setting.name in ("data", "valid_data") else "store"
        many = {"nargs": "+"} if setting.kind == "map" else {}
        group.add_argument(
            setting.flag, action=action, metavar=_metavar(setting), help=help, **many
        )


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return "|".join(setting.choices) if len(setting.choices) < 4 else "NAME"
    kinds = {"int": "N", "float": "X", "list": "NAMES", "map": "NAME=COLUMN"}
    return _METAVARS.get(setting.name) or kinds.get(setting.kind, "TEXT")


_METAVARS = {
    "model": "MODEL",
    "revision": "REVISION",
    "chat_template": "chatml|FILE",
    "data": "DATA",
    "valid_data": "DATA",
    "data_split": "SPLIT",
    "data_subset": "SUBSET",
    "data_revision": "REVISION",
    "init_adapter": "FOLDER",
    "run_dir": "FOLDER",
    "runs_dir": "FOLDER",
}


def setting_help(setting: Setting) -> str:
    """Return a setting's help with its effect, choices, unit and default."""
    text = setting.help
    if setting.effect:
        text += f" {setting.effect[0].upper()}{setting.effect[1:]}."
    if setting.usual:
        text += f" Usual: {setting.usual}."
    if len(setting.choices) >= 4:
        text += f" One of {', '.join(setting.choices)}."
    return f"{text} [{default_text(setting)}]"


def default_text(setting: Setting) -> str:
    """Return a setting's default in words: "default 1024 tokens", "not set", "needed"."""
    if setting.default is None:
        return "needed" if setting.name in NEEDED else "not set"
    if isinstance(setting.default, bool):
        return "default on" if setting.default else "default off"
    value = setting.default
    shown = ",".join(value) if isinstance(value, list) else str(value).removesuffix(".0")
    unit = "" if setting.unit == "share or steps" else setting.unit
    if value == 1:
        unit = unit.removesuffix("s")
    return f"default {shown} {unit}".rstrip()


def settings_from(
    given: dict[str, Any], file: str | None = None, demo: bool = False
) -> TrainConfig:
    """Return the settings that flags say, over those of a file, over those of the demo.

    Args:
        given: settings by name, as parsed.
        file: a settings file.
        demo: whether the built-in model and pairs are meant.

    Raises:
        ConfigError: listing every problem.
    """
    flags = Layer(given, {name: "--" + name.replace("_", "-") for name in given})
    layers = [*file_layer(file), flags]
    merged = demo_layer(layers) if demo else Layer({}, {})
    for layer in layers:
        merged = merged.under(layer)
    return with_absolute_paths(build_config(merged.values, merged.origins))


def add_settings(parser: Parser, groups: Collection[str], without: Collection[str] = ()) -> None:
    """Add the settings of some groups of `config.GROUPS` as options."""
    titles = {key: parser.add_argument_group(GROUPS[key]) for key in groups}
    for setting in iter_settings():
        if setting.group in titles and setting.name not in without:
            _add_setting(titles[setting.group], setting)


NEEDED = ("model", "data")


@dataclass(frozen=True)
class Layer:
    """Settings from one source, and where each came from."""

    values: dict[str, Any]
    origins: dict[str, str]

    def under(self, upper: Layer) -> Layer:
        """Return both, `upper` winning, also over settings that exclude one of its own."""
        hidden = {_SIBLINGS[name] for name in upper.values if name in _SIBLINGS}
        kept = {name: value for name, value in self.values.items() if name not in hidden}
        return Layer({**kept, **upper.values}, {**self.origins, **upper.origins})


def file_layer(file: str | None) -> list[Layer]:
    if not file:
        return []
    values = read_settings(expanded(file))
    return [Layer(values, {name: f"{file}: {name}" for name in values})]


def resumed_layer(run: RunDirectory) -> Layer:
    values = read_settings(run.config_file)
    return Layer(values, dict.fromkeys(values, f"run {run.id}"))


def demo_layer(layers: list[Layer]) -> Layer:
    from orpo_mlx import demo

    values = {
        **demo.SETTINGS,
        "model": str(demo.model_path()),
        "data": str(demo.train_path()),
        "valid_data": str(demo.valid_path()),
    }
    said = {name: value for layer in reversed(layers) for name, value in layer.values.items()}
    if said.get("objective", "orpo") != "orpo":
        del values["lam"]  # which no other has
    if said.get("objective") == "kto" and not said.get("unpair"):
        values["data"] = str(demo.labelled_train_path())
        values["valid_data"] = str(demo.labelled_valid_path())
    # The demo's validation pairs say nothing about other data.
    if "data" in said:
        del values["valid_data"]
    return Layer(values, dict.fromkeys(values, "--demo"))


def show_config(config: TrainConfig, origins: dict[str, str]) -> str:
    """Return every setting with its origin; the text is itself a settings file."""
    unset = [
        setting.name
        for setting in iter_settings()
        if getattr(config, setting.name) is None or setting.name in overruled_settings(config)
    ]
    return write_settings(config, origins) + f"\n# Not in use: {', '.join(unset)}\n"
