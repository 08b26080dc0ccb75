"""Compare two revisions, or two sets of options, in paired and interleaved runs of step_time.py.

    python benchmarks/compare.py --a-revision main~3 --b-revision main
    python benchmarks/compare.py --a "" --b "--grad-checkpoint" --rounds 10 -- --hidden 256

Each run is a fresh process. The order is A B, B A, A B, ... so that a machine that warms up or
slows down does so to both. Options after `--` go to both sides. This copy of step_time.py measures
both, so a change of the benchmark itself cannot pass for a change of the trainer.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

METRICS = {
    "step_ms": "step time",
    "cpu_seconds_per_step": "user CPU time",
    "peak_memory_bytes": "peak memory in MLX",
    "peak_rss_bytes": "peak memory of the process",
}
"""What is compared; of all of it less is better."""

FEWEST_ROUNDS = 6
"""With five rounds all of them point the same way by chance alone in 6 % of the cases (2 / 2^5)."""

RESAMPLES = 10_000
SAME_LOSS = 1e-4


@dataclass(frozen=True)
class Side:
    """One of the two things compared.

    Attributes:
        name: "A" or "B".
        code: folder that holds the `orpo_mlx` to measure.
        revision: its commit, or "working tree".
        options: for step_time.py.
    """

    name: str
    code: Path
    revision: str
    options: list[str]


@dataclass(frozen=True)
class Comparison:
    """One metric on both sides.

    Attributes:
        median_a, median_b: over the rounds.
        ratio: median_b / median_a; below 1 means B needs less.
        low, high: 95 % bootstrap interval of the ratio.
        is_real: whether the interval leaves out 1, from enough rounds to say so.
    """

    metric: str
    median_a: float
    median_b: float
    ratio: float
    low: float
    high: float
    is_real: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run both sides in turn and print the comparison."""
    args, shared = parse(list(sys.argv[1:] if argv is None else argv))
    with ExitStack() as stack:
        sides = []
        for name, revision, options in (
            ("A", args.a_revision, args.a),
            ("B", args.b_revision, args.b),
        ):
            code, commit = stack.enter_context(checked_out(args.repository, revision))
            sides.append(Side(name, code, commit, [*shared, *shlex.split(options)]))
        results = run_rounds(sides[0], sides[1], args.rounds)
    report = build_report(sides, results)
    print(json.dumps(report) if args.json else describe(report))
    return 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split the command line into our options and, after `--`, those for both sides."""
    at = argv.index("--") if "--" in argv else len(argv)
    ours, shared = argv[:at], argv[at + 1 :]
    # argparse takes the value of `--a --grad-checkpoint` for an option of its own.
    for i, word in enumerate(ours[:-1]):
        if word in ("--a", "--b"):
            ours[i : i + 2] = [f"{word}={ours[i + 1]}", ""]
    return build_parser().parse_args([word for word in ours if word]), shared


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description="Compare two revisions or two sets of options; everything after -- goes to "
        "step_time.py on both sides."
    )
    for side in ("a", "b"):
        parser.add_argument(
            f"--{side}-revision",
            metavar="REVISION",
            help="git revision to measure (default: the working tree)",
        )
        parser.add_argument(
            f"--{side}", default="", metavar="OPTIONS", help="options of step_time.py, one string"
        )
    parser.add_argument("--rounds", type=int, default=8, help="runs of each side (default: 8)")
    parser.add_argument("--repository", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


# --- code


@contextmanager
def checked_out(repository: Path, revision: str | None) -> Iterator[tuple[Path, str]]:
    """Yield a folder with the code of a revision, and its commit; the folder goes afterwards."""
    if revision is None:
        yield repository.resolve(), "working tree"
        return
    commit = git(repository, "rev-parse", "--verify", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-compare-") as temporary:
        folder = Path(temporary).resolve() / "code"
        git(repository, "worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            yield folder, commit
        finally:
            git(repository, "worktree", "remove", "--force", str(folder))


def git(repository: Path, *arguments: str) -> str:
    """Run git and return what it prints; a failure ends the program with git's own words."""
    # In a git hook these variables would point every command at the repository of the hook.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"error: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


# --- runs


