"""`python -m orpo_mlx.cli.judge.serve`: the process behind the app's screen for comparing blind.

Takes the words of `orpo-mlx judge`. JSON lines out: `ready` once, when both sides have answered,
then a `duel` at once and after each verdict (its `duel` is null when nothing is left), `failed` for
what is wrong; how far the answers are goes to stderr. One verdict a line in:

    {"place": 3, "says": "first"}      or "second", "tie", "skip"; place as in the duel shown
    {"says": "back"}                   the one before is asked again

The end of the input ends it. Verdicts are in the journal before the next duel is sent.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from orpo_mlx.cli.commands.evaluate import find_asked
from orpo_mlx.cli.exit_codes import run_command
from orpo_mlx.cli.judge.main import plan_of
from orpo_mlx.cli.judge.request import parse_judge
from orpo_mlx.cli.progress import ProgressLine
from orpo_mlx.errors import OrpoError
from orpo_mlx.judging.by_person import Sitting
from orpo_mlx.judging.contest import Contest, open_contest
from orpo_mlx.judging.ledger import SAYS
from orpo_mlx.judging.tally import tally_json, tally_text, verdict_of


def main(argv: list[str] | None = None) -> int:
    """Serve until the end of the input; 0, or 2 for what cannot be compared."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _serve(words, sys.stdin, sys.stdout), debug="--debug" in words)


def _serve(words: list[str], source: TextIO, sink: TextIO) -> int:
    def say(message: dict[str, Any]) -> None:
        sink.write(json.dumps(message, allow_nan=False) + "\n")
        sink.flush()

    try:
        command = parse_judge(words)
        asked = find_asked(command.given, 0, command.seed)
        progress = ProgressLine(as_json=True)
        with open_contest(asked, plan_of(command, asked), progress) as contest:
            say(_ready(contest))
            sitting = Sitting(contest)
            say(_duel(sitting))
            for line in source:
                _take(sitting, line)
                say(_duel(sitting))
    except OrpoError as error:
        said = {"message": error.message, "what_to_do": error.what_to_do}
        say({"event": "failed", **said})
        return error.exit_code
    return 0


def _take(sitting: Sitting, line: str) -> None:
    """Keep a verdict on the duel that is shown; one on another is late and means nothing."""
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        return
    if request.get("says") == "back":
        sitting.go_back()
        return
    duel = sitting.current
    if duel is None or request.get("place") != duel.place:
        return
    if (says := request.get("says")) in SAYS:
        sitting.take(duel, says)


def _ready(contest: Contest) -> dict[str, Any]:
    return {
        "event": "ready",
        "sides": contest.names,
        "compared": [contest.before, contest.after],
        "journal": str(contest.ledger.path),
        "notes": list(contest.notes),
    }


def _duel(sitting: Sitting) -> dict[str, Any]:
    duel, tally = sitting.current, sitting.tally
    shown = None
    if duel is not None:
        first, second = duel.shown(duel.after_first)
        shown = {"place": duel.place, "prompt": duel.prompt, "first": first, "second": second}
    return {
        "event": "duel",
        "duel": shown,
        "number": sitting.number,
        "total": sitting.total,
        "standing": tally_text(tally),
        "verdict": verdict_of(sitting.contest, tally),
        **tally_json(tally),
    }


if __name__ == "__main__":
    sys.exit(main())
