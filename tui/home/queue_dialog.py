"""The dialog about the runs that wait for their turn."""

from __future__ import annotations

from textual.screen import Screen

from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.group.launch import is_alive
from orpo_mlx.runs.group.queue import Queue, QueueEntry
from orpo_mlx.runs.group.worker import start_worker
from orpo_mlx.text.formatting import counted
from tui.parts.ask import AskChoice, AskScreen
from tui.processes.background import ask_aside
from tui.processes.launcher import trainer_environment
from tui.shell.host import Host


async def tend(app: Host, screen: Screen[None], queue: Queue) -> None:
    """Say how the queue stands; go on with it, stop it or empty it, as is answered."""
    entries = queue.read()
    opened = [entry for entry in entries if entry.is_open]
    if not entries:
        screen.notify("The queue is empty; w in the last step of a new run fills it.")
        return
    answer = await screen.app.push_screen_wait(_question(queue, entries, opened))
    try:
        if answer == "go":
            await ask_aside(start_worker, queue, trainer_environment(app.settings))
            screen.notify("The queue goes on, also without the app.")
        elif answer == "stop":
            queue.ask_to_stop()
            screen.notify("The run in training is saved, then the queue stops.")
        elif answer == "remove":
            for entry in entries:
                if not is_alive(entry.run):
                    queue.remove(entry)
    except OrpoError as error:
        app.show_error(error)


def _question(queue: Queue, entries: list[QueueEntry], opened: list[QueueEntry]) -> AskScreen:
    is_worked_at = queue.is_worked_at()
    who = f"process {queue.pid} works at them" if is_worked_at else "nobody works at them"
    ended = counted(len(entries) - len(opened), "run")
    text = f"{counted(len(opened), 'run')} left, {who}; {ended} of the queue ended. "
    text += "Removed ones are forgotten by the queue only: folders of runs stay."
    choices = [AskChoice("close", "Close")]
    if is_worked_at:
        choices.append(AskChoice("stop", "Save and stop"))
    elif opened:
        choices.insert(0, AskChoice("go", "Go on"))  # what the key is said to do
    choices.append(AskChoice("remove", "Empty it", is_dangerous=bool(opened)))
    return AskScreen("The queue", text, choices)
