"""Train an adapter with ORPO: `python -m orpo_mlx.train --model M --data pairs.jsonl`.

This file is the run from top to bottom: prepare, start or resume, the loop, the end. What a step
computes is in step.py and losses.py; what is prepared before it in preparation.py.

A run owns a directory and tells the world only through it: events.jsonl (append-only),
state.json, checkpoints/, and at the end adapter/ in mlx-lm's format. Heavy imports stay inside
functions, so that --help and bad input answer at once.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo_mlx.command_line import parse_train, run_command
from orpo_mlx.config import TrainConfig, require_consistent
from orpo_mlx.errors import OrpoError, RunError, TrainingError
from orpo_mlx.faults import explain
from orpo_mlx.prefetch import Prefetch
from orpo_mlx.report import Report, build_report
from orpo_mlx.runs import events
from orpo_mlx.runs.control import Inbox, SignalFlags
from orpo_mlx.runs.directory import (
    Heartbeat,
    RunDirectory,
    check_place,
    create_run,
    run_place,
    sweep,
)

if TYPE_CHECKING:
    from orpo_mlx.checkpoint import FoundCheckpoint
    from orpo_mlx.preparation import Prepared
    from orpo_mlx.scoring import MicroBatch
    from orpo_mlx.step import StepResult
    from orpo_mlx.training_run import TrainingRun


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left behind.

    Attributes:
        reason: completed, early_stop, stopped or aborted.
        before, after: validation metrics at step 0 and at the end; None without validation pairs.
    """

    run_dir: Path
    adapter_path: Path | None
    reason: str
    step: int
    before: events.EvalCompleted | None
    after: events.EvalCompleted | None

    @property
    def exit_code(self) -> int:
        """0 when training finished, 130 when the user ended it."""
        return 0 if self.reason in ("completed", "early_stop") else 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 done, 1 run failed, 2 bad input, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _main(arguments), debug="--debug" in arguments)


def _main(arguments: Sequence[str]) -> int:
    command = parse_train(arguments)
    report = build_report(command.output)
    try:
        if command.dry_run:
            return dry_run(command.config, report)
        if command.resume is not None:
            return resume(command.resume, command.resume_overrides, report=report).exit_code
        return train(command.config, report=report).exit_code
    finally:
        report.close()


def train(config: TrainConfig, *, report: Report | None = None) -> TrainResult:
    """Train an adapter in a new run directory.

    Args:
        config: the settings; `model` and `data` are needed.
        report: told of every event as it is written; None = silent.

    Raises:
        OrpoError: bad input (nothing was written), or TrainingError for a run that failed.
    """
    from orpo_mlx.preparation import prepare

    require_consistent(config)
    check_place(config)
    prepared = prepare(config, report.progress if report else None)
    _require_room(prepared, run_place(config))
    directory = create_run(config)
    with directory.lock():
        return _run(directory, prepared, report, Inbox(directory.control_folder))


def resume(
    directory: RunDirectory,
    overrides: dict[str, Any] | None = None,
    *,
    report: Report | None = None,
) -> TrainResult:
    """Go on with a run from its newest valid checkpoint, bit for bit as if it had never stopped.

    Args:
        directory: of a run that was stopped, killed or failed.
        overrides: settings to change; only those that leave the run the same run.

    Raises:
        RunError: it is finished, or another process trains it.
        CheckpointError: nothing to resume, or the run would not be the same.
    """
    from orpo_mlx.checkpoint import find_newest, require_same, settings_before
    from orpo_mlx.preparation import prepare, settings_identity

    with directory.lock():
        # Before the long preparation: a request sent during it is meant for this process.
        inbox = Inbox(directory.control_folder)
        if directory.last_status() == "completed":
            raise RunError(
                f"{directory.path}: this run is finished; there is nothing to resume",
                f"To train further start a new run with --init-adapter {directory.adapter_folder}.",
            )
        found = find_newest(directory.checkpoints_folder)
        own = settings_before(found.manifest)
        config = directory.read_config().model_copy(update={**own, **(overrides or {})})
        require_same(settings_identity(config), found.manifest)
        # A dataset's branch may have moved on; the run goes on with the commit it began with.
        pinned = found.manifest.get("content", {}).get("data_revision")
        pinned = None if "data_revision" in (overrides or {}) else pinned
        prepared = prepare(config, report.progress if report else None, found, pinned)
        _require_room(prepared, directory.path)
        return _run(directory, prepared, report, inbox, found)


