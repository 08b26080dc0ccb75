"""How a step's cost grows with length, vocabulary and batch: a table and an SVG picture.

    python benchmarks/cost.py --out benchmarks/results/cost.json --svg docs/cost.svg
    python benchmarks/cost.py --read benchmarks/results/cost.json --svg docs/cost.svg
    python benchmarks/cost.py --axes "prompt tokens,layers" --rounds 3 --out more.json
    python benchmarks/cost.py --long 1,2,4,8,16 --rounds 3 --out benchmarks/results/long.json

This trainer and its own plain mode, on the hh workload and the small model; one thing at a time.
The plain mode is left out where its logits alone would take gigabytes. A broken line says what the
first point would become if cost grew as the tokens of a pair do, its prompt counted once.
With --long the ways of scoring with and without mask arrays, prompts of so many thousand tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from side_by_side import (
    RANK,
    SAME_OBJECTIVE,
    SYSTEMS,
    TARGETS,
    Case,
    conditions,
    report_case,
    run_case,
)
from work import NOTHING, flop, useful
from workload import model_config, model_folder, pairs_file, write_workload

BASE = Case("hh", pairs=4)
LONGEST_PLAIN = 2048
"""Tokens of a prompt up to which the plain mode is measured, too."""
ONE = replace(BASE, pairs=1, pairs_per_step=1)
AXES: dict[str, list[tuple[float, Case]]] = {
    # One pair: a CPU keeps the scores of attention, 1 GB in each layer for 8,192 tokens.
    "prompt tokens": [(x, replace(ONE, prompt=x)) for x in (128, 512, 2048, 8192)],
    "layers": [(x, replace(BASE, layers=x)) for x in (2, 4, 8, 16)],
    "length (times that of hh)": [(x, replace(BASE, length=x)) for x in (0.5, 1, 2, 4)],
    "vocabulary": [(x, replace(BASE, vocab=x)) for x in (8000, 32000, 128000)],
    "pairs per step": [(x, replace(BASE, pairs=x, pairs_per_step=x)) for x in (1, 4, 16)],
}
WAYS = [SYSTEMS["orpo-mlx"], SYSTEMS["orpo-mlx plain"]]
LINES = [("default", "#1f6fb2"), ("plain", "#b2521f")]
STEADY = ("in step with the tokens of a pair", "#888888")
METRICS = [
    ("CPU seconds per pair", "cpu_seconds_per_pair", 1.0),
    ("peak memory, MB", "peak_memory_bytes", 1e-6),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, or read what was measured; print the table and draw."""
    args = build_parser().parse_args(argv)
    if args.long:
        result: dict[str, Any] = {"conditions": conditions(), "prompts": []}
        for thousands in args.long.split(","):
            result["prompts"].append(measure_long(int(thousands), args.rounds))
            print(describe_long(result["prompts"][-1]), flush=True)
            if args.out is not None:
                args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        return 0
    if args.read is not None:
        result = json.loads(args.read.read_text(encoding="utf-8"))
    else:
        result = {"conditions": conditions(), "axes": measure(args.axes, args.rounds)}
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.svg is not None:
        args.svg.parent.mkdir(parents=True, exist_ok=True)
        args.svg.write_text(draw(result["axes"]), encoding="utf-8")
    print(describe(result["axes"]))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Measure how a step's cost grows.")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--axes", type=lambda text: text.split(","), default=list(AXES), help="some of them"
    )
    parser.add_argument("--out", type=Path, help="write what was measured to this JSON file")
    parser.add_argument("--read", type=Path, help="measure nothing, take it from this file")
    parser.add_argument("--svg", type=Path, help="draw it")
    parser.add_argument("--long", metavar="N,N", help="thousands of tokens of prompts")
    return parser


