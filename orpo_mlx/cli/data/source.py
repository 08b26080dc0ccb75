"""What the commands of `orpo-mlx data` that write have in common: a source, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option
from orpo_mlx.config import build_config
from orpo_mlx.config.file import expanded
from orpo_mlx.data.accounting import account_lines
from orpo_mlx.data.layouts.detect import LayoutChoice, laid_out, to_pairs
from orpo_mlx.data.layouts.table import Layout
from orpo_mlx.data.sources.source import Choice, Row, find_data, read_members
from orpo_mlx.data.types import Account, Pair
from orpo_mlx.errors import ConfigError, DataError
from orpo_mlx.text.formatting import counted

SOURCE_HELP = "What --data of train takes: a file, a folder, several with weights, a Hub id."


@dataclass(frozen=True)
class SourcePairs:
    """A source as pairs.

    Attributes:
        keys: of the layout of each pair.
        layouts: that were found, one for each member of a mixture.
        account: of every row read.
        notes: what the user should know of how the source was found.
    """

    pairs: list[Pair]
    keys: list[str]
    layouts: list[Layout]
    account: Account
    notes: tuple[str, ...] = ()


def command_parser(name: str, what: str, usage: str) -> Parser:
    """Return the parser of `orpo-mlx data NAME` with the options all of them have."""
    prog = f"orpo-mlx data {name}"
    parser = Parser(prog, what, usage=f"{prog} {usage}")
    add_help_option(parser)
    parser.add_argument("source", nargs="?", metavar="SRC", help=SOURCE_HELP)
    for option, what in (
        ("split", "Split of a folder or Hub dataset, as for train."),
        ("subset", "Subset of a Hub dataset, as for train."),
        ("revision", "Branch, tag or commit of a Hub dataset, as for train."),
    ):
        parser.add_argument(f"--data-{option}", metavar="NAME", help=what)
    add_debug_option(parser)
    return parser


def add_layout_options(parser: Parser) -> None:
    """Add what a user can say about the columns, as for train."""
    parser.add_argument("--layout", metavar="NAME", help="Layout of the rows, as for train.")
    parser.add_argument(
        "--map", nargs="+", metavar="NAME=COLUMN", help="What the columns are, as for train."
    )
    parser.add_argument(
        "--keep-ties", action="store_true", help="Keep rows whose scores are equal."
    )
    parser.add_argument(
        "--keep-inverted", action="store_true", help="Keep rows whose chosen scores lower."
    )


def layout_choice(given: dict[str, Any]) -> LayoutChoice:
    """Return what the options of `add_layout_options` say.

    Raises:
        ConfigError: one of them is malformed.
    """
    names = ("layout", "map", "keep_ties", "keep_inverted")
    said = {name: given[name] for name in names if name in given}
    origins = {name: f"--{name.replace('_', '-')}" for name in said}
    return LayoutChoice.of(build_config(said, origins))


def require(given: dict[str, Any], name: str, shown: str, command: str) -> str:
    """Return an argument that must be given.

    Raises:
        ConfigError: it is not.
    """
    if not given.get(name):
        raise ConfigError(
            f"orpo-mlx data {command}: {shown} is missing",
            f"`orpo-mlx data {command} --help` shows what is needed.",
        )
    return str(given[name])


def out_path(text: str) -> Path:
    """Return the path of an output."""
    return expanded(text)


def read_source(given: dict[str, Any]) -> tuple[list[list[Row]], tuple[str, ...]]:
    """Read the rows of SRC, one list for each member of a mixture, and notes on the way.

    Raises:
        OrpoError: it cannot be found or read.
    """
    options = [str(given.get(f"data_{name}", "")) for name in ("split", "subset", "revision")]
    source = find_data(given["source"], Choice(*options))
    return read_members(source.members), source.notes


def read_pairs(given: dict[str, Any], choice: LayoutChoice) -> SourcePairs:
    """Read SRC and convert its rows.

    Raises:
        OrpoError: it cannot be read or understood, or no row is usable.
    """
    members, notes = read_source(given)
    account = Account()
    pairs, keys, layouts = [], [], []
    for rows in members:
        each, layout = laid_out(rows, choice)
        layouts.append(layout)
        found = to_pairs(each, layout, account)
        pairs += found
        keys += [layouts[-1].key] * len(found)
    account.kept = len(pairs)
    for pair in pairs:
        for note in pair.notes:
            account.note(note, pair.source)
    if not pairs:
        raise DataError(
            f"0 of {account.read:,} rows usable: {reasons(account.dropped)}.",
            "Check the rows; `orpo-mlx data check` names the first of each reason.",
        )
    return SourcePairs(pairs, keys, layouts, account, notes)


def account_text(
    account: Account, layouts: Sequence[Layout] = (), notes: Iterable[str] = ()
) -> str:
    """Return the account of a source in lines."""
    names = " and ".join(dict.fromkeys(layout.name for layout in layouts))
    format = f"; format: {names}" if names else ""
    lines = account_lines(account, format)
    return "\n".join([*lines, *(f"        {note}" for note in notes)]) + "\n"


def reasons(counts: dict[str, int]) -> str:
    """Return reasons with their numbers, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered)


def rows_word(count: int) -> str:
    """Return "1 pair" or "3 pairs"."""
    return counted(count, "pair")