def run_rounds(a: Side, b: Side, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run both sides `rounds` times in ABBA order; returns the measurements of each by name."""
    results: dict[str, list[dict[str, Any]]] = {"A": [], "B": []}
    for i in range(rounds):
        for side in (a, b) if i % 2 == 0 else (b, a):
            results[side.name].append(run_once(side))
        times = ", ".join(f"{name} {runs[-1]['step_ms']:.1f} ms" for name, runs in results.items())
        print(f"round {i + 1} of {rounds}: {times}", file=sys.stderr, flush=True)
    return results


def run_once(side: Side) -> dict[str, Any]:
    """Measure one side in a process of its own."""
    script = Path(__file__).resolve().with_name("step_time.py")
    done = subprocess.run(
        [sys.executable, str(script), *side.options, "--json"],
        env={**os.environ, "PYTHONPATH": str(side.code)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"error: side {side.name} failed\n{done.stderr.strip()}")
    measured = json.loads(done.stdout.splitlines()[-1])
    # Some ways to install a package in development win over PYTHONPATH.
    if Path(measured["conditions"]["code"]).parent != side.code:
        raise SystemExit(
            f"error: side {side.name} ran the code in {measured['conditions']['code']}, "
            f"not that in {side.code}\nUninstall orpo-mlx from this environment."
        )
    return measured


# --- numbers


def build_report(sides: list[Side], results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return everything that is printed or written as JSON."""
    comparisons = []
    for metric in METRICS:
        a, b = ([run[metric] for run in results[name]] for name in ("A", "B"))
        comparisons.append(asdict(compare(metric, a, b)))
    losses = [results[name][0]["loss"] for name in ("A", "B")]
    return {
        "sides": [
            {"name": s.name, "revision": s.revision, "options": shlex.join(s.options)}
            for s in sides
        ],
        "rounds": len(results["A"]),
        "comparisons": comparisons,
        "losses": losses,
        "same_loss": abs(losses[0] - losses[1]) <= SAME_LOSS * abs(losses[0]),
        "conditions": {name: runs[0]["conditions"] for name, runs in results.items()},
    }


def compare(metric: str, a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Compare paired measurements, a[i] and b[i] of the same round.

    Rounds are resampled whole, so that what both sides shared (a busy machine) cancels out.

    Raises:
        SystemExit: something measured as 0, which has no ratio.
    """
    if min(*a, *b) <= 0:
        raise SystemExit(f"error: {METRICS[metric]} was measured as 0; take a larger workload")
    first, second = np.array(a, dtype=np.float64), np.array(b, dtype=np.float64)
    draws = np.random.default_rng(0).integers(0, len(first), (RESAMPLES, len(first)))
    ratios = np.median(second[draws], axis=1) / np.median(first[draws], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    median_a, median_b = float(np.median(first)), float(np.median(second))
    is_real = len(first) >= FEWEST_ROUNDS and not low <= 1 <= high
    return Comparison(
        metric, median_a, median_b, median_b / median_a, float(low), float(high), bool(is_real)
    )


# --- words


def describe(report: dict[str, Any]) -> str:
    """Return the comparison as lines for a reader."""
    lines = [
        f"{side['name']}: {side['revision'][:12]}  {side['options']}" for side in report["sides"]
    ]
    lines.append(f"{'':<32}{'A':>10}{'B':>10}   B/A (95 % interval)")
    lines += [describe_metric(comparison, report["rounds"]) for comparison in report["comparisons"]]
    if not report["same_loss"]:
        a, b = report["losses"]
        lines.append(f"note: the losses differ ({a:.5f}, {b:.5f}): the work was not the same")
    about = report["conditions"]["A"]
    lines.append(f"{about['machine']}, {about['device']}, mlx {about['mlx']}")
    return "\n".join(lines)


def describe_metric(comparison: dict[str, Any], rounds: int) -> str:
    """Return one metric as a line that claims a difference only where one was shown."""
    unit, digits, scale = {
        "step_ms": ("ms", 1, 1.0),
        "cpu_seconds_per_step": ("s", 3, 1.0),
    }.get(comparison["metric"], ("MB", 1, 1e-6))
    a, b = (f"{scale * comparison[k]:.{digits}f}" for k in ("median_a", "median_b"))
    interval = f"{comparison['ratio']:.3f} ({comparison['low']:.3f}-{comparison['high']:.3f})"
    if comparison["is_real"]:
        verdict = "B needs less" if comparison["ratio"] < 1 else "B needs more"
    elif rounds < FEWEST_ROUNDS:
        verdict = f"fewer than {FEWEST_ROUNDS} rounds: no verdict"
    else:
        verdict = "no difference shown"
    label = f"{METRICS[comparison['metric']]} [{unit}]"
    return f"{label:<32}{a:>10}{b:>10}   {interval}  {verdict}"


if __name__ == "__main__":
    sys.exit(main())
