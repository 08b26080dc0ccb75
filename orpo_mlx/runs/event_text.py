"""Events as lines of text, without colours or control codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orpo_mlx.errors import with_last_lines
from orpo_mlx.runs.events import (
    CheckpointSaved,
    DataPrepared,
    DriftMeasured,
    EvalCompleted,
    Event,
    NoteLogged,
    Paused,
    Resumed,
    RunEvaluated,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
)
from orpo_mlx.runs.metrics import Metric, metric, shown
from orpo_mlx.runs.peers.hosts import hosts_text
from orpo_mlx.text.formatting import (
    counted,
    excerpt,
    format_bytes,
    format_count,
    format_duration,
    visible,
)

WIDTH = 80
"""Columns where no terminal says otherwise."""


def plain_lines(event: Event, *, width: int = WIDTH, total_steps: int = 0) -> list[str]:
    """Return an event as lines of text without control codes.

    Args:
        event: any event.
        width: columns to stay within where that loses nothing (paths are never broken).
        total_steps: of the run, 0 if unknown.
    """
    match event:
        case RunStarted():
            return _start_lines(event)
        case DataPrepared():
            return _data_lines(event, width)
        case StepCompleted():
            return [step_line(event, width=width, total_steps=total_steps)]
        case EvalCompleted():
            return [eval_line(event)]
        case DriftMeasured():
            return [drift_line(event)]
        case SampleGenerated():
            return _sample_lines(event, width)
        case CheckpointSaved():
            size, took = format_bytes(event.bytes), format_duration(event.seconds)
            return [f"checkpoint at step {event.step}: {size} in {took}, {event.path}"]
        case NoteLogged():
            first, *more = visible(event.text).split("\n")
            return [f"{_NOTE_WORDS.get(event.level, event.level)}: {first}", *more]
        case Paused():
            return [f"paused at step {event.step}; memory is kept"]
        case Resumed():
            how = "taken up again after" if event.new_process else "goes on after"
            return [f"{how} step {event.step}"]
        case RunFinished():
            return [end_line(event)]
        case RunFailed():
            return _failure_lines(event)
        case RunEvaluated():
            return evaluated_lines(event)


_NOTE_WORDS = {"info": "note", "warning": "warning"}


def _start_lines(event: RunStarted) -> list[str]:
    share = event.trainable_parameters / event.total_parameters if event.total_parameters else 0
    trained = format_count(event.trainable_parameters)
    resumed = f", resumed after step {event.resumed_from_step}" if event.resumed_from_step else ""
    pairs = counted(event.pairs_train, "training pair")
    return [
        f"run     {visible(event.run_id)}",
        f"model   {visible(event.model)}",
        f"adapter {trained} of {format_count(event.total_parameters)} parameters "
        f"are trained ({share * 100:.2f} %)",
        f"data    {visible(event.data)}",
        f"plan    {counted(event.total_steps, 'step')} over {pairs}, "
        f"{event.pairs_valid} for validation{resumed}",
        *([f"shared  by {hosts_text(event.hosts)}"] if event.hosts else []),
        *([cadence_line(event.cadence, event.total_steps, event.checkpoint_bytes)]
          if event.cadence.keys() >= _CADENCE else []),
        *([f"float32 {event.config.get('float32', 'exact')}: products have a relative error of "
           f"{event.float32_error:.0e}"] if event.float32_error else []),
        *(["step    compiled, once for each shape of a batch"] if event.is_compiled else []),
    ]  # fmt: skip


_CADENCE = {"report", "evaluate", "save", "reports_slow", "saves_by_time"}


def cadence_line(cadence: Mapping[str, int], steps: int, checkpoint_bytes: int) -> str:
    """Say how often a run is evaluated, saved and reported.

    Args:
        cadence: as in `RunStarted.cadence`.
        steps: of the run.
        checkpoint_bytes: of each checkpoint.
    """
    clock = " or 10 min" if cadence["saves_by_time"] else ""
    slow = ", and each slow one" if cadence["reports_slow"] and cadence["report"] > 1 else ""
    size = f", {format_bytes(checkpoint_bytes)} each" if checkpoint_bytes else ""
    return (
        f"often   evaluated {_how_often(cadence['evaluate'], steps)}; "
        f"saved {_how_often(cadence['save'], steps, clock)}{size}; "
        f"every {counted(cadence['report'], 'step').removeprefix('1 ')} shown{slow}"
        + _drift_words(cadence, steps)
    )


def _drift_words(cadence: Mapping[str, int], steps: int) -> str:
    every = cadence.get("drift", 0)
    if not every:
        return ""
    if cadence.get("drift_if_cheap"):
        return "; drift at evaluations if cheap"
    return f"; drift each {counted(every, 'step').removeprefix('1 ')} ({-(-steps // every)} times)"


def _how_often(every: int, steps: int, clock: str = "") -> str:
    if not every:
        return f"at start and end{clock.replace(' or', ' and each')}"
    # The last step counts whether or not it is a whole number of times.
    times = 1 + -(-steps // every)
    return f"each {counted(every, 'step').removeprefix('1 ')}{clock} ({times} times)"


def _data_lines(event: DataPrepared, width: int) -> list[str]:
    lines = [
        f"rows    {event.read} read, {event.kept} kept, {sum(event.dropped.values())} dropped"
        + (f"; format: {visible(event.layout)}" if event.layout else "")
    ]
    lines += _reasons("dropped", event.dropped) + _reasons("kept, but", event.noted)
    if event.token_percentiles:
        lines.append(_token_line(event.token_percentiles))
    if event.first_pair:
        full = "responses are scored, in the NLL the prompt, too"
        scored = full if event.nll_scope == "full" else "only the responses are scored"
        lines.append(f"first pair ({scored}):")
        lines += _pair_lines(event.first_pair, width)
    return lines


def _token_line(percentiles: dict[str, int]) -> str:
    """Return "tokens  prompt 14/19/21, ..." from prompt_p50, prompt_p95, prompt_max, ..."""
    sides = [name.removesuffix("_p50") for name in percentiles if name.endswith("_p50")]
    ends = ("p50", "p95", "max")
    if {f"{side}_{end}" for side in sides for end in ends} != set(percentiles):
        return "tokens  " + ", ".join(f"{name} {count}" for name, count in percentiles.items())
    sizes = [f"{s} " + "/".join(str(percentiles[f"{s}_{end}"]) for end in ends) for s in sides]
    return f"tokens  {', '.join(sizes)} (median/95 %/longest)"


def _reasons(verb: str, counts: dict[str, int]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"        {count:>5} {verb}: {visible(reason)}" for reason, count in ordered]


def _pair_lines(pair: dict[str, Any], width: int) -> list[str]:
    lines = []
    for name, max_lines, keep_end in (
        ("prompt", 5, True), ("chosen", 5, False), ("rejected", 5, False), ("good", 5, False),
        ("bad", 5, False),
    ):  # fmt: skip
        if name in pair:
            lines += excerpt(name, str(pair[name]), width, max_lines, keep_end)
    return lines


def step_line(
    event: StepCompleted, *, width: int = WIDTH, total_steps: int = 0, seconds_left: float = 0.0
) -> str:
    """Return a step's numbers on one line; what does not fit into the width is left out."""
    total = str(total_steps) if total_steps else ""
    line = f"step {event.step:>{len(total) or 1}}" + (f"/{total}" if total else "")
    parts = [
        *_said(event),
        f"{event.tokens_per_second:.0f} tok/s",
        f"left {format_duration(seconds_left)}" if seconds_left else "",
        format_bytes(event.peak_memory_bytes) if event.peak_memory_bytes else "",
        _lost_to_others(event),
        *(
            _one(row, event)
            for row in [metric("response_nll"), metric("nll_loss")]
            if row.name in event.metrics
        ),
        f"lr {event.learning_rate:.1e}",
    ]
    for part in filter(None, parts):
        if len(line) + 2 + len(part) <= width:
            line += "  " + part
    return line


