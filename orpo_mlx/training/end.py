"""How a run ends: its result is written, or the reason of its failure."""

from __future__ import annotations

import re
import shlex
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orpo_mlx.errors import OrpoError, PeerError, PeerLostError, TrainingError
from orpo_mlx.runs import events
from orpo_mlx.runs.faults import explain, kind_of
from orpo_mlx.text.formatting import format_duration
from orpo_mlx.text.progress import OnProgress
from orpo_mlx.text.redaction import redacted

if TYPE_CHECKING:
    from orpo_mlx.evaluation.at_end import EndPlan, Trained
    from orpo_mlx.training.run import TrainingRun


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left behind.

    Attributes:
        reason: one of `events.DONE`, stopped or aborted.
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
        return 0 if self.reason in events.DONE else 130


def finish(run: TrainingRun, reason: str) -> TrainResult:
    """Save what must be saved and say how it ended; an abort leaves the last checkpoint."""
    import mlx.core as mx

    progress, adapter_path = run.progress, None
    if reason != "aborted":
        run.heartbeat.beat("stopping", progress.step)
        run.save()
        adapter_path = run.write_result()
    run.peers.close()
    done = reason in events.DONE
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
    if reason != "aborted":
        run.heartbeat.beat("stopping", progress.step)
        conclude(run)
    run.heartbeat.beat("completed" if done else "stopped", progress.step)
    return TrainResult(
        run.directory.path, adapter_path, reason, progress.step, run.before, run.after
    )


# Whether it has helped


class _CutShort(Exception):
    """The user wants the process to end now."""


def conclude(run: TrainingRun) -> None:
    """Compare the adapter with its base and tell of it; the run has ended well whatever comes."""
    from orpo_mlx.evaluation.at_end import too_few

    config = run.config
    if not config.evaluate or not run.prepared.data.valid:
        return
    trained = _trained(run)
    again = f"orpo-mlx evaluate {run.directory.argument} --save"
    try:
        if why := too_few(trained):
            run.emit(events.NoteLogged("info", why))
            return
        _evaluate(run, trained)
    except (_CutShort, KeyboardInterrupt):
        text = f"base and adapter were not compared: ended as asked; `{again}` does it"
        run.emit(events.NoteLogged("info", text))
    except Exception as error:
        fault = error.message if isinstance(error, OrpoError) else str(error)
        text = (
            f"base and adapter could not be compared: {fault}; the run itself is whole, "
            f"`{again}` tries it again"
        )
        with suppress(OSError):
            run.emit(events.NoteLogged("warning", text))


def _trained(run: TrainingRun) -> Trained:
    from orpo_mlx.evaluation.at_end import Trained

    prepared = run.prepared
    rates = prepared.scoring.rates
    return Trained(
        run.directory, run.config, prepared.folder,
        prepared.loaded, prepared.data,
        prepared.scoring if rates else replace(prepared.scoring, nll_scope="response"),
        run.progress.seconds,
    )  # fmt: skip


def _evaluate(run: TrainingRun, trained: Trained) -> None:
    from orpo_mlx.evaluation.at_end import evaluate_trained

    was_stopped, started = run.signals.stop, time.perf_counter()

    def between(*_: object) -> None:
        asked = [request.name for request in run.inbox.poll()]
        if run.signals.abort or run.signals.stop > was_stopped or {"stop", "abort"} & {*asked}:
            raise _CutShort
        run.heartbeat.beat("stopping", run.progress.step)

    plan = _planned(run, trained, between)
    content = evaluate_trained(trained, plan, between)
    drift = content["drift"]
    run.emit(
        events.RunEvaluated(
            step=run.progress.step,
            verdict=content["verdict"]["text"],
            pairs=content["counts"]["pairs"],
            available=content["counts"]["available"],
            seconds=time.perf_counter() - started,
            path=str(run.directory.evaluation_file),
            report=str(run.directory.report_file),
            kl_per_token=drift["kl_per_token"]["adapter"]["value"] if drift else None,
        )
    )


def _planned(run: TrainingRun, trained: Trained, between: OnProgress) -> EndPlan:
    """Find out how much is evaluated; what takes time is told of before, and as events, which the
    app and programs read too."""
    from orpo_mlx.evaluation.at_end import plan_evaluation

    first = "timing held-out pairs, to see how many can tell whether it has helped"
    run.emit(events.NoteLogged("info", first))
    plan = plan_evaluation(trained, between)
    doing = "rating" if trained.scoring.rates else "comparing base and adapter on"
    text = (
        f"{doing} {plan.pairs} of {len(trained.data.valid)} held-out pairs, "
        f"about {format_duration(plan.seconds)}; Ctrl-C or a request to stop ends it"
    )
    run.emit(events.NoteLogged("info", text))
    return plan


# When it fails


def fail(run: TrainingRun, error: BaseException) -> BaseException:
    """Record why the run ended; returns the error the caller should see."""
    if isinstance(error, PeerLostError):
        error = _saved(run, error)
    if isinstance(error, KeyboardInterrupt):
        raised: BaseException = error
        message, advice = "interrupted three times", "Resume from the last checkpoint."
    elif isinstance(error, OrpoError):
        raised, message, advice = error, error.message, error.what_to_do
    else:
        fault = explain(str(error))
        meaning = fault.meaning if fault else "something unexpected happened"
        advice = (
            fault.advice
            if fault
            else "Resume from the last checkpoint; the whole traceback is in train.log."
        )
        message = f"{meaning} at step {run.progress.step + 1} ({type(error).__name__}: {error})"
        raised = TrainingError(message, advice)
    last = str(run.last_checkpoint) if run.last_checkpoint else None
    if last is None and "esume" in advice:
        advice = _without_resuming(advice, run.directory.config_file)
        if isinstance(raised, OrpoError):
            raised = raised.advising(advice)
    # On a full disk nothing can be recorded; the caller still hears of it.
    with suppress(OSError):
        with run.directory.log_file.open("a", encoding="utf-8") as log:
            log.write(redacted("".join(traceback.format_exception(error))))
        step, kind = run.progress.step, kind_of(error)
        peer = (error.rank, error.last_lines) if isinstance(error, PeerError) else (None, "")
        run.emit(events.RunFailed(type(error).__name__, message, advice, step, last, kind, *peer))
    run.heartbeat.beat("failed", run.progress.step)
    return raised


def _saved(run: TrainingRun, error: PeerLostError) -> OrpoError:
    """Save what was computed before a peer was lost, and say how to go on from it.

    Not where this process itself hangs: its arrays may be those of half a step.
    """
    try:
        if error.rank != run.peers.rank:
            run.save()
    except OrpoError as full:
        return full
    words = ["orpo-mlx", "resume", str(run.directory.argument)]
    advice = f"See to that machine, then `{shlex.join(words)} --processes {run.peers.size}` or the "
    advice += "same mlx.launch goes on, as without --processes this machine alone does."
    return error.advising(advice)


def _without_resuming(advice: str, config_file: Path) -> str:
    """Return advice for a run that saved nothing: there is nothing to resume."""
    said = re.sub(r"\b([Rr])esume( from the last checkpoint)?\b", _start_again, advice)
    return f"{said} Nothing was saved yet; `orpo-mlx train --config {config_file}` begins anew."


def _start_again(found: re.Match[str]) -> str:
    return "Start again" if found[1] == "R" else "start again"
