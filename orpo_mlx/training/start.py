"""How a run begins: it is built from what was prepared, told of, and started or taken up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from orpo_mlx.adapters.lora import count_parameters
from orpo_mlx.data.batching.prefetch import Prefetch
from orpo_mlx.data.tokens.tokenize import decode_pair, token_percentiles
from orpo_mlx.data.types import TokenPair
from orpo_mlx.distributed.log import last_lines, log_in
from orpo_mlx.distributed.peers import ALONE, Peers
from orpo_mlx.distributed.traffic import exchange_memory
from orpo_mlx.evaluation.drift_course import DriftCourse
from orpo_mlx.models.modes import evaluating
from orpo_mlx.models.shape import context_length
from orpo_mlx.planning.disk import checkpoint_bytes, require_room
from orpo_mlx.runs import events
from orpo_mlx.runs.checkpoints import FoundCheckpoint, read_progress, set_aside, versions
from orpo_mlx.runs.control import Inbox, SignalFlags
from orpo_mlx.runs.directory import Heartbeat, RunDirectory
from orpo_mlx.runs.history import valid_events
from orpo_mlx.runs.listener import RunListener
from orpo_mlx.scoring.activation_cache import ActivationCache
from orpo_mlx.scoring.base import Scoring, own_arrays
from orpo_mlx.scoring.plain import Plain
from orpo_mlx.text.formatting import counted, format_bytes
from orpo_mlx.training.checkpoint import copy_optimizer, load_optimizer
from orpo_mlx.training.device_memory import MemoryLimits
from orpo_mlx.training.optimizer import build_optimizer, warmup_steps
from orpo_mlx.training.preparation.objective import objective
from orpo_mlx.training.prepare import Prepared, phases, step_batches, valid_batches
from orpo_mlx.training.run import TrainingRun
from orpo_mlx.training.speed.plan import build_trunk
from orpo_mlx.training.step import TrainStep


def require_disk(prepared: Prepared, folder: Path) -> Prepared:
    """Refuse a run whose checkpoints the disk cannot hold, and note if it can barely."""
    trainable, _ = count_parameters(prepared.model)
    found = [path for path in folder.glob("checkpoints/*/*") if path.is_file()]
    present = sum(path.stat().st_size for path in found)
    note = require_room(
        folder, prepared.config, trainable, prepared.cadence.saves(prepared.total_steps), present
    )
    return replace(prepared, notes=(*prepared.notes, note)) if note else prepared


def build_run(
    directory: RunDirectory,
    prepared: Prepared,
    emit: Callable[[events.Event], None],
    inbox: Inbox,
    signals: SignalFlags,
    limits: MemoryLimits,
    peers: Peers = ALONE,
) -> TrainingRun:
    """Put together what the loop needs: the step, its batches, what it listens to."""
    config = prepared.config
    step, trunk = build_step(prepared, directory.trunk_folder, peers)
    run = TrainingRun(
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
        peers=peers,
        limits=limits,
    )
    if prepared.cadence.drift:
        run.drift_course = DriftCourse(prepared.loaded, config, directory.drift_file, run.breathe)
    return run


def build_step(
    prepared: Prepared, trunk_folder: Path, peers: Peers
) -> tuple[TrainStep, ActivationCache | None]:
    """Return what takes the steps of a run, and the cache it may feed on."""
    config, speed = prepared.config, prepared.speed
    content = f"{prepared.loaded.fingerprint} {versions()} {config.float32}"
    trunk = build_trunk(config, speed, prepared.model, content, trunk_folder)
    step = TrainStep(
        prepared.model,
        build_optimizer(config),
        objective(config),
        speed.train,
        max_grad_norm=config.max_grad_norm,
        compiled=speed.compiled,
        feed=trunk.feed if trunk and speed.train.cut else own_arrays,
        peers=peers,
    )
    return step, trunk


def start_peers(run: TrainingRun) -> None:
    """Let the other processes know where the run lies, and have all begin with the same state."""
    folder = run.directory.path
    run.peers.watch.last_lines = lambda rank: last_lines(log_in(folder, rank))
    run.peers.order("place", folder=str(folder), host=run.peers.hosts[0])
    run.peers.order("begin")
    copy_optimizer(run.step.optimizer, run.peers)
    run.peers.watch.expect_movement()


def start(run: TrainingRun, report: RunListener | None) -> None:
    """Announce a new run, measure it before the first step, and save that."""
    _announce(run, resumed_from=0)
    start_peers(run)
    run.heartbeat.beat("running", 0)
    if warning := _prefix_warning(run):
        run.emit(events.NoteLogged("warning", warning))
    say = phases(report.progress if report else None)
    if run.valid:
        pairs = sum(batch.pairs for batch in run.valid)
        say(f"first evaluation, {counted(pairs, 'pair')}")
    run.evaluate()
    if run.prepared.samples:
        say("first answers to held-out prompts")
    run.sample()
    run.save()


def _prefix_warning(run: TrainingRun) -> str:
    """Say if what all rows begin with, such as a template's header, makes most of the loss."""
    pairs = run.prepared.data.train
    columns = zip(*(pair.prompt for pair in pairs), strict=False)
    prefix = [column[0] for column in takewhile(lambda column: len({*column}) == 1, columns)]
    if run.config.nll_scope != "full" or len(prefix) < 2:
        return ""
    tried = [*pairs[:8], TokenPair(prefix[:-1], prefix[-1:], prefix[-1:])]
    scoring = Scoring(Plain(), "full")
    with evaluating(run.prepared.model):
        scores = scoring.score(run.prepared.model, scoring.build(tried, range(len(tried))).arrays)
    *rows, same = np.array(scores.nll_sum).tolist()
    share = same * len(rows) / sum(rows)
    if share < 0.5:
        return ""
    return (
        f"all rows begin with the same {len(prefix)} tokens, which make {share:.0%} of the loss "
        "now; with --nll-scope response answers alone are learned"
    )


