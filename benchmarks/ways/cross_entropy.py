"""Log-probs and slopes of a chunk of logits: this trainer's against MLX's fused cross entropy.

    python -m benchmarks.ways.cross_entropy

Exactness against float64 NumPy on the same float32 logits; user CPU time in rounds in turns, and
MLX's peak beside the logits. On a CPU `mx.fast.cross_entropy` is its unfused fallback.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from benchmarks.ways.hybrid import interval
from orpo_mlx.scoring.logprobs import logps_and_slopes

Both = Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]


def fused(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Return what `logps_and_slopes` does, by MLX's own function and its gradient."""
    weights = mx.full(targets.shape, -1.0)
    losses, slopes = mx.vjp(lambda x: mx.fast.cross_entropy(x, targets), [logits], [weights])
    return -losses[0], slopes[0]


WAYS: dict[str, Both] = {"ours": logps_and_slopes, "fused": fused}


def chunk(words: int, positions: int, kind: str) -> tuple[mx.array, mx.array]:
    """Return logits [positions, words] and targets [positions].

    Args:
        words: of the vocabulary.
        positions: of the chunk.
        kind: "wide" are normal numbers up to about 60, "sure" have 20 at the target, 2 elsewhere,
            "high" are small differences around 60.
    """
    logits = mx.random.normal((positions, words), key=mx.random.key(words))
    targets = mx.random.randint(0, words, (positions,), key=mx.random.key(1))
    if kind == "wide":
        return logits * 15, targets
    if kind == "high":
        return logits + 60, targets
    sure = mx.full((positions, 1), 20.0)
    return mx.put_along_axis(logits * 2, targets[:, None], sure, axis=-1), targets


def in_float64(logits: mx.array, targets: mx.array) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probs and slopes of float32 logits, computed in float64."""
    values, places = np.array(logits).astype(np.float64), np.array(targets)[:, None]
    values -= values.max(axis=-1, keepdims=True)
    powers = np.exp(values)
    sums = powers.sum(axis=-1, keepdims=True)
    logps = np.take_along_axis(values, places, -1) - np.log(sums)
    slopes = -powers / sums
    np.put_along_axis(slopes, places, -np.expm1(logps), -1)
    return logps[:, 0], slopes


def exactness(words: int, kind: str) -> dict[str, list[float]]:
    """Return by way the largest error of a log-prob and, by norm, of a position's slopes."""
    logits, targets = chunk(words, 16, kind)
    wanted, slopes = in_float64(logits, targets)
    found = {}
    for name, way in WAYS.items():
        logps, own = (np.array(array).astype(np.float64) for array in way(logits, targets))
        apart = np.linalg.norm(own - slopes, axis=-1) / np.linalg.norm(slopes, axis=-1)
        found[name] = [float(np.abs(logps - wanted).max()), float(apart.max())]
    return found


def cost(words: int, positions: int, rounds: int) -> dict[str, object]:
    """Return user CPU milliseconds by way, their ratio, and arrays besides the logits at peak."""
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    arrays = {}
    logits, targets = chunk(words, positions, "wide")
    mx.eval(logits, targets)
    for turn in range(rounds + 1):
        for name in [*WAYS][:: 1 if turn % 2 else -1]:
            mx.clear_cache()
            mx.reset_peak_memory()
            held, before = mx.get_active_memory(), resource.getrusage(resource.RUSAGE_SELF)
            mx.eval(*WAYS[name](logits, targets))
            after = resource.getrusage(resource.RUSAGE_SELF)
            arrays[name] = (mx.get_peak_memory() - held) / logits.nbytes
            if turn:  # the first warms up
                taken[name].append(1e3 * (after.ru_utime - before.ru_utime))
    ratios = [b / a for a, b in zip(taken["ours"], taken["fused"], strict=True)]
    return {
        "milliseconds": {name: statistics.median(each) for name, each in taken.items()},
        "ratio": [statistics.median(ratios), *interval(ratios)],
        "arrays": arrays,
    }


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print, a line of JSON for each vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--words", type=int, nargs="+", default=[32_000, 128_000])
    parser.add_argument("--positions", type=int, default=128, help="of a chunk that is timed")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args(words)
    for size in args.words:
        exact = {kind: exactness(size, kind) for kind in ("wide", "sure", "high")}
        line = {"words": size, "exact": exact, "cost": cost(size, args.positions, args.rounds)}
        print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
