"""`orpo-mlx verify`: proofs on the user's model and rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from orpo_mlx.cli.commands.train import require_model_and_data
from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_json_option,
    number_option,
)
from orpo_mlx.cli.settings_options import settings_from
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.text.formatting import visible
from orpo_mlx.verify.check import Check


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx verify`; 1 if a check failed."""
    given = _verify_parser().parse(argv)
    names = ("pairs", "config", "demo", "json", "debug")
    said = {name: given.pop(name, None) for name in names}
    pairs = number_option(said, "pairs", 6, 1, whole=True)
    config = settings_from(given, said["config"], bool(said["demo"]))
    require_model_and_data(config, "orpo-mlx verify")
    from orpo_mlx.verify.suite import run_checks

    return print_checks(run_checks(config, pairs), bool(said["json"]))


def _verify_parser() -> Parser:
    parser = Parser(
        "orpo-mlx verify",
        "Check on your model and a few of your rows that loss and gradients are right, however\n"
        "they are computed, and that a training can be repeated and resumed. Nothing is kept.",
        usage="orpo-mlx verify --model MODEL --data FILE [options]",
    )
    add_help_option(parser)
    parser.add_argument("--model", metavar="MODEL", help="A folder or a Hub id.")
    parser.add_argument("--revision", metavar="REVISION", help="Of a Hub model.")
    parser.add_argument("--chat-template", metavar="chatml|FILE", help="As for train.")
    parser.add_argument("--data", metavar="FILE", help="Preference pairs, as for train.")
    parser.add_argument("--layout", metavar="NAME", help="Layout of the rows, as for train.")
    parser.add_argument(
        "--map", nargs="+", metavar="NAME=COLUMN", help="What the columns are, as for train."
    )
    parser.add_argument("--demo", action="store_true", help="Take the built-in model and pairs.")
    parser.add_argument("--config", metavar="FILE", help="Settings of adapter and objective.")
    parser.add_argument("--float32", metavar="exact|fast", help="As for train.")
    parser.add_argument("--pairs", metavar="N", help="Look at N pairs, the shortest. [default 6]")
    add_json_option(parser, "Print a JSON list.")
    add_debug_option(parser)
    return parser


def print_checks(checks: Iterable[Check], as_json: bool = False) -> int:
    """Print each check as it comes, or all as a JSON list; return 1 if one failed, else 0."""
    done = []
    for check in checks:
        done.append(check)
        if not as_json:
            print_text("".join(line + "\n" for line in check_lines(check)))
    failed = sum(not check.passed for check in done)
    if as_json:
        print_text(json.dumps([vars(check) for check in done], indent=2) + "\n")
    elif failed:
        print_text(
            f"{failed} of {len(done)} checks failed. Do not trust a training here before it is "
            "clear why;\nplease report it with these lines and the versions in use.\n"
        )
    else:
        print_text(f"all {len(done)} checks passed\n")
    return 1 if failed else 0


def check_lines(check: Check) -> list[str]:
    """Return a check of `verify` with its number; where it failed, also what the number is."""
    mark = "ok" if check.passed else "FAILED"
    number = "-" if check.value is None else f"{check.value:.1e}" if check.value else "0"
    lines = [f"{mark:<6}  {check.name:<58}  {number:>7}"]
    if not check.passed or check.value is None:
        limit = "" if check.value is None else f" (at most {check.limit:g})"
        lines.append(f"        {visible(check.note)}{limit}")
    return lines
