"""`orpo-mlx judge`: which answers are better? A person or a model compares blind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo_mlx.cli.commands.evaluate import find_asked
from orpo_mlx.cli.judge.request import JudgeCommand, parse_judge
from orpo_mlx.cli.progress import ProgressLine, failures_as_json
from orpo_mlx.cli.terminal import print_controls, print_error_text, print_text, write_controls
from orpo_mlx.text.progress import OnProgress

if TYPE_CHECKING:
    from orpo_mlx.evaluation.subject import Asked
    from orpo_mlx.judging.by_model import ModelJudge
    from orpo_mlx.judging.contest import Contest, ContestPlan

_KEPT = "what is answered and judged is kept: the same command goes on"


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx judge`; return the exit code 0, also of a person who quits."""
    with failures_as_json("--json" in argv):
        return _judge(parse_judge(argv))


def _judge(command: JudgeCommand) -> int:
    if command.is_by_person:
        from orpo_mlx.cli.judge.terminal import require_person

        require_person()
    asked = find_asked(command.given, 0, command.seed)
    from orpo_mlx.judging.contest import open_contest
    from orpo_mlx.judging.tally import as_json

    progress = ProgressLine(command.as_json, says_phases=True)
    try:
        judge = _model_judge(command, progress)
        ready = judge.require_ready if judge else None
        with open_contest(asked, plan_of(command, asked), progress, ready) as contest:
            name, label = _ask(contest, judge, command, progress)
            content = as_json(contest, name, label)
    except KeyboardInterrupt:
        progress.close()
        print_error_text(_KEPT)
        raise
    finally:
        progress.close()
    return _print(content, command.as_json)


def plan_of(command: JudgeCommand, asked: Asked) -> ContestPlan:
    """Return how it is compared, and where that is kept."""
    from orpo_mlx.judging.contest import ContestPlan

    run = asked.adapter.run if asked.adapter else None
    folder = command.journal or (run.path / "judge" if run else Path("judge"))
    return ContestPlan(
        command.prompts, command.max_tokens, command.seed, folder.absolute(), command.force
    )


def _model_judge(command: JudgeCommand, progress: OnProgress) -> ModelJudge | None:
    """Return the model that judges, None for a person; what is wrong with it is found here."""
    if command.judge_url is not None:
        from orpo_mlx.judging.endpoint import Endpoint

        return Endpoint(command.judge_url, str(command.judge_name), command.judge_tokens)
    if command.judge_model is not None:
        from orpo_mlx.judging.local import LocalJudge

        return LocalJudge(command.judge_model, command.judge_tokens, progress)
    return None


def _ask(
    contest: Contest, judge: ModelJudge | None, command: JudgeCommand, progress: ProgressLine
) -> tuple[str, str]:
    """Ask for all verdicts that are missing; return whose they are, and what to call them."""
    if judge is not None:
        from orpo_mlx.judging.by_model import judge_all

        judge_all(contest, judge, progress)
        return judge.name, judge.label
    from orpo_mlx.cli.judge.terminal import ask_person
    from orpo_mlx.judging.by_person import Sitting
    from orpo_mlx.judging.ledger import PERSON

    progress.close()
    # The result alone goes to stdout where a program reads it.
    ask_person(Sitting(contest), write_controls if command.as_json else print_controls)
    return PERSON, "a person"


def _print(content: dict[str, Any], as_json: bool) -> int:
    if as_json:
        return print_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    from orpo_mlx.cli.judge.text import result_lines

    return print_text("\n".join(result_lines(content)) + "\n")
