"""`verify` and the doctor's self-test, as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from orpo_mlx.bench.process import Row
from orpo_mlx.config import build_config
from orpo_mlx.verify.check import Check
from orpo_mlx.verify.suite import check_demo_trainings, run_checks


def iter_verify(task: Row, tell: Callable[[str], None]) -> Iterator[Row]:
    """Yield what `orpo-mlx verify` checks.

    Args:
        task: "model" and "data", and how many "pairs" are looked at.
        tell: told of each check.
    """
    config = build_config({"model": task["model"], "data": task["data"]})
    return _rows(run_checks(config, task["pairs"]), tell)


def iter_self_test(_: Row, tell: Callable[[str], None]) -> Iterator[Row]:
    """Yield what trainings of the built-in model prove."""
    return _rows(check_demo_trainings(), tell)


def _rows(checks: Iterable[Check], tell: Callable[[str], None]) -> Iterator[Row]:
    tell("loading the model")
    for check in checks:
        tell(check.name)
        yield {
            "name": check.name, "passed": check.passed, "value": check.value,
            "limit": check.limit, "text": check.note,
        }  # fmt: skip
