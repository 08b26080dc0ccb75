"""This trainer against its own plain mode, as a table to paste into an issue: `make bench`.

    python benchmarks/bench.py
    python benchmarks/bench.py --workloads hh --rounds 4

Plain mode computes both rows of a pair in full and padded, with the logits of all tokens, as other
trainers do. On a GPU a 4-bit model of 0.7 billion parameters in bfloat16 is measured besides.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from side_by_side import SYSTEMS, WORKLOADS, Case, conditions, report_case, run_case

WAYS = [SYSTEMS["orpo-mlx full nll"], SYSTEMS["orpo-mlx plain full nll"]]
NAMES = {WAYS[0].name: "default", WAYS[1].name: "plain"}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    args = build_parser().parse_args(argv)
    about = conditions()
    print(describe_conditions(about, args.rounds), flush=True)
    unit = "s" if is_gpu(about) else "CPU s"
    print(f"| model | workload | way | {unit}/pair | peak memory | matmul rate reached | |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case in cases(args, is_gpu(about)):
        report = report_case(case, WAYS, run_case(case, WAYS, args.rounds))
        for line in describe(report, is_gpu(about)):
            print(line, flush=True)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description="Compare the default with plain mode on this machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=2, help="runs of each way, in turn")
    parser.add_argument("--pairs", type=int, help="4 to a step (4, or 16 on a GPU)")
    parser.add_argument("--vocab", type=int, help="words (32000, and 128000 for the large model)")
    return parser


def is_gpu(about: dict[str, Any]) -> bool:
    """Tell whether MLX computes on a GPU."""
    return "gpu" in about["device"]


def cases(args: argparse.Namespace, gpu: bool) -> list[Case]:
    """Return what is measured: on a GPU the large model too, after an epoch that warms it up."""
    pairs = args.pairs or (16 if gpu else 4)
    warm = -(-pairs // 4) if gpu else 1
    sizes = [("S", args.vocab or 32000), *([("M", args.vocab or 128000)] if gpu else [])]
    return [
        Case(workload, size, vocab, "all", pairs, unmeasured=warm)
        for size, vocab in sizes
        for workload in args.workloads
    ]


def describe_conditions(about: dict[str, Any], rounds: int) -> str:
    """Return where and how this is measured."""
    blas = f", {about['preload']} preloaded" if about["preload"] else ""
    return (
        f"orpo-mlx {about['orpo_mlx']}, mlx {about['mlx']}, mlx-lm {about['mlx_lm']}, "
        f"Python {about['python']}\n"
        f"{about['machine']}, {about['system']}, {about['device_name']}, {about['device']}{blas}\n"
        f"medians of {rounds} runs; LoRA on all linear layers, 4 pairs a step\n"
    )


def describe(report: dict[str, Any], gpu: bool) -> list[str]:
    """Return a case as two rows of the table."""
    name = "wall_seconds" if gpu else "cpu_seconds"
    made, lines = report["workload"], []
    kind = f"{made['bits']}-bit, {made['dtype']}" if made["bits"] else made["dtype"]
    model = f"{made['hidden']} x {made['layers']}, {made['vocab']} words, {kind}"
    for row in report["rows"]:
        seconds = row[f"{name}_per_pair"]
        rate = row["done_flop"] / report["case"]["pairs"] / seconds / report["flop_per_second"]
        against = row["against_first"]
        factor = ""
        if row is not report["rows"][0]:
            time, memory = (against[key]["ratio"] for key in (name, "peak_memory_bytes"))
            factor = f"{time:.2f}x the time, {memory:.2f}x the memory"
        lines.append(
            f"| {model} | {report['case']['workload']} | {NAMES[row['system']]} | {seconds:.4f} "
            f"| {row['peak_memory_bytes'] / 1e6:.0f} MB | {100 * rate:.0f} % | {factor} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
