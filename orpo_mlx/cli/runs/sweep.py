"""`orpo-mlx train --sweep`: every run checked and planned, then all of them put into the queue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orpo_mlx.cli.runs.queue import entry_row, queue_lines
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import ConfigError, OrpoError
from orpo_mlx.runs.group.queue import Queue
from orpo_mlx.runs.group.sweep import changes_text
from orpo_mlx.runs.group.worker import start_worker
from orpo_mlx.text.formatting import counted, format_bytes, visible


@dataclass(frozen=True)
class SweptRun:
    """A run of a sweep: its settings, and which of them are its own, as they were typed."""

    config: TrainConfig
    changes: Mapping[str, str]


def queue_sweep(runs: Sequence[SweptRun], *, dry_run: bool, output: str) -> int:
    """Check and plan every run; put them into the queue and have them worked at.

    Args:
        runs: at least one.
        dry_run: show the plan only.
        output: rich, quiet (ids alone) or json.

    Raises:
        OrpoError: of the first that cannot be trained; nothing was written.
    """
    plans = [_plan(run) for run in runs]
    if dry_run:
        lines = [
            f"  {changes_text(run.changes)}: {plan}" for run, plan in zip(runs, plans, strict=True)
        ]
        text = f"dry run: {counted(len(runs), 'run')} would follow; nothing was written"
        return print_text(visible("\n".join([*lines, text])) + "\n")
    queue = Queue(runs[0].config.runs_dir)
    entries = queue.add([run.config for run in runs], [run.changes for run in runs])
    if not queue.is_worked_at():
        start_worker(queue)
    if output == "json":
        return print_text(json.dumps([entry_row(entry) for entry in entries], indent=2) + "\n")
    if output == "quiet":
        return print_text("".join(f"{entry.run.id}\n" for entry in entries))
    return print_text("\n".join(queue_lines(entries, queue)) + "\n")


def _plan(run: SweptRun) -> str:
    """Return how much memory a run needs.

    Raises:
        OrpoError: model or data cannot be used, or the memory does not suffice.
    """
    from orpo_mlx.planning.fit import answer
    from orpo_mlx.planning.memory import available_bytes

    name = changes_text(run.changes)
    try:
        limit = available_bytes()
        found = answer(run.config, limit)
    except OrpoError as error:
        raise type(error)(f"{name}: {error.message}", error.what_to_do) from None
    needs = f"{format_bytes(found.estimate.total)} of {format_bytes(limit)}"
    if not found.fits and not run.config.allow_overcommit:
        raise ConfigError(
            f"{name}: does not fit, {needs} needed; nothing was put into the queue",
            "`orpo-mlx fit` shows settings that fit; --allow-overcommit tries it all the same.",
        )
    return f"{needs} needed, {counted(found.pairs, 'pair')}"