def _require_room(prepared: Prepared, folder: Path) -> None:
    """Refuse a run whose checkpoints the disk cannot hold, and note if it can barely."""
    from orpo_mlx.adapter import count_parameters
    from orpo_mlx.disk_space import require_room

    trainable, _ = count_parameters(prepared.model)
    found = [path for path in folder.glob("checkpoints/*/*") if path.is_file()]
    present = sum(path.stat().st_size for path in found)
    note = require_room(folder, prepared.config, trainable, prepared.total_steps, present)
    prepared.data.notes.extend([note] if note else [])


def _run(
    directory: RunDirectory,
    prepared: Prepared,
    report: Report | None,
    inbox: Inbox,
    found: FoundCheckpoint | None = None,
) -> TrainResult:
    from orpo_mlx import checkpoint
    from orpo_mlx.device_memory import choose_limits, limited_memory
    from orpo_mlx.training_run import Aborted

    sweep(directory)
    checkpoint.sweep(directory.checkpoints_folder)
    checkpoint.sweep(directory.path)
    limits = choose_limits(prepared.plan.estimate, prepared.available_bytes)
    with (
        _event_sink(directory, report) as emit,
        SignalFlags() as signals,
        limited_memory(limits),
    ):
        run = _build_run(directory, prepared, emit, inbox, signals)
        run.limits = limits
        try:
            try:
                _take_up(run, found, report) if found else _start(run)
                reason = _loop(run)
            except Aborted:
                reason = "aborted"
            return _finish(run, reason)
        except BaseException as error:
            raise _fail(run, error) from error
        finally:
            run.batches.close()


def _build_run(
    directory: RunDirectory,
    prepared: Prepared,
    emit: Callable[[events.Event], None],
    inbox: Inbox,
    signals: SignalFlags,
) -> TrainingRun:
    from orpo_mlx import checkpoint
    from orpo_mlx.optim import build_optimizer
    from orpo_mlx.preparation import objective, step_batches, valid_batches
    from orpo_mlx.step import TrainStep, own_arrays
    from orpo_mlx.step_plan import build_trunk
    from orpo_mlx.training_run import TrainingRun

    config, speed = prepared.config, prepared.speed
    content = f"{prepared.fingerprint} {checkpoint.versions()}"
    trunk = build_trunk(config, speed, prepared.model, content, directory.trunk_folder)
    step = TrainStep(
        prepared.model,
        build_optimizer(config),
        objective(config),
        speed.train,
        max_grad_norm=config.max_grad_norm,
        compiled=speed.compiled,
        feed=trunk.feed if trunk and speed.train.cut else own_arrays,
    )
    return TrainingRun(
        directory=directory,
        prepared=prepared,
        emit=emit,
        step=step,
        inbox=inbox,
        signals=signals,
        heartbeat=Heartbeat(directory, prepared.total_steps),
        valid=valid_batches(prepared),
        batches=Prefetch(lambda number: step_batches(prepared, number), prepared.total_steps),
        trunk=trunk,
    )


# --- start or resume ----------------------------------------------------------------------------


def _start(run: TrainingRun) -> None:
    _announce(run, resumed_from=0)
    run.heartbeat.beat("running", 0)
    run.evaluate()
    run.sample()
    run.save()


def _take_up(run: TrainingRun, found: FoundCheckpoint, report: Report | None) -> None:
    """Restore a checkpoint into the freshly prepared run, which has its adapter already."""
    from orpo_mlx.checkpoint import load_optimizer, read_progress, set_aside

    load_optimizer(found.path, run.step.optimizer)
    run.progress = read_progress(found.path)
    run.last_checkpoint = found.path
    past = _past_events(run)
    evaluations = [event for event in past if isinstance(event, events.EvalCompleted)]
    if evaluations:
        run.before, run.after = evaluations[0], evaluations[-1]
    if report is not None:
        report.catch_up(past)
    _announce(run, resumed_from=run.progress.step)
    for path, reason in found.skipped:
        kept = set_aside(path)
        text = f"checkpoint {path.name} was skipped: {reason}; it is now {kept.name}"
        run.emit(events.NoteLogged("warning", text))
    if changed := _changed_versions(found.manifest):
        run.emit(events.NoteLogged("warning", changed))
    run.emit(events.Resumed(run.progress.step, new_process=True))
    run.heartbeat.beat("running", run.progress.step)


def _changed_versions(manifest: dict[str, Any]) -> str:
    """Say which versions differ from those the checkpoint was made with, "" if none do."""
    from orpo_mlx.checkpoint import versions

    old, new = manifest.get("versions", {}), versions()
    changed = [f"{n} {old.get(n)} is now {new[n]}" for n in new if old.get(n) != new[n]]
    if not changed:
        return ""
    return f"{', '.join(changed)}: the run goes on, but no longer to the same bytes"


def _past_events(run: TrainingRun) -> list[events.Event]:
    """Return what the run said up to its checkpoint; later events are void."""
    records = events.read_events(run.directory.events_file)
    past = [record.event for record in records if record.event is not None]
    return [event for event in past if getattr(event, "step", 0) <= run.progress.step]