def _lost_to_others(event: StepCompleted) -> str:
    """Return which part of a step went to waiting for the slowest process and to the network."""
    if not event.peer_tokens or not event.step_seconds:
        return ""
    parts = (event.wait_seconds, event.exchange_seconds)
    wait, net = (f"{seconds / event.step_seconds * 100:.0f} %" for seconds in parts)
    return f"wait {wait}  net {net}"


def eval_line(event: EvalCompleted) -> str:
    """Return an evaluation's numbers on one line."""
    best = ", the best so far" if event.is_best and event.step else ""
    return f"validation at step {event.step}: {', '.join(_said(event))}{best}"


def _said(event: StepCompleted | EvalCompleted) -> list[str]:
    return [_one(row, event) for row in shown(event.metrics, _USUAL)]


_USUAL = ("loss", "preference_accuracy", "logps_margin")


def _one(row: Metric, event: StepCompleted | EvalCompleted) -> str:
    value = event.value(row.name)
    digits = 2 if row.format.startswith("+") else 4
    return f"{row.short} {row.brief(value, digits)}".replace("%", " %")


def _sample_lines(event: SampleGenerated, width: int) -> list[str]:
    return [
        f"sample {event.index + 1} at step {event.step}:",
        *excerpt("prompt", event.prompt, width, 3, keep_end=True),
        *excerpt("answer", event.response, width, 8, keep_end=False),
    ]


_ENDS = {
    "completed": "completed",
    "early_stop": "stopped early: validation no longer improved",
    "drift": "stopped early: drift from the base is above --stop-drift",
    "stopped": "stopped as asked",
    "aborted": "aborted as asked",
}


def end_line(event: RunFinished) -> str:
    """Return how a run ended, on one line."""
    how = _ENDS.get(event.reason, event.reason)
    best = f"; best at step {event.best_step}" if event.best_step is not None else ""
    return f"{how} after step {event.step} in {format_duration(event.seconds)}{best}"


def _failure_lines(event: RunFailed) -> list[str]:
    saved = event.last_checkpoint or "none"
    said = with_last_lines(event.message, event.last_lines)
    return [
        f"failed at step {event.step}: {visible(said)}",
        f"last checkpoint: {saved}",
        *([visible(event.what_to_do)] if event.what_to_do else []),
    ]


def drift_line(event: DriftMeasured) -> str:
    """Return how far the model has moved, on one line."""
    return (
        f"drift at step {event.step}: {event.kl_per_token:.3f} nats per token from the base "
        f"({event.low:.3f} to {event.high:.3f})"
    )


def evaluated_lines(event: RunEvaluated) -> list[str]:
    """Return whether it helped, and where the numbers are."""
    of = f" of {event.available:,}" * (event.available > event.pairs)
    kl = event.kl_per_token
    drift = "" if kl is None else f"; drift from the base {kl:.3f} nats per token"
    took = format_duration(event.seconds)
    return [
        visible(event.verdict),
        f"measured on {event.pairs:,}{of} held-out pairs in {took}{drift}",
        f"report   {visible(event.report)}",
    ]


def slow_line(event: StepCompleted, slowness: float) -> str:
    """Return the warning that a step took `slowness` times the usual time."""
    return (
        f"warning: step {event.step} took {format_duration(event.step_seconds)}, "
        f"{slowness:.1f} times the usual; swapping or hot?"
    )
