"""What the live screen asks before something is lost, and says at length."""

from __future__ import annotations

from collections.abc import Sequence

from tui.parts.ask import AskChoice, AskScreen
from tui.run.notes import Note
from tui.run.state import RunState


def stop_without_saving(run_id: str, state: RunState) -> AskScreen:
    """Ask whether a run is to end now; "yes" or "no"."""
    saved = state.checkpoints[-1].step if state.checkpoints else 0
    lost = state.step - saved
    last = f"The last checkpoint is of step {saved}" if saved else "There is no checkpoint yet"
    return AskScreen(
        f"Stop {run_id} without saving?",
        f"{last}; the {lost} steps since are lost.",
        [AskChoice("no", "Go on"), AskChoice("yes", "Stop now", is_dangerous=True)],
    )


def kill(pid: int | None) -> AskScreen:
    """Ask whether a process is to be killed; "yes" or "no"."""
    return AskScreen(
        f"Kill process {pid}?",
        "It ends at once; the last checkpoint is safe.",
        [AskChoice("no", "Wait"), AskChoice("yes", "Kill it", is_dangerous=True)],
    )


def what_charts_say(notes: Sequence[Note]) -> AskScreen:
    """Say all notes in full."""
    text = "\n\n".join(f"{note.line[0].upper()}{note.line[1:]}.\n{note.reason}" for note in notes)
    text = text or "No rule applies so far: nothing unusual can be read from the curves."
    return AskScreen("What the charts say", text, [AskChoice("close", "Close")])