def _announce(run: TrainingRun, resumed_from: int) -> None:
    from orpo_mlx.adapter import count_parameters
    from orpo_mlx.checkpoint import versions

    prepared, data = run.prepared, run.prepared.data
    trainable, total = count_parameters(prepared.model)
    run.emit(
        events.RunStarted(
            run_id=run.directory.id,
            model=prepared.folder.name,
            data=str(run.config.data),
            total_steps=prepared.total_steps,
            pairs_train=len(data.train),
            pairs_valid=len(data.valid),
            trainable_parameters=trainable,
            total_parameters=total,
            config=run.config.model_dump(),
            versions=versions(),
            scoring=prepared.scoring.name,
            is_compiled=prepared.speed.compiled,
            trunk_blocks=prepared.speed.cut,
            resumed_from_step=resumed_from,
            run_path=str(run.directory.path),
            estimated_peak_bytes=prepared.plan.estimate.total,
            available_bytes=prepared.available_bytes,
            grad_checkpoint_every=prepared.plan.savings.recompute_every,
            head_chunk=prepared.scoring.chunk,
            cache_limit_bytes=run.limits.cache,
            memory_limit_bytes=run.limits.active,
        )
    )
    run.emit(_data_event(prepared))
    for fact in data.facts:
        run.emit(events.NoteLogged("info", fact))
    for note in _notes(prepared):
        run.emit(events.NoteLogged("warning", note))


def _notes(prepared: Prepared) -> list[str]:
    """Return what the user should know before the first step."""
    from orpo_mlx.optim import warmup_steps

    notes = [prepared.folder.note] if prepared.folder.note else []
    notes += prepared.data.notes
    notes += prepared.speed.notes
    if prepared.scoring.why:
        notes.append(f"pairs are scored the {prepared.scoring.name} way ({prepared.scoring.why})")
    warm, total = warmup_steps(prepared.config, prepared.total_steps), prepared.total_steps
    if warm >= total:
        notes.append(
            f"the warm-up takes {warm} steps and the run has {total}: the full learning rate is "
            "reached at the end or never; lower --warmup"
        )
    return notes


def _data_event(prepared: Prepared) -> events.DataPrepared:
    from orpo_mlx.data.tokens import decode_pair, token_percentiles

    data = prepared.data
    return events.DataPrepared(
        read=data.account.read,
        kept=data.account.kept,
        dropped=data.account.dropped,
        noted=data.account.noted,
        layout=data.layout,
        token_percentiles=token_percentiles(data.train),
        first_pair=decode_pair(data.train[0], prepared.tokenizer),
    )


# --- the loop -----------------------------------------------------------------------------------


def _loop(run: TrainingRun) -> str:
    """Train until the end or a request to stop; returns why it ended."""
    from orpo_mlx.optim import learning_rate_at
    from orpo_mlx.step import step_key

    config, progress, total = run.config, run.progress, run.prepared.total_steps
    while progress.step < total:
        if config.early_stop and progress.evals_since_best >= config.early_stop:
            return "early_stop"
        if reason := _obey(run):
            return reason
        step = progress.step + 1
        rate = learning_rate_at(step, total, config)

        # --- single training step
        started = time.perf_counter()
        batches = run.batches.get(step)
        result = run.step(batches, step_key(config.seed, step), rate)
        seconds = time.perf_counter() - started
        # ---

        _require_finite(run, step, result, batches)
        run.count_step(result, batches, seconds)
        is_last = step == total
        if step % config.report_every == 0 or is_last:
            run.report_step(rate, result.grad_norm)
        is_best = _is_due(step, config.eval_every, is_last) and run.evaluate()
        if _is_due(step, config.sample_every, is_last):
            run.sample()
        if is_best or _is_due(step, config.save_every, is_last):
            run.save()
        run.heartbeat.beat("running", step, seconds)
    return "completed"


def _is_due(step: int, every: int, is_last: bool) -> bool:
    return is_last or (every > 0 and step % every == 0)


def _require_finite(
    run: TrainingRun, step: int, result: StepResult, batches: Sequence[MicroBatch]
) -> None:
    """End the run at the first NaN or infinity; no number computed after it means anything."""
    if all(map(math.isfinite, [*result.metrics, result.grad_norm])):
        return
    pairs = run.prepared.data.train
    rows = [pairs[i].source for batch in batches for i in batch.indices]
    shown = ", ".join(rows[:8]) + (", ..." if len(rows) > 8 else "")
    what = "loss" if not math.isfinite(result.metrics[0]) else "gradient"
    raise TrainingError(
        f"the {what} is not a finite number at step {step} (rows {shown})",
        "Lower --learning-rate or --lam, or look at these rows; the adapter before this step is "
        f"in {run.last_checkpoint}.",
    )


