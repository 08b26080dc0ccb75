"""Events, lists of runs and errors as lines of text, without colours or control codes.

Pure functions: nothing here prints. `report` does, with colour and a progress bar on a terminal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo_mlx.errors import OrpoError
from orpo_mlx.formatting import (
    counted,
    excerpt,
    format_bytes,
    format_count,
    format_duration,
    visible,
)
from orpo_mlx.runs.events import (
    CheckpointSaved,
    DataPrepared,
    EvalCompleted,
    Event,
    NoteLogged,
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
)
from orpo_mlx.runs.listing import RunSummary

if TYPE_CHECKING:
    from orpo_mlx.fit import Answer
    from orpo_mlx.fit_time import MeasuredTime
    from orpo_mlx.memory import Grid
    from orpo_mlx.verify import Check

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
    ]


def _data_lines(event: DataPrepared, width: int) -> list[str]:
    lines = [
        f"rows    {event.read} read, {event.kept} kept, {sum(event.dropped.values())} dropped"
        + (f"; format: {visible(event.layout)}" if event.layout else "")
    ]
    lines += _reasons("dropped", event.dropped) + _reasons("kept, but", event.noted)
    if event.token_percentiles:
        lines.append(_token_line(event.token_percentiles))
    if event.first_pair:
        lines.append("first pair (only the responses are scored):")
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
        ("prompt", 5, True), ("chosen", 5, False), ("rejected", 5, False),
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
        f"loss {event.loss:.4f}",
        f"acc {event.preference_accuracy * 100:.0f} %",
        f"margin {event.logps_margin:+.2f}",
        f"{event.tokens_per_second:.0f} tok/s",
        f"left {format_duration(seconds_left)}" if seconds_left else "",
        format_bytes(event.peak_memory_bytes) if event.peak_memory_bytes else "",
        f"nll {event.nll_loss:.4f}",
        f"lr {event.learning_rate:.1e}",
    ]
    for part in filter(None, parts):
        if len(line) + 2 + len(part) <= width:
            line += "  " + part
    return line


def eval_line(event: EvalCompleted) -> str:
    """Return an evaluation's numbers on one line."""
    best = ", the best so far" if event.is_best and event.step else ""
    return (
        f"validation at step {event.step}: loss {event.loss:.4f}, "
        f"acc {event.preference_accuracy * 100:.0f} %, margin {event.logps_margin:+.2f}{best}"
    )


def _sample_lines(event: SampleGenerated, width: int) -> list[str]:
    return [
        f"sample {event.index + 1} at step {event.step}:",
        *excerpt("prompt", event.prompt, width, 3, keep_end=True),
        *excerpt("answer", event.response, width, 8, keep_end=False),
    ]


