"""Runs that wait for their turn, as the list of runs has them; no Textual."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from orpo_mlx.config.file import parse_toml
from orpo_mlx.runs.group.launch import is_alive
from orpo_mlx.runs.group.queue import Queue, QueueEntry
from orpo_mlx.runs.group.sweep import changes_text
from orpo_mlx.runs.label import LONGEST_NAME, RunLabel
from orpo_mlx.runs.listing import RunSummary

_APART_SECONDS = 1e-3
"""The first to go stands above the next one, however runs are sorted by time."""


def without_folder(queue: Queue) -> dict[Path, QueueEntry]:
    """Return the runs of a queue that have no folder and no trainer: those that wait, and those
    that were refused at their start. Others had a folder that somebody took away."""
    return {
        entry.run.path: entry
        for entry in queue.read()
        if entry.waiting.outcome in ("", "failed")
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
