"""What compiling the step costs, and what it brings: steps as they are and compiled, in turns.

    python -m benchmarks.ways.compiled --model FOLDER --data PAIRS.jsonl --out compiled.json

Each round takes the gradient of the next batch of a run three ways: as tight as it comes, filled up
to its shape, and filled up and compiled; the compiled one twice, as the first of a shape compiles.
Counted are user CPU time of this process, of its children (on a CPU, MLX's C++ compiler), and the
clock. The compiler's results are kept below TMPDIR: an empty one shows what a first run pays.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.ways.hybrid import interval

KINDS = ("tight", "filled", "compiled")


class Taken(NamedTuple):
    """Seconds of a step: user CPU of this process, of its children, and by the clock."""

    own: float
    children: float
    wall: float


def now() -> Taken:
    """Return what was taken so far."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return Taken(own.ru_utime, children.ru_utime, time.perf_counter())


def timed(call: Callable[[], Any]) -> Taken:
    """Return what a call takes."""
    before = now()
    call()
    return Taken(*(after - earlier for after, earlier in zip(now(), before, strict=True)))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Take the steps; returns seconds by kind and round, and those of compiling each new shape."""
    from orpo_mlx.config import TrainConfig
    from orpo_mlx.scoring.batches import buckets_of_run, step_parts
    from orpo_mlx.training.optimizer import build_optimizer
    from orpo_mlx.training.preparation.objective import objective
    from orpo_mlx.training.prepare import prepare
    from orpo_mlx.training.step import TrainStep, step_key

    prepared = prepare(
        TrainConfig(
            model=args.model, data=args.data, run_dir=str(folder / "run"), valid_fraction=0,
            steps=args.steps, max_seq_length=args.max_seq_length, num_layers=-1,
            micro_batch_size=args.pairs, target_modules=["q_proj", "v_proj"], compile="off",
        )
    )  # fmt: skip
    config, pairs, tight = prepared.config, prepared.data.train, prepared.speed.train
    table = buckets_of_run(config, tight, pairs, prepared.total_steps)
    prepared.model.train()
    scorings = {
        name: tight if name == "tight" else replace(tight, bucket_table=table) for name in KINDS
    }
    steps = {
        name: TrainStep(
            prepared.model, build_optimizer(config), objective(config), scoring,
            compiled=name == "compiled",
        )
        for name, scoring in scorings.items()
    }  # fmt: skip
    taken: dict[str, list[Taken]] = {name: [] for name in KINDS}
    compiling = []
    for number in range(args.rounds + 1):
        (part, *_) = step_parts(config, tight, pairs, number + 1)
        calls = {
            name: partial(steps[name].gradient, [scorings[name].build(pairs, part)], step_key(0, 1))
            for name in KINDS
        }
        shapes = len(steps["compiled"].shapes)
        first = timed(calls["compiled"])
        is_new = len(steps["compiled"].shapes) > shapes
        turn = KINDS if number % 2 else KINDS[::-1]
        found = {name: timed(calls[name]) for name in turn}
        if is_new:
            again = found["compiled"]
            compiling.append(Taken(*(a - b for a, b in zip(first, again, strict=True))))
        if number:  # the first batch fills caches
            for name in KINDS:
                taken[name].append(found[name])
        print(number, is_new, found, file=sys.stderr, flush=True)
    return {
        "shapes": len(table.buckets), "filling": table.filling,
        "compiling": compiling, "taken": taken,
    }  # fmt: skip


def summed_up(found: dict[str, Any]) -> dict[str, Any]:
    """Return medians, and the ratio of user CPU time to a tight step with its interval."""
    tight = [each.own for each in found["taken"]["tight"]]
    rows = {}
    for name, taken in found["taken"].items():
        own = [each.own for each in taken]
        ratios = [b / a for a, b in zip(tight, own, strict=True)]
        rows[name] = {
            "cpu_seconds": statistics.median(own),
            "wall_seconds": statistics.median(each.wall for each in taken),
            "ratio": statistics.median(ratios),
            "interval": interval(ratios),
        }
    first, *later = found["compiling"]
    return {**found, "rows": rows, "first_shape": first._asdict(), "later_shapes": later}


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=4, help="in a step")
    parser.add_argument("--steps", type=int, default=300, help="of the run whose shapes are taken")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--max-seq-length", type=int, default=1024)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        found = summed_up(measure(args, Path(folder)))
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