def _obey(run: TrainingRun) -> str | None:
    """Do what signals and control files ask; returns why to end, or None to go on."""
    paused = False
    while True:
        if run.signals.abort:
            return "aborted"
        if run.signals.stop:
            return "stopped"
        for request in run.inbox.poll():
            if request.name in ("stop", "abort"):
                return "stopped" if request.name == "stop" else "aborted"
            if request.name == "checkpoint":
                run.save()
            elif request.name == "sample":
                run.sample()
            elif paused != (request.name == "pause"):
                paused = not paused
                event = events.Paused if paused else events.Resumed
                run.emit(event(run.progress.step))
        for note in run.inbox.take_notes():
            run.emit(events.NoteLogged("warning", note))
        if not paused:
            return None
        run.heartbeat.beat("paused", run.progress.step)
        time.sleep(0.2)


# --- the end ------------------------------------------------------------------------------------


def _finish(run: TrainingRun, reason: str) -> TrainResult:
    """Save what must be saved and say how it ended; an abort leaves the last checkpoint."""
    import mlx.core as mx

    progress, adapter_path = run.progress, None
    if reason != "aborted":
        run.heartbeat.beat("stopping", progress.step)
        run.save()
        adapter_path = run.write_result()
    done = reason in ("completed", "early_stop")
    trunk = run.trunk_counts()
    if done:
        run.drop_trunk()
    run.emit(
        events.RunFinished(
            reason=reason,
            step=progress.step,
            seconds=progress.seconds,
            adapter_path=str(adapter_path) if adapter_path else None,
            best_step=progress.best_step,
            batch_shapes=len(run.step.shapes),
            **trunk,
            peak_memory_bytes=mx.get_peak_memory(),
            peak_process_bytes=run.look_at_process(),
        )
    )
    run.heartbeat.beat("completed" if done else "stopped", progress.step)
    return TrainResult(
        run.directory.path, adapter_path, reason, progress.step, run.before, run.after
    )


def _fail(run: TrainingRun, error: BaseException) -> BaseException:
    """Record why the run ended; returns the error the caller should see."""
    if isinstance(error, KeyboardInterrupt):
        raised: BaseException = error
        message, advice = "interrupted three times", "Resume from the last checkpoint."
    elif isinstance(error, OrpoError):
        raised, message, advice = error, error.message, error.what_to_do
    else:
        meaning, advice = explain(str(error)) or (
            "something unexpected happened",
            "Resume from the last checkpoint; the whole traceback is in train.log.",
        )
        message = f"{meaning} at step {run.progress.step + 1} ({type(error).__name__}: {error})"
        raised = TrainingError(message, advice)
    last = str(run.last_checkpoint) if run.last_checkpoint else None
    # On a full disk nothing can be recorded; the caller still hears of it.
    with suppress(OSError):
        with run.directory.log_file.open("a", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)))
        run.emit(events.RunFailed(type(error).__name__, message, advice, run.progress.step, last))
    run.heartbeat.beat("failed", run.progress.step)
    return raised


@contextmanager
def _event_sink(
    directory: RunDirectory, report: Report | None
) -> Iterator[Callable[[events.Event], None]]:
    """Open the run's only channel out; the report sees each event after it is on disk."""
    writer = events.EventWriter(directory.events_file)

    def emit(event: events.Event) -> None:
        line = writer.write(event)
        if isinstance(event, events.CheckpointSaved):
            writer.sync()
        if report is not None:
            report.handle(event, line)

    with closing(writer):
        yield emit


def dry_run(config: TrainConfig, report: Report) -> int:
    """Prepare everything, show what would be trained on, and stop; writes nothing."""
    from orpo_mlx.preparation import prepare

    prepared = prepare(config, report.progress)
    _require_room(prepared, run_place(config))
    report.handle(_data_event(prepared))
    for fact in prepared.data.facts:
        report.handle(events.NoteLogged("info", fact))
    for note in _notes(prepared):
        report.handle(events.NoteLogged("warning", note))
    steps = "1 step" if prepared.total_steps == 1 else f"{prepared.total_steps} steps"
    text = f"dry run: {steps} would follow; nothing was written"
    report.handle(events.NoteLogged("info", text))
    return 0


class _CallableModule(types.ModuleType):
    """Lets `orpo_mlx.train(config)` work although `orpo_mlx.train` is this module."""

    def __call__(self, config: TrainConfig, *, report: Report | None = None) -> TrainResult:
        return train(config, report=report)


if __name__ == "__main__":
    sys.exit(main())
else:
    sys.modules[__name__].__class__ = _CallableModule
