"""What is known of a run that has ended, read from its folder; no Textual."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from operator import attrgetter
from pathlib import Path

from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.directory import RunDirectory, Status
from orpo_mlx.runs.evaluation import RunEvaluation, read_evaluation
from orpo_mlx.runs.events import RunFailed, RunStarted, read_events
from tui.run.state import RunState
from tui.run.status import ALIVE

SHOWN = 3
_COMPARED = 600
"""Characters by which answers are compared: the time grows with their square."""
_step = attrgetter("step")
_FEWEST = 10
"""Held-out pairs below which nothing is evaluated, as in `orpo-mlx evaluate`."""


@dataclass(frozen=True)
class AnswerPair:
    """Answers of base and adapter, or before and after, to one prompt."""

    prompt: str
    base: str
    adapter: str


@dataclass(frozen=True)
class ResultFacts:
    """What the screen shows.

    Attributes:
        evaluation: None where there is none, or it is damaged.
        problem: why what there is cannot be used, and what to do; "" if nothing is wrong.
        why_none: why there is no evaluation, "" if there is one.
        answers: those that differ most.
        report: the page, None if there is none.
        can_compare: whether base and adapter can be compared now, on the run's own pairs.
    """

    status: Status
    evaluation: RunEvaluation | None
    problem: str
    why_none: str
    answers: tuple[AnswerPair, ...]
    report: Path | None
    can_compare: bool = True


def read_facts(run: RunDirectory) -> ResultFacts:
    """Read what a run has left; what is damaged is told."""
    problems, evaluation, state = [], None, RunState()
    try:
        evaluation = read_evaluation(run.evaluation_file)
    except OrpoError as error:
        problems.append(f"{error.message}. {error.what_to_do}")
    try:
        state.apply_all(read_events(run.events_file))
    except OrpoError as error:
        problems.append(f"{error.message}. {error.what_to_do}")
    status = run.read_status()
    is_there = evaluation is not None or run.evaluation_file.exists()
    return ResultFacts(
        status,
        evaluation,
        "\n".join(problems),
        "" if is_there else why_none(status, state, run.argument),
        _answers(evaluation, state),
        run.report_file if run.report_file.is_file() else None,
        status not in ALIVE and not (state.started and _too_few(state.started)),
    )


def why_none(status: Status, state: RunState, argument: str) -> str:
    """Return why a run has no evaluation.

    Args:
        status: of the run.
        state: of the run.
        argument: what names the run in a command.
    """
    if status in ALIVE:
        return "The run is still being trained; base and adapter are compared at its end."
    if state.started is None:
        return "Nothing is known of this run."
    if isinstance(state.ended, RunFailed) or status in ("failed", "crashed"):
        return "The run did not come to its end, where base and adapter are compared."
    if _too_few(state.started):
        return _why_too_few(state.started, argument)
    if state.started.config.get("evaluate") is False:
        return "The run was started with --no-evaluate."
    notes = [line.text for line in state.lines if line.text.startswith("base and adapter")]
    if notes:
        return f"{notes[-1][0].upper()}{notes[-1][1:]}."
    return "Base and adapter were not compared at its end."


def _too_few(started: RunStarted) -> bool:
    return started.pairs_valid < _FEWEST


def _why_too_few(started: RunStarted, argument: str) -> str:
    count = started.pairs_valid or "no"
    return (
        f"The run held out {count} pair{'s' * (count != 1)}; at least {_FEWEST} are needed. "
        f"With pairs it has not seen: orpo-mlx evaluate {argument} --data FILE"
    )


def _answers(evaluation: RunEvaluation | None, state: RunState) -> tuple[AnswerPair, ...]:
    """Return answers to neutral prompts, else those the run sampled before and after."""
    if evaluation is not None and evaluation.answers:
        found = [AnswerPair(one.prompt, one.base, one.adapter) for one in evaluation.answers]
        return tuple(found[:SHOWN])
    found = []
    for index in sorted({sample.index for sample in state.samples}):
        samples = [sample for sample in state.samples if sample.index == index]
        first, last = min(samples, key=_step), max(samples, key=_step)
        if first.step != last.step:
            found.append(AnswerPair(last.prompt, first.response, last.response))
    return tuple(sorted(found, key=_likeness)[:SHOWN])


def _likeness(pair: AnswerPair) -> float:
    return SequenceMatcher(None, pair.base[:_COMPARED], pair.adapter[:_COMPARED]).ratio()