def take_up(run: TrainingRun, found: FoundCheckpoint, report: RunListener | None) -> None:
    """Restore a checkpoint into the freshly prepared run, which has its adapter already."""
    for file in (run.directory.evaluation_file, run.directory.report_file):
        file.unlink(missing_ok=True)  # of an adapter that will not be the result
    load_optimizer(found.path, run.step.optimizer)
    run.progress = read_progress(found.path)
    run.last_checkpoint = found.path
    run.saved_seconds = run.progress.seconds
    past = _past_events(run)
    drifts = [event for event in past if isinstance(event, events.DriftMeasured)]
    run.drift = drifts[-1].kl_per_token if drifts else 0.0
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
    if changed := _changed_processes(found.manifest, run.peers.size):
        run.emit(events.NoteLogged("warning", changed))
    run.emit(events.Resumed(run.progress.step, new_process=True))
    start_peers(run)
    run.heartbeat.beat("running", run.progress.step)


def _changed_versions(manifest: dict[str, Any]) -> str:
    """Say which versions differ from those the checkpoint was made with, "" if none do."""
    old, new = manifest.get("versions", {}), versions()
    changed = [f"{n} {old.get(n)} is now {new[n]}" for n in new if old.get(n) != new[n]]
    if not changed:
        return ""
    return f"{', '.join(changed)}: the run goes on, but no longer to the same bytes"


def _changed_processes(manifest: dict[str, Any], size: int) -> str:
    """Say if the checkpoint was made by another number of processes, "" if not."""
    before = manifest.get("processes", 1)
    if before == size:
        return ""
    text = f"{counted(before, 'process', 'processes')} made the checkpoint, now there "
    text += f"{'is' if size == 1 else 'are'} {size}"
    return f"{text}: the run goes on, but no longer to the same bytes"


def _past_events(run: TrainingRun) -> list[events.Event]:
    """Return what the run said up to its checkpoint; what was measured later is void."""
    past = [record.event for record in events.read_events(run.directory.events_file)]
    return valid_events([*past, events.Resumed(run.progress.step, new_process=True)])