def measure(names: Sequence[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return for each axis its points: `at`, for each way the metrics, and what work there is."""
    known: dict[Case, dict[str, Any]] = {}
    axes: dict[str, list[dict[str, Any]]] = {}
    for axis in names:
        axes[axis] = []
        for at, case in AXES[axis]:
            ways = WAYS[: 1 if case.prompt > LONGEST_PLAIN else 2]
            if case not in known:
                known[case] = report_case(case, ways, run_case(case, ways, rounds))
            rows = zip(LINES, known[case]["rows"], strict=False)
            found = {name: {key: row[key] for _, key, _ in METRICS} for (name, _), row in rows}
            axes[axis].append({"at": at, "ways": found, **work_of(case)})
    return axes


def work_of(case: Case) -> dict[str, float]:
    """Return the tokens of a pair, its prompt once, and the share of attention in its products."""
    needed = NOTHING
    for pairs in case.steps():
        needed += useful(pairs, "response")
    config, targets = model_config(case.random()), TARGETS[case.targets]
    whole, rest = (
        flop(shapes, config, targets, RANK) for shapes in (needed, replace(needed, attention=0))
    )
    return {"unique_tokens": needed.tokens / case.pairs, "attention_share": 1 - rest / whole}


def describe(axes: dict[str, list[dict[str, Any]]]) -> str:
    """Return all points as a Markdown table."""
    lines = [
        "| | | Tokens of a pair | Attention's share | default, CPU s/pair | plain, CPU s/pair "
        "| default, peak MB | plain, peak MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for axis, points in axes.items():
        for point in points:
            cells = [f"{point['unique_tokens']:.0f}", f"{point['attention_share']:.0%}"]
            for (_, key, scale), form in zip(METRICS, (".3f", ".0f"), strict=True):
                found = [point["ways"].get(name) for name, _ in LINES]
                cells += [f"{scale * way[key]:{form}}" if way else "" for way in found]
            lines.append(f"| {axis} | {point['at']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


# --- long prompts

LONG_WAYS = ("packed", "causal")


def measure_long(thousands: int, rounds: int) -> dict[str, Any]:
    """Return what a step of two pairs with such prompts takes each way, what `fit` says it takes,
    and which way `auto` is."""
    case = Case("rag", "L", vocab=1000, pairs=2, pairs_per_step=2, length=float(thousands))
    systems = [SYSTEMS[f"orpo-mlx {way}"] for way in LONG_WAYS]
    report = report_case(case, systems, run_case(case, systems, rounds))
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-cost-") as folder:
        write_workload(case.random(), Path(folder))
        answers = {way: ask_fit(case, Path(folder), way) for way in (*LONG_WAYS, "auto")}
    for way, row in zip(LONG_WAYS, report["rows"], strict=True):
        row["estimated_bytes"] = answers[way].estimate.total
    return {**report, "auto": answers["auto"].way}


def ask_fit(case: Case, folder: Path, way: str) -> Any:
    """Return what `orpo-mlx fit` says of a run of the case, with a way of scoring."""
    from orpo_mlx.config import build_config
    from orpo_mlx.planning.fit import answer

    settings = {
        "model": str(model_folder(folder)), "data": str(pairs_file(folder)), "num_layers": -1,
        "target_modules": TARGETS[case.targets], "micro_batch_size": case.pairs_per_step,
        "max_seq_length": max(pair.longest for step in case.steps() for pair in step) + 8,
    }  # fmt: skip
    return answer(build_config({**SAME_OBJECTIVE, **settings, "scoring": way}), 1 << 50)


def describe_long(report: dict[str, Any]) -> str:
    """Return one length as a row of a Markdown table."""
    cells = [f"{report['workload']['prompt_tokens']}"]
    for row in report["rows"]:
        peak, estimate = row["peak_memory_bytes"] / 1e6, row["estimated_bytes"] / 1e6
        cells += [f"{row['cpu_seconds_per_pair']:.2f}", f"{peak:.0f} of {estimate:.0f}"]
    for name in ("cpu_seconds", "peak_memory_bytes"):
        found = report["rows"][1]["against_first"][name]
        cells.append(f"{found['ratio']:.3f} ({found['low']:.3f}-{found['high']:.3f})")
    return f"| {' | '.join([*cells, report['auto']])} |"


# --- picture

WIDTH, HEIGHT, LEFT, TOP = 230, 150, 70, 40


def draw(axes: dict[str, list[dict[str, Any]]]) -> str:
    """Return an SVG: a panel for each metric and axis, both scales logarithmic."""
    panels = [
        panel(column, row, axis, points, label, key, scale)
        for row, (label, key, scale) in enumerate(METRICS)
        for column, (axis, points) in enumerate(axes.items())
    ]
    width, height = (WIDTH + LEFT) * len(axes) + 20, (HEIGHT + 2 * TOP) * len(METRICS) + 20
    legend = [
        f'<text x="{LEFT + 90 * i}" y="18" fill="{colour}">{name}</text>'
        for i, (name, colour) in enumerate([*LINES, STEADY])
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *legend,
            *panels,
            "</svg>\n",
        ]
    )


def panel(
    column: int,
    row: int,
    axis: str,
    points: list[dict[str, Any]],
    label: str,
    key: str,
    scale: float,
) -> str:
    """Return one panel: a frame, its scales, and a line for each way."""
    x0, y0 = LEFT + column * (WIDTH + LEFT), TOP + row * (HEIGHT + 2 * TOP)
    at = [point["at"] for point in points]
    values = lines_of(points, key, scale)
    spread = [value for line in values.values() for value in line]
    xs = [x0 + WIDTH * share(x, at) for x in at]
    parts = [
        f'<rect x="{x0}" y="{y0}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#bbb"/>',
        f'<text x="{x0}" y="{y0 - 6}" fill="#444">{label}</text>',
        f'<text x="{x0 + WIDTH}" y="{y0 + HEIGHT + 30}" text-anchor="end">{axis}</text>',
    ]
    for x, value in zip(xs, at, strict=True):
        parts.append(
            f'<text x="{x:.1f}" y="{y0 + HEIGHT + 15}" text-anchor="middle">{value:g}</text>'
        )
    for name, colour in [*LINES, STEADY]:
        if own := values.get(name):
            ys = [y0 + HEIGHT * (1 - share(y, spread)) for y in own]
            parts += line(xs, ys, own if (name, colour) != STEADY else [], colour)
    return "\n".join(parts)


def lines_of(points: Sequence[dict[str, Any]], key: str, scale: float) -> dict[str, list[float]]:
    """Return the values of each line: of the ways, and of cost in step with tokens."""
    values = {
        name: [scale * p["ways"][name][key] for p in points if name in p["ways"]]
        for name, _ in LINES
    }
    tokens = [point["unique_tokens"] for point in points]
    if key == METRICS[0][1] and tokens[-1] > tokens[0]:
        first = values[LINES[0][0]][0]
        values[STEADY[0]] = [first * count / tokens[0] for count in tokens]
    return values


def line(
    xs: Sequence[float], ys: Sequence[float], values: Sequence[float], colour: str
) -> list[str]:
    """Return a line, with a point and a number for each value; a broken one without values."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=False))
    style = 'stroke-width="2"' if values else 'stroke-dasharray="4 3"'
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" {style}/>']
    for x, y, value in zip(xs, ys, values, strict=False):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{y - 6:.1f}" text-anchor="middle" fill="{colour}">'
            f"{number(value)}</text>"
        )
    return parts


def share(value: float, values: Sequence[float]) -> float:
    """Return where a value stands between the smallest and the largest, by their logarithms; a
    tenth is left free at both ends."""
    low, high = math.log(min(values)), math.log(max(values))
    return 0.5 if high == low else 0.1 + 0.8 * (math.log(value) - low) / (high - low)


def number(value: float) -> str:
    """Return a number with two or three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
