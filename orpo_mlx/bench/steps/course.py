"""Which steps are measured, in which order, in how much time each; what follows from them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from orpo_mlx.bench.process import Row, WorkerFailed, run_command, run_job
from orpo_mlx.bench.steps.peer import NAME as PEER
from orpo_mlx.bench.steps.peer import SCRIPT, find_peer
from orpo_mlx.bench.steps.work import useful_work
from orpo_mlx.bench.workplace import Workplace
from orpo_mlx.models.shape import ModelShape, folder_shape

RANK, SCALE = 8, 2.0
DEFAULT, PLAIN = "default", "plain"
_PLAIN_OPTIONS = (("scoring", "plain"), ("batching", "fixed"))
SAME_LOSS = 2e-2
"""Largest relative difference of the first loss: all compute in half precision, in other orders."""
_MORE_TIME, _LOADING_SECONDS, _LEAST_SECONDS = 3.0, 20.0, 2.0


@dataclass(frozen=True)
class StepCase:
    """Steps of one way on one model and one workload.

    Attributes:
        model: its name.
        workload: its name.
        way: for a reader.
        options: settings of this trainer.
        python: of another trainer; "" for this one.
    """

    model: str
    workload: str
    way: str
    options: tuple[tuple[str, str], ...] = ()
    python: str = ""


def iter_course(at: Workplace) -> Iterator[Row]:
    """Yield a row for each case, one that fails or takes too long with a "problem"; then checks.

    While time is left the cases are measured again, the last one first: what slows a machine slowly
    then meets all ways alike, and shows.
    """
    cases, done = [*_cases(at, find_peer())], []
    took: dict[StepCase, float] = {}
    while len(took) < len(cases):
        case = cases[len(took)]
        began = at.left()
        done.append(_row(at, case, 1, len(cases) - len(took)))
        took[case] = began - at.left()
        yield done[-1]
        if len(done) == 1 and at.sizes.has_extras:
            cases += _extras(at, done[0])
    if at.sizes.has_extras:
        for case in reversed(cases):
            if "problem" not in done[cases.index(case)] and 1.3 * took[case] < at.left():
                yield _row(at, case, 2, 1)
    yield from _same_losses(done)


def _row(at: Workplace, case: StepCase, number: int, cases_left: int) -> Row:
    place = {"model": case.model, "workload": case.workload, "way": case.way, "round": number}
    return {**place, **_measure(at, case, cases_left)}


def _cases(at: Workplace, peer: str) -> Iterator[StepCase]:
    for model in at.models():
        for workload in at.sizes.workloads:
            place = (model["name"], workload.name)
            yield StepCase(*place, DEFAULT)
            yield StepCase(*place, PLAIN, _PLAIN_OPTIONS)
            if peer:
                yield StepCase(*place, PEER, python=peer)


def _extras(at: Workplace, first: Row) -> list[StepCase]:
    """Return the other ways of scoring there are, on the longest prompts, and short command buffers
    on the first case."""
    model, workload = at.models()[-1]["name"], at.sizes.workloads[-1].name
    others = [way for way in at.pairs()["ways"] if way not in (first.get("scoring"), PLAIN)]
    cases = [StepCase(model, workload, f"scoring {way}", (("scoring", way),)) for way in others]
    if at.is_gpu:
        short = (("command_buffers", "short"),)
        cases.append(StepCase(first["model"], first["workload"], "short command buffers", short))
    return cases


def _measure(at: Workplace, case: StepCase, cases_left: int) -> Row:
    """Measure one case in its share of the time that is left."""
    seconds = at.left() / cases_left
    limit = min(at.left(), _MORE_TIME * seconds + _LOADING_SECONDS)
    if at.left() < _LEAST_SECONDS:
        return {"problem": "no time was left for it", "is_late": True}
    (model,) = (model for model in at.models() if model["name"] == case.model)
    try:
        rows = list(_started(at, case, _task(at, case, model, 0.5 * seconds), limit))
    except WorkerFailed as failed:
        return {"problem": failed.reason, "is_late": failed.is_late}
    if not rows or not rows[0]["step_seconds"]:
        return {"problem": "no step was measured"}
    return {**rows[0], **_rates(at, case, model, rows[0])}


def _task(at: Workplace, case: StepCase, model: Row, seconds: float) -> Row:
    options, pairs = dict(case.options), at.pairs()
    longest = max(prompt + max(rest) for prompt, *rest in pairs["lengths"][case.workload])
    return at.task(
        model=model["path"],
        data=pairs["files"][case.workload],
        pairs=pairs["counts"][case.workload],
        rank=RANK,
        scale=SCALE,
        longest=longest,
        options=options,
        seconds=seconds,
        command_buffers=options.get("command_buffers", "auto"),
    )


def _started(at: Workplace, case: StepCase, task: Row, limit: float) -> Iterator[Row]:
    def say(label: str, passed: float) -> None:
        at.say(f"{case.model}, {case.workload}, {case.way}: {label}", passed)

    if case.python:
        command = [case.python, "-P", str(SCRIPT)]
        return run_command(command, task, limit, say, at.environment())
    return run_job("steps", task, limit, say, at.environment())


def _rates(at: Workplace, case: StepCase, model: Row, row: Row) -> Row:
    """Return seconds a pair, by the clock on a GPU and by CPU time on a CPU, and which share of
    them useful work would take at MLX's own rates."""
    seconds = row["step_seconds"] if at.is_gpu else row["cpu_seconds"]
    pairs, middle = row["pairs"], statistics.median(seconds)
    found = {
        "steps": len(seconds), "seconds_per_pair": middle / pairs,
        "low": min(seconds) / pairs, "high": max(seconds) / pairs,
    }  # fmt: skip
    lengths = at.pairs()["lengths"][case.workload]
    work = useful_work(_shape(model["path"]), [tuple(one) for one in lengths], RANK)
    found["useful_flop"] = work.frozen + work.attention + work.adapter
    key = "flop_per_second" if at.is_gpu else "flop_per_cpu_second"
    # Exact float32 was measured first, and stands.
    rates = {row["of"]: row[key] for row in reversed(at.of_kind("products", "rate"))}
    used = [rates.get(name, 0.0) for name in (model["name"], "bfloat16", "float32")]
    if all(used) and middle and at.sizes.has_extras:
        found["share_of_rate"] = work.floor_seconds(*used) / middle
    return found


@lru_cache
def _shape(path: str) -> ModelShape:
    return folder_shape(Path(path))


def _same_losses(rows: list[Row]) -> Iterator[Row]:
    """Yield a check for each model and workload: all ways began with the same loss, so they did the
    same work."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if "problem" not in row:
            groups.setdefault((row["model"], row["workload"]), []).append(row["losses"][0])
    for (model, workload), losses in groups.items():
        if len(losses) < 2:
            continue
        apart = (max(losses) - min(losses)) / abs(losses[0])
        yield {
            "kind": "check", "name": f"{model}, {workload}: the first loss of {len(losses)} runs",
            "value": apart, "limit": SAME_LOSS, "passed": apart <= SAME_LOSS,
            "text": "largest relative difference",
        }  # fmt: skip
