"""`orpo-mlx doctor`: what this machine is, and whether a training on it can be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from orpo_mlx import report
from orpo_mlx.command_line import Parser, add_help_option
from orpo_mlx.machine import Fact, iter_facts
from orpo_mlx.self_test import STEPS, iter_checks

_MARKS = {"ok": "ok", "info": "  ", "warning": "! ", "error": "x "}


def main(argv: Sequence[str]) -> int:
    """Print the facts, with `--self-test` also the checks; 1 if one is an error."""
    given = _parser().parse(list(argv))
    found: list[Fact] = []
    for part in _parts("self_test" in given):
        for fact in part:
            found.append(fact)
            if "json" in given:
                report.print_text(json.dumps(asdict(fact)) + "\n")
            else:
                report.print_text(_line(fact, found[:-1]))
    return 1 if any(fact.level == "error" for fact in found) else 0


def _parts(with_self_test: bool) -> Iterator[Iterable[Fact]]:
    yield iter_facts()
    if with_self_test:
        yield iter_checks()


def _line(fact: Fact, before: Sequence[Fact]) -> str:
    heading = "" if before and before[-1].group == fact.group else f"{fact.group}\n"
    advice = f"\n     {fact.what_to_do}" if fact.what_to_do else ""
    return f"{heading}  {_MARKS[fact.level]} {fact.name:<16} {fact.text}{advice}\n"


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx doctor",
        "Look at this machine: chip, memory, power, versions, disk, and what is missing.\n"
        f"--self-test trains the built-in model for {STEPS} steps, three times: twice the same,\n"
        "and once killed and resumed; the adapters must be equal bit for bit.",
        usage="orpo-mlx doctor [--self-test] [--json]",
    )
    add_help_option(parser)
    parser.add_argument("--self-test", action="store_true", help="Train the built-in model too.")
    parser.add_argument("--json", action="store_true", help="Print each fact as a JSON line.")
    parser.add_argument("--debug", action="store_true", help="Show tracebacks of errors.")
    return parser
