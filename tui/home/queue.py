"""Runs that wait for their turn, as the first screen lists them, and the dialog about them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

from textual.screen import Screen

from orpo_mlx.config.file import parse_toml
from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.group.launch import is_alive
from orpo_mlx.runs.group.queue import Queue, QueueEntry
from orpo_mlx.runs.group.sweep import changes_text
from orpo_mlx.runs.group.worker import start_worker
from orpo_mlx.runs.label import LONGEST_NAME, RunLabel
from orpo_mlx.runs.listing import RunSummary
from orpo_mlx.text.formatting import counted
from tui.parts.ask import AskChoice, AskScreen
from tui.processes.launcher import trainer_environment
from tui.shell.host import Host

_APART_SECONDS = 1e-3
"""The first to go stands above the next one, however runs are sorted by time."""


def without_folder(queue: Queue) -> dict[Path, QueueEntry]:
    """Return the runs of a queue that have no folder and no trainer: those that wait, and those
    that were refused at their start."""
    return {
        entry.run.path: entry
        for entry in queue.read()
        if not (entry.run.is_run() or is_alive(entry.run))
    }


def queued_summaries(entries: Collection[QueueEntry]) -> list[RunSummary]:
    """Return what there is to say of runs without a folder: what they are to be."""
    return [_summary(entry) for entry in entries]


def _summary(entry: QueueEntry) -> RunSummary:
    waiting = entry.waiting
    try:
        settings = parse_toml(waiting.settings)
    except ValueError:
        settings = {}
    model, data = (str(settings.get(name) or "") or None for name in ("model", "data"))
    return RunSummary(
        id=entry.run.id,
        path=entry.run.path,
        status="waiting" if entry.is_open else "failed",
        model=model,
        data=data,
        step=0,
        total_steps=0,
        metrics={},
        started=waiting.added - _APART_SECONDS * min(waiting.number, 1000),
        damage=waiting.words,
        label=RunLabel(changes_text(waiting.changes)[:LONGEST_NAME], (waiting.group,)),
    )


def left_over(queue: Queue) -> int:
    """Return how many runs wait while nobody works at them."""
    return 0 if queue.is_worked_at() else sum(entry.is_open for entry in queue.read())


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
            await asyncio.to_thread(start_worker, queue, trainer_environment(app.settings))
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
        choices.append(AskChoice("go", "Go on"))
    choices.append(AskChoice("remove", "Empty it", is_dangerous=bool(opened)))
    return AskScreen("The queue", text, choices)
