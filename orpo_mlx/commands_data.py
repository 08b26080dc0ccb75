"""`orpo-mlx data ...`: the words that look at, find, convert and make preference data."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from orpo_mlx.command_line import TextRequested
from orpo_mlx.errors import ConfigError
from orpo_mlx.suggestions import nearest_name


@dataclass(frozen=True)
class DataCommand:
    """One word after `orpo-mlx data`; its module is loaded when it is used."""

    usage: str
    help: str
    module: str


COMMANDS: dict[str, DataCommand] = {
    "check": DataCommand(
        "DATA [--model M]", "show what would be trained on, and what hurts", "orpo_mlx.data_check"
    ),
    "search": DataCommand(
        "[TEXT] [--json]", "find preference datasets on the Hub", "orpo_mlx.data_search"
    ),
    "convert": DataCommand(
        "SRC OUT.jsonl", "write any layout as plain pairs, one a line", "orpo_mlx.data_convert"
    ),
    "split": DataCommand(
        "SRC --out DIR",
        "divide into train and valid, no prompt on both sides",
        "orpo_mlx.data_split",
    ),
    "pairs": DataCommand(
        "SRC OUT.jsonl", "make pairs from answers, prompts or ratings", "orpo_mlx.data_pairs"
    ),
}


def main(argv: list[str]) -> int:
    """Run one of the data commands; return its exit code."""
    first = argv[0] if argv else "--help"
    if first in ("--help", "-h", "help"):
        raise TextRequested(help_text())
    if first in COMMANDS:
        return importlib.import_module(COMMANDS[first].module).main(argv[1:])
    near = nearest_name(first, list(COMMANDS))
    hint = f"; did you mean {near}?" if near else ""
    raise ConfigError(
        f"data {first}: there is no such command{hint}", "`orpo-mlx data` lists the commands."
    )


def help_text() -> str:
    """Return what `orpo-mlx data` prints."""
    usages = {f"{name} {command.usage}": command.help for name, command in COMMANDS.items()}
    width = max(map(len, usages))
    lines = "\n".join(f"  {usage:<{width}}  {help}" for usage, help in usages.items())
    return _HELP.format(commands=lines)


_HELP = """\
usage: orpo-mlx data COMMAND ...

Preference data before the training. DATA and SRC are what --data takes: a file, a
folder, several of them with weights, or the id of a Hub dataset.

commands:
{commands}

`orpo-mlx data COMMAND --help` explains a command.
"""
