"""What can be written after `orpo-mlx`: commands, their options, and what those take."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from orpo_mlx.cli.command import CliCommand
from orpo_mlx.cli.data.main import COMMANDS as DATA_COMMANDS
from orpo_mlx.cli.main import COMMANDS
from orpo_mlx.cli.parser import TextRequested
from orpo_mlx.config.run import TRACKERS
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.export.formats.table import FORMATS

Takes = Literal["nothing", "word", "run", "file"]

_PLACES = {"FILE", "FOLDER", "DIR", "PATH", "DATA", "SRC", "OUT", "MODEL", "ADAPTER"}
_CHOICES = {
    ("export", "--to"): tuple(one.name for one in FORMATS),
    ("log", "--to"): TRACKERS,
}
"""Where a parser says them in its help only."""


@dataclass(frozen=True)
class OptionWords:
    """An option and what follows it.

    Attributes:
        flags: as they are written, "--json" or "-h", "--help".
        help: a line.
        takes: what follows.
        choices: the words that may follow, as far as they are known.
    """

    flags: tuple[str, ...]
    help: str
    takes: Takes
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class CommandWords:
    """A command and what follows it.

    Attributes:
        names: "train", or "data", "check".
        help: a line.
        options: in the order of its help.
        takes: its words without an option.
        choices: of these words, as far as they are known.
    """

    names: tuple[str, ...]
    help: str
    options: tuple[OptionWords, ...]
    takes: Takes
    choices: tuple[str, ...] = ()


def all_commands() -> list[CommandWords]:
    """Return every command, those of `data` one by one behind it."""
    found = [_command((name,), command) for name, command in COMMANDS.items()]
    at = next(i for i, one in enumerate(found) if one.names == ("data",)) + 1
    found[at:at] = [_command(("data", name), one) for name, one in DATA_COMMANDS.items()]
    return found


def _command(names: tuple[str, ...], command: CliCommand) -> CommandWords:
    if names == ("data",):
        return CommandWords(names, command.help, (), "word", tuple(DATA_COMMANDS))
    parser = _parser_of(COMMANDS["train"] if names == ("resume",) else command)
    options = tuple(_options(names[-1], parser))
    takes, choices = ("run", ()) if names == ("resume",) else _positional(parser)
    return CommandWords(names, command.help, options, takes, choices)


def _parser_of(command: CliCommand) -> argparse.ArgumentParser:
    """Return the parser that a command builds, by asking it for its help."""
    try:
        command.run(["--help"])
    except TextRequested as asked:
        if asked.parser is not None:
            return asked.parser
    raise LookupError(f"{command.module}: --help comes from no parser")


def _options(command: str, parser: argparse.ArgumentParser) -> Iterator[OptionWords]:
    settings: Mapping[str, tuple[str, ...]] = {one.flag: one.choices for one in iter_settings()}
    for action in parser._actions:
        if not action.option_strings:
            continue
        flags = tuple(action.option_strings)
        takes, choices = ("nothing", ()) if action.nargs == 0 else _value(action)
        known = settings.get(flags[-1]) or _CHOICES.get((command, flags[0]))
        if known and takes != "nothing":
            choices = known
        yield OptionWords(flags, _first_sentence(action), takes, choices)


def _positional(parser: argparse.ArgumentParser) -> tuple[Takes, tuple[str, ...]]:
    found = [_value(action) for action in parser._actions if not action.option_strings]
    choices = tuple(word for _, words in found for word in words)
    kinds = {takes for takes, _ in found}
    takes = next((kind for kind in ("run", "file", "word") if kind in kinds), "nothing")
    return takes, choices  # type: ignore[return-value]


def _value(action: argparse.Action) -> tuple[Takes, tuple[str, ...]]:
    """Return what a metavar stands for: `OTHER_RUN` a run, `chatml|FILE` a word or a file."""
    parts = re.split(r"[|, ]", str(action.metavar or ""))
    choices = tuple(part for part in parts if re.fullmatch(r"[a-z][\w-]*", part))
    nouns = {word for part in parts if part not in choices for word in re.findall("[A-Z]+", part)}
    if "RUN" in nouns:
        return "run", choices
    return "file" if nouns & _PLACES else "word", choices


def _first_sentence(action: argparse.Action) -> str:
    text = " ".join((action.help or "").replace("%%", "%").split())
    return re.split(r"(?<=[a-z0-9)])[.;:] ", text)[0].rstrip(".")
