"""`orpo-mlx data ...`: the words that look at, find, convert and make preference data."""

from __future__ import annotations

from collections.abc import Sequence

from orpo_mlx.cli.command import CliCommand
from orpo_mlx.cli.parser import TextRequested
from orpo_mlx.errors import ConfigError
from orpo_mlx.text.spelling import near_hint

COMMANDS: dict[str, CliCommand] = {
    "check": CliCommand(
        "DATA [--model M]",
        "show what would be trained on, and what hurts",
        "orpo_mlx.cli.data.check",
    ),
    "search": CliCommand(
        "[TEXT] [--json]", "find preference datasets on the Hub", "orpo_mlx.cli.data.search"
    ),
    "convert": CliCommand(
        "SRC OUT.jsonl", "write any layout as plain pairs, one a line", "orpo_mlx.cli.data.convert"
    ),
    "split": CliCommand(
        "SRC --out DIR",
        "divide into train and valid, no prompt on both sides",
        "orpo_mlx.cli.data.split",
    ),
    "pairs": CliCommand(
        "SRC OUT.jsonl", "make pairs from answers, prompts or ratings", "orpo_mlx.cli.data.pairs"
    ),
}


def main(argv: Sequence[str]) -> int:
    """Run one of the data commands; return its exit code."""
    first = argv[0] if argv else "--help"
    if first in ("--help", "-h", "help"):
        raise TextRequested(help_text())
    if first in COMMANDS:
        return COMMANDS[first].run(argv[1:])
    raise ConfigError(
        f"data {first}: there is no such command{near_hint(first, list(COMMANDS))}",
        "`orpo-mlx data` lists the commands.",
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
