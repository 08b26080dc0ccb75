"""How a run ended and what to do next, for the card at the end of a run; pure."""

from __future__ import annotations

from dataclasses import dataclass

from orpo_mlx.faults import explain
from orpo_mlx.formatting import format_duration
from orpo_mlx.runs.directory import Status
from orpo_mlx.runs.events import RunFailed, RunFinished
from tui.run_state import RunState

_ENDS = {
    "completed": "The run is complete",
    "early_stop": "Stopped early: validation no longer improved",
    "stopped": "Stopped as asked; everything is saved",
    "aborted": "Stopped without saving, as asked",
}


@dataclass(frozen=True)
class Card:
    """What is shown above the charts of a run that has ended, or does not answer.

    Attributes:
        cause: what happened, one or two sentences.
        remedy: what can be done, with the keys that do it.
        details: the last lines of the trainer's output, for a crash.
    """

    title: str
    cause: str
    remedy: str
    is_bad: bool = False
    details: tuple[str, ...] = ()


def ending_card(status: Status, state: RunState, log: str = "", keys: str = "R") -> Card | None:
    """Return the card of a run, None while it goes on.

    Args:
        log: the end of the trainer's output.
        keys: the key that resumes.
    """
    saved = state.checkpoints[-1].step if state.checkpoints else None
    resume = (
        f"{keys} goes on from step {saved}."
        if saved is not None
        else f"No checkpoint was saved; {keys} tries again from the beginning."
    )
    if status == "crashed":
        return _crash(state, log, resume)
    if status == "failed" and isinstance(state.ended, RunFailed):
        return Card(
            f"Failed at step {state.ended.step}",
            f"{state.ended.message[:1].upper()}{state.ended.message[1:].rstrip('.')}.",
            f"{state.ended.what_to_do} {resume}".strip(),
            is_bad=True,
        )
    if status in ("completed", "stopped") and isinstance(state.ended, RunFinished):
        return _end(state.ended, resume)
    if status == "stalled":
        return Card(
            "No sign of life",
            "The trainer holds its run but has not answered for a while: a very long step, heavy "
            "swapping, or a stuck GPU.",
            "Wait, or K ends the process; the last checkpoint is safe.",
            is_bad=True,
        )
    return None


def _crash(state: RunState, log: str, resume: str) -> Card:
    lines = tuple(line for line in log.splitlines() if line.strip())[-6:]
    meaning, advice = explain(log) or (
        "its process ended without a word: killed, out of memory, or the power went",
        "If it happens again, lower --max-seq-length or --micro-batch-size.",
    )
    return Card(
        f"Crashed at step {state.step}",
        f"{meaning[0].upper()}{meaning[1:]}.",
        f"{advice} {resume}",
        is_bad=True,
        details=lines,
    )


def _end(ended: RunFinished, resume: str) -> Card:
    title = _ENDS.get(ended.reason, f"Ended: {ended.reason}")
    best = f" The best evaluation was at step {ended.best_step}." if ended.best_step else ""
    cause = f"Step {ended.step} after {format_duration(ended.seconds)}.{best}"
    is_done = ended.reason in ("completed", "early_stop")
    next = "t tests it against its base, e exports it, esc shows all runs."
    return Card(title, cause, next if is_done else f"{resume} {next}")
