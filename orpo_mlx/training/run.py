"""A training run in progress: what the loop needs at hand, and what it does once in a while."""

from __future__ import annotations

import math
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.files import load_adapter_into, save_adapter
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.prefetch import Prefetch
from orpo_mlx.distributed.allotment import loads_of
from orpo_mlx.distributed.peers import ALONE, Peers
from orpo_mlx.errors import NotFiniteError, TrainingError, reason_of
from orpo_mlx.evaluation.drift_course import CHEAP, DriftCourse
from orpo_mlx.generation.greedy import answer
from orpo_mlx.runs import events
from orpo_mlx.runs.checkpoints import Progress, checkpoint_path, damage, prune
from orpo_mlx.runs.control import Inbox, SignalFlags
from orpo_mlx.runs.directory import Heartbeat, RunDirectory
from orpo_mlx.runs.metrics import metric
from orpo_mlx.scoring.activation_cache import ActivationCache
from orpo_mlx.scoring.base import MicroBatch, own_arrays
from orpo_mlx.training.checkpoint import replace_folder, save_checkpoint
from orpo_mlx.training.device_memory import MemoryLimits, process_bytes
from orpo_mlx.training.preparation.adapted import digest_of_adapter
from orpo_mlx.training.preparation.objective import best_metric
from orpo_mlx.training.prepare import Prepared
from orpo_mlx.training.step import StepResult, TrainStep, evaluate


class Aborted(Exception):
    """The user wants the run to end now, without finishing what it is at."""


