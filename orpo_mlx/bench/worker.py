"""A process that does one job of `orpo-mlx bench`: a task comes in as JSON, rows go out as lines.

`python -m orpo_mlx.bench.worker JOB`. Each line is {"row": ...}, or {"say": ...} on what is done.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator

from orpo_mlx.bench.process import Row
from orpo_mlx.errors import OrpoError
from orpo_mlx.models.command_buffers import choose_command_buffers
from orpo_mlx.storage.safe_path import forget_present_folder

Tell = Callable[[str], None]
Job = Callable[[Row, Tell], Iterator[Row]]


def main(job: str) -> int:
    """Do a job; return the exit code."""
    forget_present_folder()
    # What libraries print must not land among the rows.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    task = json.load(sys.stdin)
    choose_command_buffers(task.get("command_buffers", "auto"))

    def write(kind: str, content: object) -> None:
        out.write(json.dumps({kind: content}) + "\n")
        out.flush()

    try:
        for row in JOBS[job](task, lambda label: write("say", label)):
            write("row", row)
    except OrpoError as error:
        sys.stderr.write(error.message.replace("\n", "; ") + "\n")
        return error.exit_code
    return 0


# Each loads what it needs when it is asked: MLX must not be there before the environment is.


def _machine(task: Row, tell: Tell) -> Iterator[Row]:
    from orpo_mlx.bench.machine import iter_machine

    return iter_machine(task, tell)


def _models(task: Row, tell: Tell) -> Iterator[Row]:
    from orpo_mlx.bench.steps.models import iter_models

    return iter_models(task, tell)


def _products(task: Row, tell: Tell) -> Iterator[Row]:
    from orpo_mlx.bench.kernels.products import iter_products

    return iter_products(task, tell)


def _attention(task: Row, tell: Tell) -> Iterator[Row]:
    from orpo_mlx.bench.kernels.attention import iter_attention

    return iter_attention(task, tell)


def _recurrent(task: Row, tell: Tell) -> Iterator[Row]:
    from orpo_mlx.bench.kernels.recurrent import iter_recurrent

    return iter_recurrent(task, tell)


def _verify(task: Row, tell: Tell) -> Iterator[Row]:
    from orpo_mlx.bench.proofs import iter_verify

    return iter_verify(task, tell)


def _self_test(task: Row, tell: Tell) -> Iterator[Row]:
    from orpo_mlx.bench.proofs import iter_self_test

    return iter_self_test(task, tell)


def _trainer(task: Row, tell: Tell) -> Iterator[Row]:
    from orpo_mlx.bench.killed import iter_trainer

    return iter_trainer(task, tell)


def _steps(task: Row, tell: Tell) -> Iterator[Row]:
    from orpo_mlx.bench.steps.measured import iter_steps

    return iter_steps(task, tell)


JOBS: dict[str, Job] = {
    "machine": _machine,
    "models": _models,
    "products": _products,
    "attention": _attention,
    "recurrent": _recurrent,
    "verify": _verify,
    "self-test": _self_test,
    "trainer": _trainer,
    "steps": _steps,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
