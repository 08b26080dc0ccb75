"""Leaving the app: what ends with it is asked about, what goes on without it is told."""

from __future__ import annotations

from collections.abc import Iterable

from orpo_mlx.errors import OrpoError, RunError
from orpo_mlx.runs.directory import RunDirectory
from tui.export.session import Exports
from tui.parts.ask import AskChoice, AskScreen
from tui.processes import launcher
from tui.processes.requests import send
from tui.serve.session import ServeSession
from tui.shell.host import Host


async def may_leave(app: Host, exports: Exports, server: ServeSession) -> bool:
    """Ask what there is to ask before the app ends; from a worker only."""
    if not await _may_end_exports(app, exports) or not await _may_end_server(app, server):
        return False
    running = launcher.running_runs(app.runs_dir)
    preparing = launcher.starting_runs(app.runs_dir)
    if not (running or preparing):
        return True
    names = ", ".join(run.id for run in (*running, *preparing))
    answer = await app.push_screen_wait(
        AskScreen(
            f"{names} goes on without this window",
            "The training is a process of its own. `orpo-mlx` shows it again, also later and "
            "from another terminal.",
            [
                AskChoice("detach", "Detach and quit"),
                AskChoice("stop", "Stop, save and quit"),
                AskChoice("cancel", "Cancel"),
            ],
        )
    )
    return answer == "detach" or (answer == "stop" and _stop_all(app, running, preparing))


async def _may_end_exports(app: Host, exports: Exports) -> bool:
    """Ask about exports: they live only as long as this window."""
    if not exports.unfinished:
        return True
    question = AskScreen(
        f"End the {exports.unfinished}?",
        "It is not complete and ends with this window.",
        [AskChoice("no", "Stay"), AskChoice("yes", "End it", is_dangerous=True)],
    )
    return await app.push_screen_wait(question) == "yes"


async def _may_end_server(app: Host, server: ServeSession) -> bool:
    """Ask about a server: it lives only as long as this window."""
    if not server.state.is_on:
        return True
    question = AskScreen(
        "End the server?",
        f"It ends with this window. Without it: {server.command}",
        [AskChoice("no", "Stay"), AskChoice("yes", "End it")],
    )
    return await app.push_screen_wait(question) == "yes"


def _stop_all(
    app: Host, running: Iterable[RunDirectory], preparing: Iterable[RunDirectory]
) -> bool:
    """Ask all trainers to stop; False, the reason being shown, if one cannot be asked."""
    are_asked = True
    for run in preparing:
        if run.path in app.starts:
            app.starts[run.path].cancel()
        else:
            app.show_error(
                RunError(
                    f"{run.id} is being prepared by another window, and takes no request yet",
                    "Stop it there, or wait until it trains.",
                )
            )
            are_asked = False
    for run in running:
        try:
            send(run, "stop")
        except OrpoError as error:
            if run.is_locked():  # else it has ended meanwhile: that is what was asked for
                app.show_error(error)
                are_asked = False
    return are_asked
