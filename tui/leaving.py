"""Leaving the app: what ends with it is asked about, what goes on without it is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.directory import RunDirectory
from tui import runner
from tui.screens.ask import Answer, AskScreen
from tui.trainer import send

if TYPE_CHECKING:
    from tui.app import OrpoApp


async def may_leave(app: OrpoApp) -> bool:
    """Ask what there is to ask before the app ends; from a worker only."""
    if not await _may_end_exports(app):
        return False
    running = runner.running_runs(app.runs_dir)
    if not running:
        return True
    names = ", ".join(run.id for run in running)
    answer = await app.push_screen_wait(
        AskScreen(
            f"{names} goes on without this window",
            "The training is a process of its own. `orpo-mlx` shows it again, also later and "
            "from another terminal.",
            [
                Answer("detach", "Detach and quit"),
                Answer("stop", "Stop, save and quit"),
                Answer("cancel", "Cancel"),
            ],
        )
    )
    return answer == "detach" or (answer == "stop" and _stop_all(app, running))


async def _may_end_exports(app: OrpoApp) -> bool:
    """Ask about exports: they live only as long as this window."""
    if not app.exports.unfinished:
        return True
    question = AskScreen(
        f"End the {app.exports.unfinished}?",
        "It is not complete and ends with this window.",
        [Answer("no", "Stay"), Answer("yes", "End it", is_dangerous=True)],
    )
    return await app.push_screen_wait(question) == "yes"


def _stop_all(app: OrpoApp, running: Iterable[RunDirectory]) -> bool:
    """Ask all trainers to stop; False, the reason being shown, if one cannot be asked."""
    are_asked = True
    for run in running:
        try:
            send(run, "stop")
        except OrpoError as error:
            if run.is_locked():  # else it has ended meanwhile: that is what was asked for
                app.show_error(error)
                are_asked = False
    return are_asked
