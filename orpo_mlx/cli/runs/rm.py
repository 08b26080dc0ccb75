"""`orpo-mlx rm`: runs into the trash beside them, or away for good."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_runs_dir_option,
    missing_run,
)
from orpo_mlx.cli.terminal import is_terminal, print_text
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.group.removal import (
    TRASH,
    remove_for_good,
    require_removable,
    throw_away,
)
from orpo_mlx.runs.listing import find_run
from orpo_mlx.text.formatting import counted, visible


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx rm`; 1 if the question was answered with no."""
    given = _parser().parse(argv)
    if not given.get("runs"):
        raise missing_run("rm")
    found = {find_run(name, given.get("runs_dir")): None for name in given["runs"]}
    for run in found:  # all of them, before the first is touched
        require_removable(run)
    for_good = "for_good" in given
    if "yes" not in given and not _is_wanted(list(found), for_good):
        print_text("nothing was removed\n")
        return 1
    for run in found:
        if for_good:
            remove_for_good(run)
            print_text(visible(f"{run.id}: deleted") + "\n")
        else:
            print_text(visible(f"{run.id}: now in {throw_away(run).parent}") + "\n")
    return 0


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx rm",
        "Remove runs: into the folder .trash beside them; moved back, a run is listed again.",
        usage="orpo-mlx rm RUN... [--yes] [--for-good] [options]",
    )
    add_help_option(parser)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="Ids, their beginnings, or paths.")
    parser.add_argument("--yes", action="store_true", help="Do not ask.")
    parser.add_argument("--for-good", action="store_true", help="Delete instead of moving.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def _is_wanted(runs: Sequence[RunDirectory], for_good: bool) -> bool:
    """Ask.

    Raises:
        ConfigError: nobody is there to be asked.
    """
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise ConfigError("orpo-mlx rm: asks first, and no terminal is there", "Give --yes.")
    print_text("".join(f"  {visible(str(run.path))}\n" for run in runs))
    what = "Delete for good" if for_good else f"Move to {TRASH}"
    print_text(f"{what}: {counted(len(runs), 'run')}, with checkpoints and adapter? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