@dataclass
class TrainingRun:
    """Everything at hand between two steps; `progress` is all of it that a checkpoint must keep.

    Attributes:
        emit: writes an event; the run tells the world nothing by other ways.
        batches: those of each step, the next one made while a step is computed.
        trunk: what the blocks below the adapter made, None if it is not kept.
        peers: the other processes, which do their share when they are told to.
        before, after: the first and the last evaluation.
    """

    directory: RunDirectory
    prepared: Prepared
    emit: Callable[[events.Event], None]
    step: TrainStep
    inbox: Inbox
    signals: SignalFlags
    heartbeat: Heartbeat
    valid: list[MicroBatch]
    batches: Prefetch[list[MicroBatch]]
    trunk: ActivationCache | None = None
    peers: Peers = ALONE
    progress: Progress = field(default_factory=Progress)
    before: events.EvalCompleted | None = None
    after: events.EvalCompleted | None = None
    last_checkpoint: Path | None = None
    saved_seconds: float = 0.0
    """Of work, when the last checkpoint was made."""
    timed: list[tuple[int, int, float]] = field(default_factory=list)
    """(pairs, tokens, seconds) of the steps this process took since the last report."""
    peer_tokens: list[int] = field(default_factory=list)
    """Of the same steps, by process; [] for a run of one."""
    drift_course: DriftCourse | None = None
    drift: float = 0.0
    """The last one measured, in nats per token."""
    limits: MemoryLimits = field(default_factory=MemoryLimits)
    peak_process_bytes: int = 0

    @property
    def config(self) -> TrainConfig:
        """The run's settings."""
        return self.prepared.config

    @property
    def anew_command(self) -> str:
        """A new run with a lower rate, from the adapter saved last: the same run meets the same."""
        words = ["orpo-mlx", "train", "--config", str(self.directory.config_file)]
        if self.last_checkpoint:
            words += ["--init-adapter", str(self.last_checkpoint)]
        words += ["--learning-rate", f"{self.config.learning_rate / 2:g}"]
        return f"`{shlex.join(words)}` begins anew" + (
            f" after step {int(self.last_checkpoint.name)}" if self.last_checkpoint else ""
        )

    @property
    def unsaved_seconds(self) -> float:
        """Work since the last checkpoint."""
        return self.progress.seconds - self.saved_seconds

    def count_step(self, result: StepResult, batches: Sequence[MicroBatch], seconds: float) -> None:
        """Add a finished step to what has been done."""
        progress = self.progress
        pairs, tokens = sum(b.pairs for b in batches), sum(b.tokens for b in batches)
        progress.step += 1
        progress.pairs += pairs
        progress.tokens += tokens
        progress.seconds += seconds
        progress.unreported.append([float(v) if math.isfinite(v) else None for v in result.metrics])
        self.timed.append((pairs, tokens, seconds))
        if (size := self.peers.size) > 1:
            loads = loads_of([batch.tokens for batch in batches], size)
            before = self.peer_tokens or [0] * size
            self.peer_tokens = [load + known for load, known in zip(loads, before, strict=True)]

    def report_step(self, rate: float, grad_norm: float) -> None:
        """Emit the means over the steps since the last report."""
        progress = self.progress
        means = _means(progress.unreported)
        self.look_at_process()
        pairs, tokens, seconds = (sum(column) for column in zip(*self.timed, strict=True))
        waited, exchanged = self.peers.take_times()
        self.emit(
            events.StepCompleted(
                self._named(means),
                step=progress.step,
                epoch=progress.step / self.prepared.steps_per_epoch,
                learning_rate=rate,
                grad_norm=grad_norm,
                pairs=progress.pairs,
                tokens=progress.tokens,
                pairs_per_second=pairs / seconds,
                tokens_per_second=tokens / seconds,
                step_seconds=seconds / len(self.timed),
                active_memory_bytes=mx.get_active_memory(),
                peak_memory_bytes=mx.get_peak_memory(),
                process_bytes=process_bytes(),
                batch_shapes=len(self.step.shapes),
                peer_tokens=self.peer_tokens,
                wait_seconds=waited / len(self.timed),
                exchange_seconds=exchanged / len(self.timed),
                **self.trunk_counts(),
            )
        )
        self.tell_trunk_problems()
        progress.unreported.clear()
        self.timed.clear()
        self.peer_tokens = []

    def _named(self, measured: Sequence[float] | np.ndarray) -> dict[str, float]:
        """Return metrics, in the order of the objective's, by their names.

        NaN is what there was nothing of to measure; the loss is always there.
        """
        both = zip(self.step.objective.metrics, map(float, measured), strict=True)
        return {name: value for name, value in both if name == "loss" or not math.isnan(value)}

    def look_at_process(self) -> int:
        """Return the most memory the process was seen to hold so far, in bytes."""
        self.peak_process_bytes = max(self.peak_process_bytes, process_bytes())
        return self.peak_process_bytes

    def trunk_counts(self) -> dict[str, int]:
        """Return what the trunk cache did in this process, for an event."""
        if self.trunk is None:
            return {}
        trunk = self.trunk
        return {
            "trunk_hits": trunk.hits, "trunk_misses": trunk.misses,
            "trunk_bytes": trunk.store.bytes,
        }  # fmt: skip

    def tell_trunk_problems(self) -> None:
        """Say once what went wrong with the trunk cache, or that it is full."""
        problems = self.trunk.take_problems() if self.trunk else []
        for problem in problems:
            self.emit(events.NoteLogged("warning", problem))

    def drop_trunk(self) -> None:
        """Delete what the trunk cache left in the run's folder; a folder of the user's stays."""
        folder = self.directory.trunk_folder
        try:
            if folder.is_dir():
                shutil.rmtree(folder)
        except OSError as error:
            text = f"the trunk cache in {folder} was not deleted: {error}"
            self.emit(events.NoteLogged("warning", text))

    def breathe(self) -> None:
        """Show life and look for an abort in the middle of something long.

        Raises:
            Aborted: a second SIGINT came.
        """
        if self.signals.abort:
            raise Aborted
        self.peers.watch.mark("evaluating, or answering prompts")
        self.heartbeat.beat("running", self.progress.step)

    def evaluate(self) -> bool:
        """Measure the validation pairs; returns whether this is the best evaluation so far."""
        if not self.valid:
            return False
        progress, best = self.progress, best_metric(self.config, self.step.objective.metrics)
        started = time.perf_counter()
        self.peers.order("evaluate")
        measured = evaluate(
            self.prepared.model, self.valid, self.step.objective, self.prepared.speed.valid,
            self.breathe,
            self.trunk.feed if self.trunk and self.prepared.speed.valid.cut else own_arrays,
            self.peers,
        )  # fmt: skip
        self.peers.take_times()  # those of steps are reported
        values = self._named(measured)
        _require_finite(values, progress.step, self.anew_command)
        value = values.get(best, math.nan)  # answers with one label alone have no margin
        score = -value if metric(best).better == "lower" else value
        is_best = score > (-math.inf if progress.best_value is None else progress.best_value)
        if is_best:
            progress.best_value, progress.best_step = score, progress.step
        progress.evals_since_best = 0 if is_best else progress.evals_since_best + 1
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        event = events.EvalCompleted(
            values,
            step=progress.step,
            pairs=sum(batch.pairs for batch in self.valid),
            seconds=seconds,
            is_best=is_best,
        )
        self.before, self.after = self.before or event, event
        self.emit(event)
        return is_best

    def measure_drift(self) -> None:
        """Say how far the adapter has moved the model on neutral prompts, unless it costs much."""
        progress, course = self.progress, self.drift_course
        if course is None or not self._is_drift_wanted(course):
            return
        started = time.perf_counter()
        try:
            found = course.measure()
        except OSError as error:
            raise TrainingError(
                f"the answers that drift is measured by could not be kept: {error}",
                "Free some space on that disk, then resume, or give --drift-every 0.",
            ) from error
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        self.drift = found.value
        self.emit(
            events.DriftMeasured(
                progress.step, found.value, found.low, found.high, course.prompts, seconds
            )
        )

    def _is_drift_wanted(self, course: DriftCourse) -> bool:
        """Tell whether drift is asked for, or cheap; without it being asked for decided once."""
        cadence, progress, total = self.prepared.cadence, self.progress, self.prepared.total_steps
        if not cadence.drift_if_cheap or course.file.exists():
            return True
        cost = course.cost(progress.seconds / progress.step * total, -(-total // cadence.drift))
        if cost <= CHEAP:
            return True
        self.drift_course = None
        if cost < 1:
            text = f"drift is left out: it would take {cost:.0%} of the time; --drift-every N asks"
            self.emit(events.NoteLogged("info", text))
        return False

    def sample(self) -> None:
        """Answer the held-out prompts with the adapter as it is now."""
        model, tokenizer = self.prepared.model, self.prepared.tokenizer
        for index, (question, prompt) in enumerate(self.prepared.samples):
            text = answer(model, tokenizer, prompt, self.config.sample_tokens, self.breathe)
            self.emit(
                events.SampleGenerated(
                    step=self.progress.step,
                    prompt=question.user,
                    response=text,
                    index=index,
                    system=question.system,
                )
            )

    def save(self) -> None:
        """Checkpoint the run as it is between two steps.

        Raises:
            TrainingError: it could not be written; older checkpoints are untouched.
        """
        progress, folder = self.progress, self.directory.checkpoints_folder
        if self.last_checkpoint and int(self.last_checkpoint.name) == progress.step:
            return
        self.require_agreement()
        started = time.perf_counter()
        try:
            path = save_checkpoint(
                folder, progress, self.step.optimizer, self.write_adapter, self.prepared.identity
            )
        except (OSError, RuntimeError) as error:
            kept = self.last_checkpoint or "none was saved yet"
            raise TrainingError(
                f"the checkpoint of step {progress.step} could not be saved: {reason_of(error)}",
                f"Free some space on that disk, then resume; the last checkpoint is whole: {kept}.",
            ) from error
        self.last_checkpoint = path
        size = sum(file.stat().st_size for file in path.iterdir())
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        self.saved_seconds = progress.seconds
        self.emit(events.CheckpointSaved(progress.step, str(path), seconds, size))
        try:
            prune(folder, self.config.keep_checkpoints, progress.best_step)
        except OSError as error:
            self.emit(
                events.NoteLogged(
                    "warning", f"an old checkpoint was not deleted: {reason_of(error)}"
                )
            )

    def require_agreement(self) -> None:
        """Have all processes look whether they hold the same adapter; lost ones are not asked.

        Raises:
            PeerRefusedError: one of them holds another.
        """
        if self.peers.size == 1 or self.peers.watch.is_broken:
            return
        self.peers.order("compare", step=self.progress.step)
        self.peers.agree(adapter_facts(self.prepared.model, self.progress.step))

    def write_result(self) -> Path:
        """Put the last adapter, or with `keep_best` the best one, into the run's `adapter/`."""
        best = self.progress.best_step
        if self.config.keep_best and best is not None and best != self.progress.step:
            best_path = checkpoint_path(self.directory.checkpoints_folder, best)
            if reason := damage(best_path):
                text = (
                    f"the best checkpoint {best_path} is not used: {reason}; adapter/ is the last"
                )
                self.emit(events.NoteLogged("warning", text))
            else:
                load_adapter_into(self.prepared.model, best_path, self.prepared.loaded.fingerprint)
        target = self.directory.adapter_folder
        replace_folder(target, self.write_adapter)
        return target

    def write_adapter(self, folder: Path) -> None:
        """Write the adapter as it is now, in mlx-lm's format."""
        prepared = self.prepared
        save_adapter(
            prepared.model,
            prepared.spec,
            folder,
            base_model=prepared.folder.name,
            base_fingerprint=prepared.loaded.fingerprint,
        )


def adapter_facts(model: Any, step: int) -> dict[str, Any]:
    """Return what all processes of a run must hold after a step."""
    return {f"adapter after step {step}": digest_of_adapter(model)}


def _means(steps: Sequence[Sequence[float | None]]) -> list[float]:
    """Return the mean of each metric over the steps that have it, NaN if none has."""
    columns = zip(*steps, strict=True)
    found = [[value for value in column if value is not None] for column in columns]
    return [float(np.mean(values)) if values else math.nan for values in found]


def _require_finite(values: Mapping[Any, float], step: int, anew: str) -> None:
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise NotFiniteError(
            f"the evaluation at step {step} is not finite ({', '.join(bad)})",
            f"Lower --learning-rate or --lam: {anew}.",
        )
