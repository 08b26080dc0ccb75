"""`orpo-mlx config init`: a settings file with every setting, its default and what it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option
from orpo_mlx.cli.settings_options import setting_help
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.declaration import GROUPS
from orpo_mlx.config.file import expanded, write_settings
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.errors import ConfigError, reason_of
from orpo_mlx.text.commands import command_line

_FILE = "orpo-mlx.toml"


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx config`."""
    given = _parser().parse(argv)
    if given.get("action") != "init":
        found = f"{given['action']} is no action" if "action" in given else "what is to be done?"
        raise ConfigError(
            f"orpo-mlx config: {found}; there is: init.",
            f"orpo-mlx config init [FILE] writes all settings; FILE is {_FILE} unless given.",
        )
    path = expanded(given.get("file", _FILE))
    _write_new(path)
    train = command_line("orpo-mlx", "train", "--config", path)
    return print_text(f"wrote    {path}: set model and data in it\nthen     {train}\n")


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx config",
        "Write a settings file with every setting, its default and what it does; what is there is\n"
        "never replaced.",
        usage="orpo-mlx config init [FILE]",
    )
    add_help_option(parser)
    parser.add_argument("action", nargs="?", metavar="init", help="What to do.")
    parser.add_argument("file", nargs="?", metavar="FILE", help=f"What to write. [{_FILE}]")
    add_debug_option(parser)
    return parser


def _write_new(path: Path) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(commented_settings())
    except FileExistsError:
        raise ConfigError(
            f"{path}: is there already; nothing was written.",
            "Give another name, or move it away.",
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be written ({reason_of(error)}).", "Give another place."
        ) from error


def commented_settings() -> str:
    """Return a settings file that says what each setting is; read back, it changes nothing.

    A setting without a default stands in a comment, and one that such a setting takes the place of.
    """
    return "\n".join([_HEAD, *_lines()]) + "\n"


def _lines() -> Iterator[str]:
    values = dict(
        line.split(" = ", 1) for line in write_settings(TrainConfig()).split("\n") if " = " in line
    )
    group = ""
    for setting in sorted(iter_settings(), key=lambda one: list(GROUPS).index(one.group)):
        if setting.group != group:
            group = setting.group
            title = GROUPS[group]
            yield f"\n# {'=' * len(title)}\n# {title}\n# {'=' * len(title)}"
        yield f"\n# {setting_help(setting)}"
        if setting.name in values:
            mark = "# " if setting.name in _REPLACED else ""
            yield f"{mark}{setting.name} = {values[setting.name]}"
        else:
            yield f"# {setting.name} = ({setting.allowed})"


_REPLACED = ("epochs", "valid_fraction")
"""By `steps` and `valid_data`: written out, they would contradict them."""

_HEAD = """\
# Settings of orpo-mlx: every one with its default, so that the file as it is changes nothing.
#   orpo-mlx train --config FILE
# Options on the command line win over it."""
