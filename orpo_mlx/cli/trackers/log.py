"""`orpo-mlx log`: a run's metrics, settings and samples in TensorBoard, W&B or trackio.

As a program of its own (`python -m`) it is what a trainer starts for --report-to: it takes the same
words, and follows the run until its standard input ends.
"""

from __future__ import annotations

import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from orpo_mlx.cli.exit_codes import run_command
from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_run_argument,
    add_runs_dir_option,
    missing_run,
)
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.config.run import TRACKERS
from orpo_mlx.errors import ConfigError, OrpoError, TrainingError, describe
from orpo_mlx.runs.listing import find_run
from orpo_mlx.text.commands import command_line, not_here
from orpo_mlx.text.formatting import counted, visible

if TYPE_CHECKING:
    from orpo_mlx.trackers.tracking import Tracking

_POLL_SECONDS = 1.0


def build_log_parser() -> Parser:
    """Return the parser of `orpo-mlx log`."""
    names = ",".join(TRACKERS)
    parser = Parser(
        "orpo-mlx log",
        "Hand a run's metrics, settings and samples to a tracker. What is there already is not "
        "logged\ntwice; a resumed run goes on, without the steps that it computed again.",
        usage=f"orpo-mlx log RUN --to {names} [--follow] [options]",
    )
    add_help_option(parser)
    add_run_argument(parser)
    parser.add_argument("--to", metavar="NAMES", help=f"One or several, with commas: {names}.")
    parser.add_argument(
        "--follow", action="store_true", help="Go on until the run's training has ended."
    )
    parser.add_argument(
        "--anew", action="store_true", help="Log all of it again, under a name with a number."
    )
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx log`."""
    given, trackings = _open(argv)
    run = trackings[0].run

    def is_over() -> bool:
        return "follow" not in given or not run.is_locked()

    counts = _follow(trackings, is_over, lambda: time.sleep(_POLL_SECONDS))
    for tracking, count in zip(trackings, counts, strict=True):
        print_text("\n".join(_done_lines(tracking, count)) + "\n")
    return 0


def _open(argv: Sequence[str]) -> tuple[dict[str, Any], list[Tracking]]:
    given = build_log_parser().parse(argv)
    if "run" not in given:
        raise missing_run("log")
    names = [name.strip() for name in given.get("to", "").split(",") if name.strip()]
    if not names:
        raise ConfigError(
            "orpo-mlx log: to which tracker?",
            f"Give one of {', '.join(TRACKERS)}: "
            f"{command_line('orpo-mlx', 'log', given['run'], '--to', 'tensorboard')}.",
        )
    from orpo_mlx.trackers.table import require_trackers
    from orpo_mlx.trackers.tracking import Tracking

    run = find_run(given["run"], given.get("runs_dir"))
    require_trackers(names)
    return given, [Tracking(run, name, "anew" in given) for name in dict.fromkeys(names)]


def _follow(
    trackings: Sequence[Tracking], is_over: Callable[[], bool], wait: Callable[[], None]
) -> list[int]:
    """Hand on what is there and what comes until it is over; return how many events each got."""
    counts = [0] * len(trackings)
    try:
        while True:
            over = is_over()  # before reading: what was written last is then surely read
            counts = [n + _sync(one) for n, one in zip(counts, trackings, strict=True)]
            if over:
                break
            wait()
    finally:
        for one in trackings:
            _guarded(one, one.close)
    return counts


def _sync(tracking: Tracking) -> int:
    found: int = _guarded(tracking, tracking.sync)
    return found


def _guarded(tracking: Tracking, call: Callable[[], Any]) -> Any:
    """Turn whatever a tracker raises into an error of ours: their kinds are theirs."""
    try:
        return call()
    except OrpoError:
        raise
    except Exception as error:
        raise TrainingError(
            f"{tracking.name}: {describe(error)}", "The run is unharmed; see what it says."
        ) from error


def _done_lines(tracking: Tracking, count: int) -> list[str]:
    name = visible(tracking.logged_as)
    if not count:
        return [f"{tracking.name}: {name} is there already; --anew logs all of it again"]
    lines = [f"{tracking.name}: {counted(count, 'event')} logged as {name}"]
    if tracking.name == "tensorboard":
        folder = tracking.run.path / "trackers" / "tensorboard"
        show = command_line("tensorboard", "--logdir", folder)
        lines += [f"see it   {show}", *not_here(show)]
    return lines


def _log_beside(argv: Sequence[str]) -> int:
    """Follow a run for its trainer, until the pipe on standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, trackings = _open(argv)
    ended = False

    def is_over() -> bool:
        return ended

    def wait() -> None:
        nonlocal ended
        ended = bool(select.select([sys.stdin], [], [], _POLL_SECONDS)[0])

    _follow(trackings, is_over, wait)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(lambda: _log_beside(sys.argv[1:])))
