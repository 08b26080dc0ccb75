"""`orpo-mlx doctor`: what this machine is, and whether a training on it can be trusted."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option, add_json_option
from orpo_mlx.cli.settings_options import settings_from
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.config import TrainConfig
from orpo_mlx.diagnostics.machine import Fact, iter_facts
from orpo_mlx.errors import ConfigError
from orpo_mlx.storage.safe_path import child_environment, module_path

_MARKS = {"ok": "ok", "info": "  ", "warning": "! ", "error": "x "}


def main(argv: Sequence[str]) -> int:
    """Print the facts, with `--self-test` also the checks; 1 if one is an error."""
    given = _parser().parse(list(argv))
    if "link" in given:
        from orpo_mlx.cli.peers.speed import measure_as_process

        return measure_as_process(given["link"])
    found: list[Fact] = []
    for part in _parts(given):
        for fact in part:
            found.append(fact)
            if "json" in given:
                print_text(json.dumps(asdict(fact)) + "\n")
            else:
                print_text(_line(fact, found[:-1]))
    return 1 if any(fact.level == "error" for fact in found) else 0


_CONTENT = ("model", "data", "config")


def _parts(given: dict[str, Any]) -> Iterator[Iterable[Fact]]:
    content = {name: given[name] for name in _CONTENT if name in given}
    if "hosts" in given:
        if "self_test" in given:
            raise ConfigError("--hosts and --self-test: give only one of both", "Leave one out.")
        from orpo_mlx.cli.peers.checkup import HostsQuestion, iter_parts

        words = [word for name, value in content.items() for word in (f"--{name}", value)]
        yield from iter_parts(HostsQuestion(given["hosts"], _config(content), words))
        return
    yield iter_facts()
    if content:
        from orpo_mlx.diagnostics.content import iter_content

        yield iter_content(_config(content))
    if "self_test" in given:
        yield iter_trainings()


def _config(content: dict[str, Any]) -> TrainConfig:
    settings = {name: value for name, value in content.items() if name != "config"}
    return settings_from(settings, content.get("config"))


# The child looks for modules where this process does, never in the present folder.
_CHILD = """\
import json, sys
sys.path[:] = json.load(sys.stdin)
from orpo_mlx.cli.commands.doctor import print_trainings
print_trainings()
"""


def print_trainings() -> None:
    """Train the built-in model again and again; print what each training proves as a JSON line."""
    from orpo_mlx.verify.suite import check_demo_trainings
    from orpo_mlx.verify.trainings import KEPT, REPEATED, RESUMED

    names = {REPEATED: "the same twice", RESUMED: "interrupted and resumed", KEPT: "kept outputs"}
    for check in check_demo_trainings():
        text = "gives the same adapter, bit for bit" if check.passed else check.note
        print_text(json.dumps([names.get(check.name, "a training"), text, check.passed]) + "\n")


def iter_trainings(child: str = _CHILD) -> Iterator[Fact]:
    """Yield what trainings prove as it is known; a crash of theirs is a fact, not the end of this.

    Args:
        child: the Python program that trains, and prints [name, text, passed] a line.
    """
    command = [sys.executable, "-c", child]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
            env=child_environment(),
        ) as process,
    ):
        assert process.stdin and process.stdout  # noqa: PT018
        try:
            process.stdin.write(json.dumps(module_path()))
            process.stdin.close()
            for line in process.stdout:
                yield _proof(*json.loads(line))
            if process.wait():
                complaints.seek(0)
                said = complaints.read().strip()[-300:]
                yield _proof("a training", f"exit code {process.returncode}: {said}", False)
        finally:  # an interrupted self-test leaves no trainer behind
            process.kill()


def _proof(name: str, text: str, passed: bool) -> Fact:
    advice = "" if passed else "Report this with the output of `orpo-mlx doctor --json`."
    return Fact("self-test", name, text, "ok" if passed else "error", advice)


def _line(fact: Fact, before: Sequence[Fact]) -> str:
    heading = "" if before and before[-1].group == fact.group else f"{fact.group}\n"
    advice = f"\n     {fact.what_to_do}" if fact.what_to_do else ""
    return f"{heading}  {_MARKS[fact.level]} {fact.name:<16} {fact.text}{advice}\n"


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx doctor",
        "Look at this machine: chip, memory, power, versions, disk, and what is missing.\n"
        "--self-test trains the built-in model a few steps, several times: twice the same, and\n"
        "once stopped and resumed; the adapters must be equal bit for bit.",
        usage="orpo-mlx doctor [--self-test] [--hosts FILE] [--model MODEL] [--data DATA] [--json]",
    )
    add_help_option(parser)
    parser.add_argument(
        "--hosts", metavar="FILE",
        help="Look at the machines of a hostfile of mlx.launch instead: versions, model and data, "
        "the link, and whether a run over them would pay.",
    )  # fmt: skip
    parser.add_argument("--model", metavar="MODEL", help="Hash this model, and see what it takes.")
    parser.add_argument("--data", metavar="DATA", help="Hash these pairs, and see what they take.")
    parser.add_argument("--config", metavar="FILE", help="Take other settings of the run from it.")
    parser.add_argument(
        "--link", metavar="BYTES", type=int,
        help="Measure the link between the processes that mlx.launch has started; --hosts does it.",
    )  # fmt: skip
    parser.add_argument("--self-test", action="store_true", help="Train the built-in model too.")
    add_json_option(parser, "Print each fact as a JSON line.")
    add_debug_option(parser)
    return parser