_ENDS = {
    "completed": "completed",
    "early_stop": "stopped early: validation no longer improved",
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
    return [
        f"failed at step {event.step}: {visible(event.message)}",
        f"last checkpoint: {saved}",
        *([visible(event.what_to_do)] if event.what_to_do else []),
    ]


def slow_line(event: StepCompleted, slowness: float) -> str:
    """Return the warning that a step took `slowness` times the usual time."""
    return (
        f"warning: step {event.step} took {format_duration(event.step_seconds)}, "
        f"{slowness:.1f} times the usual; swapping or hot?"
    )


# Lists and errors


def runs_table(summaries: Sequence[RunSummary], width: int | None = None) -> list[str]:
    """Return runs as aligned lines, the newest first.

    Args:
        summaries: what `list_runs` returned.
        width: cut lines to this; None: never (a pipe).
    """
    rows = [("RUN", "STATUS", "STEP", "LOSS", "ACC", "STARTED", "MODEL")]
    rows += [_run_row(summary) for summary in summaries]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [
        line if width is None or len(line) <= width else line[: width - 1] + "…" for line in lines
    ]


_PARTS = {
    "weights": "frozen weights of the model",
    "adapter": "adapter, its gradients and the optimizer's moments",
    "activations": "what the layers keep for the backward pass",
    "attention": "what attention keeps for it",
    "head": "hidden states and a gradient per scored token",
    "at_work": "logits of a few chunks, or what a layer computes with",
    "margin": "for what was not foreseen",
    "cache": "outputs kept below the adapter (--trunk-cache memory)",
}


def fit_lines(found: Answer) -> list[str]:
    """Return an estimate as a table of its parts, a verdict, and settings that fit."""
    parts = {**found.estimate.parts(), "total": found.estimate.total}
    lines = [
        f"{name.replace('_', ' '):<12}{format_bytes(size):>9}  {_PARTS.get(name, '')}".rstrip()
        for name, size in parts.items()
        if size or name != "cache"
    ]
    needs, limit = format_bytes(found.estimate.total), format_bytes(found.limit)
    verdict = "fits" if found.fits else "does not fit"
    of = f"your {counted(found.pairs, 'pair')}" if found.pairs else "the longest pairs allowed"
    when = "an evaluation" if not found.estimate.activations else "a step"
    lines += ["", f"{verdict}: {needs} needed, {limit} available"]
    lines.append(f"worst case: {when} with {found.way} scoring, for {of}")
    if every := found.plan.savings.recompute_every:
        lines.append(f"with {_recomputed(every)} computed again in the backward pass")
    lines += _band_lines(found.past, found.grid)
    if found.time is not None:
        lines += ["", *_time_lines(found.time)]
    elif found.untimed:
        lines += ["", found.untimed]
    if found.suggestions:
        lines += ["", "settings that fit:"]
        width = max(len(one.what) for one in found.suggestions)
        lines += [
            f"  {one.what:<{width}}  {format_bytes(one.total):>8}  {one.flags}"
            + (f"  ({_recomputed(one.recompute_every)} again)" if one.recompute_every else "")
            for one in found.suggestions
        ]
    elif not found.fits:
        lines.append("no settings that fit were found; take a smaller or more quantized model")
    return [*lines, *(f"note: {visible(note)}" for note in found.notes)]


def _recomputed(every: int) -> str:
    return "every block" if every == 1 else f"one of {every} blocks"


def _band_lines(past: Sequence[float], grid: Grid) -> list[str]:
    """Say how far the estimate was from what was measured, here and on the grid."""
    where = (
        f"measured peaks were {_percent(grid.shares)} of the estimate in a grid of {grid.rows} "
        f"small models ({grid.where})"
    )
    if not past:
        return [where]
    lines = [
        f"measured peaks were {_percent((past[0], past[-1]))} of the estimate in "
        f"{counted(len(past), 'run')} on this machine",
        where,
    ]
    low = sum(share > 1 for share in past)
    if low:
        lines.append(f"it was too low for {low} of them: leave as much room, and please report it")
    return lines


def _percent(shares: tuple[float, float]) -> str:
    low, high = (round(share * 100) for share in shares)
    return f"{low} %" if low == high else f"{low}-{high} %"


def _time_lines(time: MeasuredTime) -> list[str]:
    share = round(100 * time.peak_memory_bytes / (time.estimated_bytes or math.inf))
    pairs, tokens = counted(time.batch_pairs, "pair"), counted(time.batch_tokens, "token")
    return [
        f"{format_duration(time.seconds_total)} for {counted(time.steps, 'step')}, "
        f"{format_duration(time.seconds_per_step)} a step, without evaluations and samples",
        f"measured: {format_duration(time.batch_seconds)} for the longest forward and backward "
        f"pass, {pairs}, {tokens}, {time.scoring} scoring",
        f"peak {format_bytes(time.peak_memory_bytes)}"
        + (f", {share} % of the estimate" if share else "")
        + f"; the whole process {format_bytes(time.process_bytes)}",
    ]


def _run_row(run: RunSummary) -> tuple[str, ...]:
    started = "" if run.started is None else time.localtime(run.started)
    return (
        visible(run.id),
        run.status,
        f"{run.step}/{run.total_steps}" if run.total_steps else str(run.step),
        "" if run.loss is None else f"{run.loss:.4f}",
        "" if run.preference_accuracy is None else f"{run.preference_accuracy * 100:.0f} %",
        started and time.strftime("%d %b %H:%M", started),
        visible(Path(run.model).name if run.model else ""),
    )


def check_lines(check: Check) -> list[str]:
    """Return a check of `verify` with its number; where it failed, also what the number is."""
    mark = "ok" if check.passed else "FAILED"
    number = "-" if check.value is None else f"{check.value:.1e}" if check.value else "0"
    lines = [f"{mark:<6}  {check.name:<58}  {number:>7}"]
    if not check.passed or check.value is None:
        limit = "" if check.value is None else f" (at most {check.limit:g})"
        lines.append(f"        {visible(check.note)}{limit}")
    return lines


def format_error(error: OrpoError) -> str:
    """Return an error for stderr: what is wrong first, what to do last."""
    return visible(f"error: {error.message}\n{error.what_to_do}").rstrip() + "\n"
