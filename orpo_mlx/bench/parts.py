"""The parts of a bench in their order, and the time each may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from orpo_mlx.bench.killed import iter_killed
from orpo_mlx.bench.process import Row, WorkerFailed, run_job
from orpo_mlx.bench.steps.course import iter_course
from orpo_mlx.bench.workplace import Workplace
from orpo_mlx.models.precision import VARIABLE


@dataclass(frozen=True)
class BenchPart:
    """One part.

    Attributes:
        name: what `--only` takes.
        title: for a reader.
        seconds: it may take, of those that are left.
        run: yields what it finds.
        needs_models: whether models are made for it.
    """

    name: str
    title: str
    seconds: float
    run: Callable[[Workplace], Iterator[Row]]
    needs_models: bool = False


def _machine(at: Workplace) -> Iterator[Row]:
    return at.job("machine")


def _models(at: Workplace) -> Iterator[Row]:
    """A download that takes too long is given up for a random model, unless the user named it."""

    def made(model: str, seconds: float) -> Iterator[Row]:
        task = at.task(
            model=model,
            must=at.request.model is not None,
            shape=at.sizes.shape,
            workloads=at.sizes.as_rows(),
        )
        return run_job("models", task, seconds, at.say, at.environment())

    if at.request.model:
        yield from made(at.request.model, at.left())
        return
    hub = "" if at.request.is_offline else at.sizes.hub_model
    try:
        yield from list(made(hub, _SHARE_OF_FETCHING * at.left() if hub else at.left()))
    except WorkerFailed as failed:
        if not hub:
            raise
        yield {"kind": "note", "text": f"a random model instead of {hub}: {failed.reason}"}
        yield from made("", at.left())


_SHARE_OF_FETCHING = 0.7


def _products(at: Workplace) -> Iterator[Row]:
    """MLX reads once a process whether it may round float32, so there are two."""
    rates = {"0": ["float32", "bfloat16", "float16", "4-bit"], "1": ["float32"]}
    for value, names in rates.items():
        task = at.task(size=at.sizes.product_size, rates=names)
        yield from run_job("products", task, at.left(), at.say, at.environment(**{VARIABLE: value}))


def _exact(at: Workplace, job: str, **task: Any) -> Iterator[Row]:
    """Do a job with exact float32 products, as trainings have them."""
    return run_job(job, at.task(**task), at.left(), at.say, at.environment(**{VARIABLE: "0"}))


def _attention(at: Workplace) -> Iterator[Row]:
    return _exact(at, "attention", shapes=at.sizes.attention)


def _recurrent(at: Workplace) -> Iterator[Row]:
    return _exact(at, "recurrent", tokens=at.sizes.recurrent_tokens)


def _killed(at: Workplace) -> Iterator[Row]:
    # The short form shows that it runs.
    for model in at.models()[: 2 if at.sizes.has_extras else 1]:
        task = at.task(model=model["path"], data=at.pairs()["files"]["proofs"])
        name = f"killed-{model['name']}"
        (at.folder / name).mkdir()
        task["folder"] = str(at.folder / name)
        for row in iter_killed(task, at.left, at.say, at.environment()):
            yield {**row, "name": f"{model['name']}: {row['name']}"}


def _self_test(at: Workplace) -> Iterator[Row]:
    return at.job("self-test")


def _verify(at: Workplace) -> Iterator[Row]:
    model, data = at.models()[0], at.pairs()["files"]["proofs"]
    yield from at.job("verify", model=model["path"], data=data, pairs=at.sizes.verify_pairs)


PARTS = (
    BenchPart("machine", "This machine", 40, _machine),
    BenchPart("models", "Models to measure", 200, _models),
    BenchPart("products", "Products of matrices", 60, _products),
    BenchPart("attention", "Attention", 90, _attention),
    BenchPart("recurrent", "Recurrent layers", 60, _recurrent),
    BenchPart("resume", "Killed and resumed", 120, _killed, needs_models=True),
    BenchPart("self-test", "Self-test of the doctor", 90, _self_test),
    BenchPart("verify", "Verify", 150, _verify, needs_models=True),
    BenchPart("steps", "Step time and memory", 600, iter_course, needs_models=True),
)
NAMES = tuple(part.name for part in PARTS)


def chosen_parts(only: tuple[str, ...]) -> list[BenchPart]:
    """Return the parts to do: those named, and what they stand on."""
    if not only:
        return list(PARTS)
    needs_models = any(part.needs_models for part in PARTS if part.name in only)
    # Shares of a rate need the rate.
    wanted = {"machine", *only, *(["models"] if needs_models else [])}
    wanted |= {"products"} if "steps" in only else set()
    return [part for part in PARTS if part.name in wanted]
