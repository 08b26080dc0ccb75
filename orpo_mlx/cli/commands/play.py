"""`orpo-mlx simulate` and `orpo-mlx replay`: runs played without a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_run_argument,
    add_runs_dir_option,
    missing_run,
    number_option,
)
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.demo.replay import replay
from orpo_mlx.demo.simulate import Script, simulate
from orpo_mlx.runs.directory import RunDirectory, runs_folder
from orpo_mlx.runs.listing import find_run


def simulate_command(argv: Sequence[str]) -> int:
    """Run `orpo-mlx simulate`; return the exit code of the simulated trainer."""
    given = _simulate_parser().parse(argv)
    script = Script(
        steps=_count(given, "steps", 400, 1),
        seed=_count(given, "seed", 0, 0),
        speed=_speed(given),
        crash_at=_count(given, "crash_at", 0, 0),
        nan_at=_count(given, "nan_at", 0, 0),
    )
    run, code = simulate(script, given.get("run_dir"), given.get("runs_dir"))
    print_text(f"{run.id}: {run.read_status()}; {run.path}\n")
    return code


def _simulate_parser() -> Parser:
    parser = Parser(
        "orpo-mlx simulate",
        "Play a training without a model into a real run directory, to try the app.",
        usage="orpo-mlx simulate [options]",
    )
    add_help_option(parser)
    parser.add_argument("--steps", metavar="N", help="Steps of the run. [default 400]")
    parser.add_argument("--seed", metavar="N", help="Seed of its numbers. [default 0]")
    parser.add_argument(
        "--speed", metavar="X", help="Times faster than two steps a second; 0: no waiting."
    )
    parser.add_argument("--crash-at", metavar="N", help="Die without a word at step N.")
    parser.add_argument("--nan-at", metavar="N", help="Meet a loss that is no number at step N.")
    parser.add_argument("--run-dir", metavar="FOLDER", help="The run's own folder.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def _count(given: dict[str, Any], name: str, default: int, least: int) -> int:
    return number_option(given, name, default, least, whole=True, advice="Write {flag} 50.")


def _speed(given: dict[str, Any]) -> float:
    return float(number_option(given, "speed", 1, 0, advice="Write {flag} 10."))


def replay_command(argv: Sequence[str]) -> int:
    """Run `orpo-mlx replay`."""
    given = _replay_parser().parse(argv)
    if "run" not in given:
        raise missing_run("replay")
    source = find_run(given["run"], given.get("runs_dir"))
    speed = _speed(given)
    if given.get("run_dir"):
        path = Path(given["run_dir"]).expanduser().absolute()
    else:
        name = f"replay-{time.strftime('%H%M%S')}-{source.id}"
        path = runs_folder(given.get("runs_dir")).absolute() / name
    target = RunDirectory(path)
    how = replay(source, target, speed)
    return print_text(f"{source.id}: {how} into {target.path}\n")


def _replay_parser() -> Parser:
    parser = Parser(
        "orpo-mlx replay",
        "Play the events of a run again into a new run directory, to watch it.",
        usage="orpo-mlx replay RUN [options]",
    )
    add_help_option(parser)
    add_run_argument(parser)
    parser.add_argument(
        "--speed", metavar="X", help="Times faster than it was; 0: no waiting. [default 1]"
    )
    parser.add_argument("--run-dir", metavar="FOLDER", help="The replay's own folder.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser
