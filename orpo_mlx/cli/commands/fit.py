"""`orpo-mlx fit`: what a training needs, and settings that fit."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option, add_json_option
from orpo_mlx.cli.peers.needs import (
    NEEDS_OPTIONS,
    add_needs_options,
    checked_needs,
    needs_json,
    needs_lines,
)
from orpo_mlx.cli.progress import ProgressLine, failures_as_json
from orpo_mlx.cli.settings_options import (
    add_settings,
    settings_from,
)
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.declaration import GROUPS
from orpo_mlx.data.accounting import account_json, account_lines
from orpo_mlx.errors import ConfigError
from orpo_mlx.models.command_buffers import choose_command_buffers
from orpo_mlx.planning.course import RunCourse
from orpo_mlx.planning.fit import FitAnswer, MeasuredTime, answer, as_planned
from orpo_mlx.planning.memory import Grid, available_bytes, parse_size
from orpo_mlx.planning.processes import LINK_GBIT, ProcessPlan
from orpo_mlx.runs.listing import bytes_in_training
from orpo_mlx.text.formatting import counted, format_bytes, format_duration, visible


def print_fit(found: FitAnswer, as_json: bool = False) -> int:
    """Print what a training needs and which settings fit; return the exit code 0."""
    if not as_json:
        return print_text("\n".join(fit_lines(found)) + "\n")
    suggestions = [
        {"what": one.what, "flags": one.flags, "settings": one.changes, "bytes": one.total,
         "grad_checkpoint_every": one.recompute_every}
        for one in found.suggestions
    ]  # fmt: skip
    savings = found.plan.savings
    content: dict[str, Any] = {
        "fits": found.fits,
        "estimated_bytes": found.estimate.total,
        "available_bytes": found.limit,
        "taken_bytes": found.taken,
        "parts": found.estimate.parts(),
        "scoring": found.way,
        "pairs": found.pairs,
        "suggestions": suggestions,
        "past_runs": list(found.past),
        "grid": asdict(found.grid),
        "grad_checkpoint_every": savings.recompute_every,
        "head_chunk": savings.head_chunk,
        "notes": list(found.notes),
        "rows": {name: account_json(account) for name, account in found.accounts.items()},
    }
    if found.course is not None:
        content["course"] = asdict(found.course)
    if found.time is not None:
        content["time"] = asdict(found.time)
    if found.processes is not None:
        content["processes"] = needs_json(found.processes, found.limit)
    return print_text(json.dumps(content, indent=2) + "\n")


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


def fit_lines(found: FitAnswer) -> list[str]:
    """Return an estimate as a table of its parts, a verdict, and settings that fit."""
    parts = {**found.estimate.parts(), "total": found.estimate.total}
    lines = [
        f"{name.replace('_', ' '):<12}{format_bytes(size):>9}  {_PARTS.get(name, '')}".rstrip()
        for name, size in parts.items()
        if size or name != "cache"
    ]
    needs, limit = format_bytes(found.process_bytes), format_bytes(found.limit)
    verdict = "fits" if found.fits else "does not fit"
    of = f"your {counted(found.pairs, 'pair')}" if found.pairs else "the longest pairs allowed"
    when = "an evaluation" if not found.estimate.activations else "a step"
    lines += ["", f"{verdict}: {needs} needed, {limit} available"]
    if found.taken:
        lines.append(f"trainings that are going on may take {format_bytes(found.taken)} besides")
    lines.append(f"worst case: {when} with {found.way} scoring, for {of}")
    if every := found.plan.savings.recompute_every:
        lines.append(f"with {_recomputed(every)} computed again in the backward pass")
    lines += _band_lines(found.past, found.grid)
    lines += _account_lines(found)
    if found.course is not None:
        lines += ["", course_text(found.course)]
    if found.time is not None:
        lines += ["", *_time_lines(found.time)]
    elif found.untimed:
        lines += ["", found.untimed]
    if found.processes is not None:
        lines += ["", *needs_lines(found.processes, found.limit)]
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


def _account_lines(found: FitAnswer) -> list[str]:
    lines = []
    for name, account in found.accounts.items():
        about = "; for validation" if name == "valid_data" else ""
        lines += account_lines(account, about, found.max_seq_length)
    return ["", *lines] if lines else []


def course_text(course: RunCourse) -> str:
    """Return how a run will go, in one line."""
    evaluations = (
        f"{counted(course.evaluations, 'evaluation')} on {counted(course.evaluated_pairs, 'pair')}"
        if course.evaluations
        else "no evaluations: no pairs are held out"
    )
    checkpoints = counted(course.checkpoints, "checkpoint")
    return (
        f"{counted(course.steps, 'step')} on {counted(course.pairs, 'pair')}, {evaluations}, "
        f"{checkpoints} of {format_bytes(course.checkpoint_bytes)}"
    )


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


@dataclass(frozen=True)
class FitCommand:
    """What a `fit` command line asks for.

    Attributes:
        config: the validated settings; `data` may be missing.
        memory: as given, such as "16GB"; None: what this machine has.
        probe: whether to load the model and measure a few steps.
        processes: of the run.
        link_gbit: speed of the link between them, in 1e9 bits per second.
        step_seconds: time of a step in one process, as known from elsewhere.
    """

    config: TrainConfig
    memory: str | None = None
    as_json: bool = False
    probe: bool = False
    processes: int = 1
    link_gbit: float = LINK_GBIT
    step_seconds: float | None = None


def build_fit_parser(prog: str = "orpo-mlx fit") -> Parser:
    """Return the parser of `fit`: every setting of a training, and the memory there is."""
    parser = Parser(
        prog,
        "Estimate the memory a training needs, without loading or downloading the model, and show\n"
        "settings that fit. Exit code 0: it fits, 1: it does not. With --probe the model is\n"
        "loaded, and three steps are timed; nothing of them is kept. The lengths of the pairs are\n"
        "kept in the cache (at most 64 MB), so that asking again tokenizes only what changed.",
        usage=f"{prog} --model MODEL [--data FILE] [--memory 16GB] [--probe] [--processes N]\n"
        "       [options of train]",
    )
    group = parser.add_argument_group("What to do")
    add_help_option(group)
    group.add_argument(
        "--memory", metavar="SIZE", help="Memory there is, such as 16GB. [default: this machine's]"
    )
    group.add_argument(
        "--probe",
        action="store_true",
        help="Take 3 steps on the longest batch of --data and tell the time of the run.",
    )
    add_needs_options(group)
    group.add_argument("--config", metavar="FILE", help="Read settings from a TOML file.")
    group.add_argument("--demo", action="store_true", help="Ask for the built-in model and pairs.")
    add_json_option(group, "Print one JSON object.")
    add_debug_option(group)
    add_settings(parser, GROUPS)
    return parser


def parse_fit(argv: Sequence[str], prog: str = "orpo-mlx fit") -> FitCommand:
    """Read a `fit` command line.

    Raises:
        ConfigError: listing every problem.
        TextRequested: --help.
    """
    given = build_fit_parser(prog).parse(argv)
    names = ("memory", "probe", "config", "demo", "json", "debug", *NEEDS_OPTIONS)
    extras = {key: given.pop(key, None) for key in names}
    config = settings_from(given, extras["config"], bool(extras["demo"]))
    if not config.model:
        raise ConfigError(
            "--model: needed to know what fits",
            f"{prog} --model mlx-community/Qwen3-0.6B-4bit --memory 16GB",
        )
    if extras["probe"] and not config.data:
        raise ConfigError(
            "--probe: needs pairs, because the time of a step depends on their lengths",
            f"Add --data FILE: {prog} --model {config.model} --data pairs.jsonl --probe",
        )
    needs = checked_needs({name: extras[name] for name in NEEDS_OPTIONS})
    as_json, probe = bool(extras["json"]), bool(extras["probe"])
    return FitCommand(config, extras["memory"], as_json, probe, **needs)


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx fit`; return 0 if the settings as given fit, 1 if they do not."""
    with failures_as_json("--json" in argv):
        command = parse_fit(argv)
        choose_command_buffers(command.config.command_buffers)
        limit, taken = _limit(command)
        on_progress = ProgressLine(as_json=True) if command.as_json else None
        found = answer(command.config, limit, on_progress, command.processes)
        found = replace(found, taken=taken)
        if command.probe:
            found = _timed(found, command.config)
        if found.processes is not None:
            found = replace(found, processes=_with_times(found.processes, command, found.time))
    print_fit(found, command.as_json)
    return 0 if found.fits else 1


def _limit(command: FitCommand) -> tuple[int, int]:
    """Return the bytes there are, and those that trainings which are going on may take."""
    if command.memory is not None:
        return parse_size(command.memory), 0
    taken = bytes_in_training(command.config.runs_dir)
    return max(0, available_bytes() - taken), taken


def _with_times(plan: ProcessPlan, command: FitCommand, time: MeasuredTime | None) -> ProcessPlan:
    measured = time.seconds_per_step if time else None
    seconds = command.step_seconds or measured
    return replace(plan, link_gbit=command.link_gbit, alone_seconds=seconds)


def _timed(found: FitAnswer, config: TrainConfig) -> FitAnswer:
    """Return the answer with what three steps took, or why none were taken."""
    if not (found.fits or config.allow_overcommit):
        why = "no steps were tried, because the settings do not fit (--allow-overcommit tries)"
        return replace(found, untimed=why)
    from orpo_mlx.training.timing import measure_time

    return replace(found, time=measure_time(as_planned(config, found.plan)))
