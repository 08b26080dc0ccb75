"""`orpo-mlx data search`: preference datasets by name or subject."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict

from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option, add_json_option
from orpo_mlx.cli.terminal import print_error_text, print_text, terminal_width
from orpo_mlx.data.catalogue.search import FoundDataset, SearchResult, search_datasets


def main(argv: list[str]) -> int:
    """Run `orpo-mlx data search`; return the exit code 0, also without a network."""
    given = build_parser().parse(argv)
    text = " ".join(given.get("text", []))
    found = search_datasets(text)
    if given.get("json"):
        if found.problem:
            print_error_text(f"the Hub was not searched: {found.problem}")
        return print_text(json.dumps([asdict(f) for f in found.datasets], indent=2) + "\n")
    return print_text(result_text(found, text, terminal_width()))


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        "orpo-mlx data search",
        "List preference datasets: those of a built-in list first, then the most used of the Hub.\n"
        "Without a network the built-in list alone is searched.",
        usage="orpo-mlx data search [TEXT] [--json]",
    )
    add_help_option(parser)
    parser.add_argument("text", nargs="*", metavar="TEXT", help="Words of the name or subject.")
    add_json_option(parser, "Print a JSON list.")
    add_debug_option(parser)
    return parser


def result_text(found: SearchResult, text: str, width: int = 80) -> str:
    """Return a search's result for a person."""
    lines = [line for entry in found.datasets for line in _entry_lines(entry, width)]
    if not lines:
        lines = [f"Nothing found for {text!r}; try one word of the name, or none."]
    if found.problem:
        lines += ["", f"The Hub was not searched: {found.problem}."]
    example = found.datasets[0].id if found.datasets else "argilla/dpo-mix-7k"
    lines += ["", f"Look at one before training: orpo-mlx data check {example} --model MODEL"]
    return "\n".join(lines) + "\n"


def _entry_lines(entry: FoundDataset, width: int) -> Iterator[str]:
    facts = [
        entry.size,
        entry.licence and f"licence {entry.licence}",
        entry.downloads is not None and f"{entry.downloads:,} downloads",
        entry.likes is not None and f"{entry.likes:,} likes",
        entry.gated and "gated: accept its terms on its page first",
    ]
    yield entry.id
    told = ["; ".join(fact for fact in facts if fact), entry.teaches, entry.settings]
    for line in told:
        if line:
            yield from textwrap.wrap(
                line, max(40, width), initial_indent="    ", subsequent_indent="    ",
                break_on_hyphens=False,
            )  # fmt: skip
