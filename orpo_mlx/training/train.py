"""The run from top to bottom: prepare, start or take up (start.py), the loop, the end (end.py).
What a step computes is in step.py and objectives/; what is prepared before it in prepare.py.

A run owns a directory and tells the world only through it: events.jsonl (append-only),
state.json, checkpoints/, and at the end adapter/ in mlx-lm's format. Heavy imports stay inside
functions, so that --help and bad input answer at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import require_consistent
from orpo_mlx.distributed.peers import ALONE, Peers
from orpo_mlx.errors import NotFiniteError, RunError
from orpo_mlx.models.command_buffers import choose_command_buffers
from orpo_mlx.planning.cadence import is_due
from orpo_mlx.runs import checkpoints, events
from orpo_mlx.runs.control import Actions, Inbox, SignalFlags, obey
from orpo_mlx.runs.directory import (
    RunDirectory,
    check_place,
    create_run,
    run_place,
    sweep,
)
from orpo_mlx.runs.listener import RunListener
from orpo_mlx.trackers.processes import TrackerProcesses
from orpo_mlx.trackers.table import require_trackers
from orpo_mlx.training.end import TrainResult, fail, finish

if TYPE_CHECKING:
    from orpo_mlx.runs.checkpoints import FoundCheckpoint
    from orpo_mlx.scoring.base import MicroBatch
    from orpo_mlx.training.prepare import Prepared
    from orpo_mlx.training.run import TrainingRun
    from orpo_mlx.training.step import StepResult


def train(
    config: TrainConfig, *, report: RunListener | None = None, peers: Peers = ALONE
) -> TrainResult:
    """Train an adapter in a new run directory.

    Args:
        config: the settings; `model` and `data` are needed.
        report: told of every event as it is written; None = silent.
        peers: other processes that take part in it; this one is the first.

    Raises:
        OrpoError: bad input (nothing was written), or TrainingError for a run that failed.
    """
    choose_command_buffers(config.command_buffers)
    from orpo_mlx.training.prepare import prepare
    from orpo_mlx.training.start import require_disk

    require_consistent(config)
    require_trackers(config.report_to)
    check_place(config)
    share_settings(config, peers)
    prepared = prepare(config, report.progress if report else None, peers=peers)
    prepared = require_disk(prepared, run_place(config))
    directory = create_run(config)
    with directory.lock():
        inbox = Inbox(directory.control_folder)
        return _run(directory, prepared, report, inbox, peers=peers)


def resume(
    directory: RunDirectory,
    overrides: dict[str, Any] | None = None,
    *,
    report: RunListener | None = None,
    peers: Peers = ALONE,
) -> TrainResult:
    """Go on with a run from its newest valid checkpoint, bit for bit as if it had never stopped.

    Args:
        directory: of a run that was stopped, killed or failed.
        overrides: settings to change; only those that leave the run the same run.
        report, peers: as of `train`.

    Raises:
        RunError: it is finished, or another process trains it.
        CheckpointError: nothing to resume, or the run would not be the same.
    """
    from orpo_mlx.runs.checkpoints import find_newest

    with directory.lock():
        # Before the long preparation: a request sent during it is meant for this process.
        inbox = Inbox(directory.control_folder)
        if directory.last_status() == "completed":
            raise RunError(
                f"{directory.path}: this run is finished; there is nothing to resume",
                f"To train further start a new run with --init-adapter {directory.adapter_folder}.",
            )
        found = find_newest(directory.checkpoints_folder)
        config = directory.read_config().model_copy(update=overrides or {})
        require_trackers(config.report_to)
        choose_command_buffers(config.command_buffers)
        from orpo_mlx.training.identity import require_known_plan, require_same, settings_identity
        from orpo_mlx.training.prepare import prepare
        from orpo_mlx.training.start import require_disk

        require_same(settings_identity(config), found.manifest)
        require_known_plan(found.manifest)
        # A dataset's branch may have moved on; the run goes on with the commit it began with.
        pinned = found.manifest.get("content", {}).get("data_revision")
        pinned = None if "data_revision" in (overrides or {}) else pinned
        share_settings(config, peers)
        progress = report.progress if report else None
        prepared = prepare(config, progress, found, pinned, peers)
        prepared = require_disk(prepared, directory.path)
        return _run(directory, prepared, report, inbox, found, peers)


def share_settings(config: TrainConfig, peers: Peers) -> None:
    """Tell the other processes the settings; those with others of their own end the start.

    Raises:
        PeerRefusedError: naming them.
    """
    from orpo_mlx.training.identity import settings_facts

    if peers.size > 1:
        peers.share(config.model_dump(mode="json"))
        peers.agree(settings_facts(config))


def _run(
    directory: RunDirectory,
    prepared: Prepared,
    report: RunListener | None,
    inbox: Inbox,
    found: FoundCheckpoint | None = None,
    peers: Peers = ALONE,
) -> TrainResult:
    from orpo_mlx.training.device_memory import choose_limits, limited_memory
    from orpo_mlx.training.run import Aborted
    from orpo_mlx.training.start import build_run, start, take_up

    sweep(directory)
    checkpoints.sweep(directory.checkpoints_folder)
    checkpoints.sweep(directory.path)
    limits = choose_limits(prepared.plan.estimate, prepared.available_bytes)
    with (
        _event_sink(directory, report, prepared.config.report_to) as emit,
        SignalFlags() as signals,
        limited_memory(limits),
    ):
        run = build_run(directory, prepared, emit, inbox, signals, limits, peers)
        peers.watch.on_stuck = partial(fail, run)
        try:
            try:
                take_up(run, found, report) if found else start(run, report)
                reason = _loop(run)
            except Aborted:
                reason = "aborted"
            return finish(run, reason)
        except BaseException as error:
            raise fail(run, error) from error
        finally:
            run.batches.close()


# --- the loop -----------------------------------------------------------------------------------


def _loop(run: TrainingRun) -> str:
    """Train until the end or a request to stop; returns why it ended."""
    from orpo_mlx.training.optimizer import learning_rate_at
    from orpo_mlx.training.step import step_key

    config, progress, total = run.config, run.progress, run.prepared.total_steps
    cadence = run.prepared.cadence
    while progress.step < total:
        if config.early_stop and progress.evals_since_best >= config.early_stop:
            return "early_stop"
        if config.stop_drift and run.drift > config.stop_drift:
            return "drift"
        if reason := _obey(run):
            return reason
        step = progress.step + 1
        rate = learning_rate_at(step, total, config)

        # --- single training step
        started = time.perf_counter()
        run.peers.order("step", step=step)
        batches = run.batches.get(step)
        result = run.step(batches, step_key(config.seed, step), rate)
        seconds = time.perf_counter() - started
        # ---

        _require_finite(run, step, result, batches)
        run.count_step(result, batches, seconds)
        is_last = step == total
        if cadence.is_report_due(step, seconds, is_last):
            run.report_step(rate, result.grad_norm)
        is_best = is_due(step, cadence.evaluate, is_last) and run.evaluate()
        if cadence.drift and is_due(step, cadence.drift, is_last):
            run.measure_drift()
        if is_due(step, cadence.sample, is_last):
            run.sample()
        if is_best or cadence.is_save_due(step, run.unsaved_seconds, is_last):
            run.save()
        run.heartbeat.beat("running", step, seconds)
    return "completed"


def _require_finite(
    run: TrainingRun, step: int, result: StepResult, batches: Sequence[MicroBatch]
) -> None:
    """End the run at the first NaN or infinity; no number computed after it means anything."""
    # NaN beside a loss that is one number: a step without an answer of one label.
    decisive = (result.metrics[0], result.grad_norm)
    if all(map(math.isfinite, decisive)) and not any(map(math.isinf, result.metrics)):
        return
    pairs = run.prepared.data.train
    rows = [pairs[i].source for batch in batches for i in batch.indices]
    shown = ", ".join(rows[:8]) + (", ..." if len(rows) > 8 else "")
    what = "loss" if not math.isfinite(result.metrics[0]) else "gradient"
    raise NotFiniteError(
        f"the {what} is not a finite number at step {step} (rows {shown})",
        f"Look at these rows, or lower --learning-rate or --lam: {run.anew_command}.",
    )


def _obey(run: TrainingRun) -> str:
    """Do what signals and control files ask; returns why to end, "" to go on."""
    step = run.progress.step
    if (name := run.peers.signal) and not run.signals.stop:
        run.signals.ask(name)

    def wait() -> None:
        run.peers.watch.mark("paused")
        run.heartbeat.beat("paused", step)
        time.sleep(0.2)

    return obey(run.inbox, run.signals, Actions(run.emit, run.save, run.sample, wait), step)


@contextmanager
def _event_sink(
    directory: RunDirectory, report: RunListener | None, names: Sequence[str]
) -> Iterator[Callable[[events.Event], None]]:
    """Open the run's only channel out; the report sees each event after it is on disk."""
    writer = events.EventWriter(directory.events_file)
    trackers = TrackerProcesses(directory, names)

    def emit(event: events.Event) -> None:
        for complaint in trackers.complaints():
            write(events.NoteLogged("warning", complaint))
        write(event)

    def write(event: events.Event) -> None:
        line = writer.write(event)
        if isinstance(event, events.CheckpointSaved):
            writer.sync()
        if report is not None:
            report.handle(event, line)

    with closing(writer):
        try:
            yield emit
        finally:
            with suppress(OSError):  # of a full disk, which has ended the run by itself
                for complaint in trackers.close():
                    write(events.NoteLogged("warning", complaint))