def _announce(run: TrainingRun, resumed_from: int) -> None:
    prepared, data = run.prepared, run.prepared.data
    trainable, total = count_parameters(prepared.model)
    each = prepared.plan.estimate.total + exchange_memory(trainable, run.peers.size)
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
            objective=run.step.objective.name,
            metrics=list(run.step.objective.metrics),
            scoring=prepared.scoring.way.name,
            float32_error=prepared.product_error,
            is_compiled=prepared.speed.compiled,
            trunk_blocks=prepared.speed.cut,
            resumed_from_step=resumed_from,
            run_path=str(run.directory.path),
            estimated_peak_bytes=each,
            available_bytes=prepared.available_bytes,
            grad_checkpoint_every=prepared.plan.savings.recompute_every,
            head_chunk=prepared.scoring.chunk,
            cache_limit_bytes=run.limits.cache,
            memory_limit_bytes=run.limits.active,
            cadence=asdict(prepared.cadence),
            checkpoint_bytes=checkpoint_bytes(run.config, trainable),
            hosts=run.peers.hosts if run.peers.size > 1 else [],
        )
    )
    run.emit(data_event(prepared))
    for fact in (*data.facts, *prepared.speed.facts):
        run.emit(events.NoteLogged("info", fact))
    if prepared.scoring.rates and run.config.sample_prompts and data.valid:
        text = "a reward model writes no answers: there are no samples, and drift is not measured"
        run.emit(events.NoteLogged("info", text))
    for note in start_notes(prepared):
        run.emit(events.NoteLogged("warning", note))
    hosts = run.peers.hosts
    crowd = _crowd_note(each, prepared.available_bytes, hosts.count(hosts[0]))
    for note in (_idle_note(prepared, len(hosts)), crowd):
        if note:
            run.emit(events.NoteLogged("warning", note))


def _crowd_note(each: int, there: int, here: int) -> str:
    """Say if the processes of this machine need more bytes together than it has, "" if not."""
    if here == 1 or here * each <= there:
        return ""
    return (
        f"{here} processes here need about {format_bytes(each)} each, and {format_bytes(there)} "
        "are there for all: fewer of them would not swap"
    )


def _idle_note(prepared: Prepared, size: int) -> str:
    """Say if there are more processes than micro-batches, "" if not."""
    config = prepared.config
    count = len(step_batches(prepared, 1))
    if count >= size:
        return ""
    parts = -(-size // max(1, count // config.micro_batch_parts))
    return (
        f"{size - count} of {size} processes have nothing to do: a step has "
        f"{counted(count, 'micro-batch', 'micro-batches')}; --micro-batch-parts {parts} divides it"
    )


def start_notes(prepared: Prepared) -> list[str]:
    """Return what the user should know before the first step."""
    notes = list(prepared.notes)
    if (parts := prepared.config.micro_batch_parts) > 1:
        masks = ", and dropout draws other masks" if prepared.config.dropout else ""
        notes.append(
            f"each forward pass of a step is divided into {parts} (--micro-batch-parts): the "
            f"gradient is the same up to rounding, the bytes of the adapter are not{masks}"
        )
    lengths = [pair.longest for pair in prepared.data.train]
    if beyond := _beyond_note(lengths, context_length(prepared.loaded.config)):
        notes.append(beyond)
    warm, total = warmup_steps(prepared.config, prepared.total_steps), prepared.total_steps
    if warm >= total:
        notes.append(
            f"the warm-up takes {warm} steps and the run has {total}: the full learning rate is "
            "reached at the end or never; lower --warmup"
        )
    return notes


def _beyond_note(lengths: Sequence[int], context: int | None) -> str:
    """Say how many pairs, of these tokens, are longer than the model's context, "" if none."""
    beyond = sum(length > context for length in lengths) if context else 0
    if not beyond:
        return ""
    return (
        f"{beyond} of {counted(len(lengths), 'pair')} are longer than the model's context of "
        f"{context} tokens, up to {max(lengths)}: it has not learned to read beyond it; "
        f"--max-seq-length {context} cuts prompts to fit"
    )


def data_event(prepared: Prepared) -> events.DataPrepared:
    """Say what became of the rows, and show the first pair as the model sees it."""
    data = prepared.data
    return events.DataPrepared(
        read=data.account.read,
        kept=data.account.kept,
        dropped=data.account.dropped,
        noted=data.account.noted,
        layout=data.layout,
        token_percentiles=token_percentiles(data.train),
        first_pair=decode_pair(data.train[0], prepared.tokenizer),
        nll_scope=prepared.scoring.nll_scope,
    )
