"""`orpo-mlx data convert`: any layout that can be read, written as plain pairs."""

from __future__ import annotations

from collections.abc import Sequence

from orpo_mlx.cli.data.source import (
    account_text,
    add_layout_options,
    command_parser,
    layout_choice,
    out_path,
    read_pairs,
    require,
    rows_word,
)
from orpo_mlx.cli.parser import Parser
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.data.writing import check_out, normal_row, write_rows


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx data convert`; return the exit code 0.

    Raises:
        OrpoError: the source or the place to write cannot be used; nothing was written.
        TextRequested: --help.
    """
    given = build_parser().parse(argv)
    require(given, "source", "SRC", "convert")
    out = out_path(require(given, "out", "OUT.jsonl", "convert"))
    choice = layout_choice(given)
    check_out(out, "force" in given)
    found = read_pairs(given, choice)
    both = zip(found.pairs, found.keys, strict=True)
    count = write_rows(out, (normal_row(pair, {"layout": key}) for pair, key in both))
    print_text(account_text(found.account, found.layouts, found.notes))
    return print_text(f"wrote   {out}: {rows_word(count)}\n")


def build_parser() -> Parser:
    """Return the parser of `orpo-mlx data convert`."""
    parser = command_parser(
        "convert",
        "Write any preference data that can be read as plain pairs: one JSON object a line with\n"
        "prompt, chosen and rejected, and where each came from.",
        "SRC OUT.jsonl [options]",
    )
    parser.add_argument("out", nargs="?", metavar="OUT.jsonl", help="The file to write.")
    add_layout_options(parser)
    parser.add_argument("--force", action="store_true", help="Replace OUT if it exists.")
    return parser
