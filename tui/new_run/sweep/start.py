"""Runs of a sweep put into the queue, and the worker begun who trains them."""

from __future__ import annotations

from pathlib import Path

from orpo_mlx.runs.group.queue import Queue
from orpo_mlx.runs.group.worker import start_worker
from tui.new_run.draft import Draft
from tui.processes.background import ask_aside
from tui.processes.launcher import trainer_environment
from tui.shell.host import Host


async def start_sweep(app: Host, draft: Draft) -> int:
    """Put the runs of a draft into the queue and have them worked at; return their number.

    Raises:
        OrpoError: a setting cannot be used, the queue not be written, or the worker not be begun.
    """
    runs = draft.runs()
    config = runs[0][0]
    queue = Queue(Path(config.runs_dir) if config.runs_dir else app.runs_dir)
    queue.add([one for one, _ in runs], [changes for _, changes in runs])
    if not queue.is_worked_at():
        await ask_aside(start_worker, queue, trainer_environment(app.settings))
    return len(runs)
