"""The paper's pilot study on a real model: what training does to chosen and rejected answers.

    python benchmarks/pilot_study.py --model FOLDER --data PAIRS --runs FOLDER --out pilot.json
    python benchmarks/pilot_study.py ... --cells sft,orpo-0.1,orpo-1,dpo-0.1 --seeds 0,1,2

Section 3.1 of Hong et al. 2024 (arXiv 2403.07691): under SFT the log-probs of rejected answers rise
with those of the chosen ones; under ORPO they part. Each cell is an objective, a seed and a
learning rate; it is one run through the command line, judged by `orpo-mlx evaluate` on the same
held-out pairs. The study goes on where it was stopped: whole runs are kept in `--runs`, and what
has been measured before stays in `--out`. It draws OUT with the ending .svg.

So that a CPU can do it, prompts are their last user turn, cut to `--prompt-tokens`, and answers are
cut to `--answer-tokens`; tokens are made once, so every cell trains on the same ones.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from side_by_side import conditions

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import EvalCompleted, read_events
from orpo_mlx.text.svg_chart import HEIGHT, Series, chart_svg, svg_page

CELLS: dict[str, list[str]] = {
    "sft": ["--objective", "sft"],
    "orpo-0.1": ["--objective", "orpo", "--lam", "0.1"],
    "orpo-0.5": ["--objective", "orpo", "--lam", "0.5"],
    "orpo-1": ["--objective", "orpo", "--lam", "1"],
    "dpo-0.1": ["--objective", "dpo", "--beta", "0.1"],
    "kto-0.1": ["--objective", "kto", "--beta", "0.1", "--unpair", "--micro-batch-size", "8"],
}
"""What is compared; the number is ORPO's lambda, or the beta of DPO and KTO."""

LINES = (("chosen", "chosen_logps"), ("rejected", "rejected_logps"))
SHOWN = ("preference_accuracy", "log_odds_ratio", "chosen_logps", "rejected_logps")


def main(argv: Sequence[str] | None = None) -> int:
    """Run every cell that has not been measured, and write and draw what is known after each."""
    args = build_parser().parse_args(argv)
    data = write_rows(args)
    done: list[dict[str, Any]] = []
    if args.out.exists():
        done = json.loads(args.out.read_text(encoding="utf-8"))["cells"]
    for seed in args.seeds:
        for name in args.cells:
            for rate in args.rates:
                cell = {"name": name, "seed": seed, "rate": rate, "steps": args.steps}
                if not any(cell.items() <= known.items() for known in done):
                    done.append(cell | measure(args, data, cell))
                    write(args, done)
    write(args, done)
    print(describe(done))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""

    def several(kind: Any) -> Any:
        return lambda text: [kind(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description="The paper's pilot study on a real model.")
    parser.add_argument("--model", required=True, help="folder of mlx-lm, in float32 for a CPU")
    parser.add_argument("--data", type=Path, required=True, help="JSON rows, ShareGPT or prompt")
    parser.add_argument("--runs", type=Path, required=True, help="where its runs are kept")
    parser.add_argument("--out", type=Path, required=True, help="JSON of everything measured")
    parser.add_argument("--cells", type=several(str), default=list(CELLS))
    parser.add_argument("--seeds", type=several(int), default=[0, 1, 2])
    parser.add_argument("--rates", type=several(float), default=[1e-4])
    parser.add_argument("--steps", type=int, default=100, help="of 4 pairs")
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--prompt-tokens", type=int, default=120)
    parser.add_argument("--answer-tokens", type=int, default=48)
    return parser


# --- pairs


def write_rows(args: argparse.Namespace) -> tuple[Path, Path]:
    """Write token ids of the pairs to train on and of those held out; return the two files."""
    from orpo_mlx.models.load import load_tokenizer

    tokenizer: Any = load_tokenizer(Path(args.model))
    rows = json.loads(args.data.read_text(encoding="utf-8"))
    pairs = [as_ids(row, tokenizer, args) for row in rows]
    pairs = [pair for pair in pairs if pair["chosen_ids"] != pair["rejected_ids"]]
    random.Random(0).shuffle(pairs)
    files = args.runs / "train.jsonl", args.runs / "held-out.jsonl"
    args.runs.mkdir(parents=True, exist_ok=True)
    for file, part in zip(files, (pairs[args.held_out :], pairs[: args.held_out]), strict=True):
        file.write_text("".join(json.dumps(pair) + "\n" for pair in part), encoding="utf-8")
    return files


def as_ids(row: dict[str, Any], tokenizer: Any, args: argparse.Namespace) -> dict[str, list[int]]:
    """Return a ShareGPT pair as tokens: its last user turn and the beginnings of both answers."""

    def ids(text: str, most: int) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)[:most]

    last = tokenizer.decode(ids(row["conversations"][-1]["value"], args.prompt_tokens))
    turns = [{"role": "user", "content": last}]
    return {
        "prompt_ids": list(tokenizer.apply_chat_template(turns, add_generation_prompt=True)),
        "chosen_ids": ids(row["chosen"]["value"], args.answer_tokens),
        "rejected_ids": ids(row["rejected"]["value"], args.answer_tokens),
    }


# --- runs


def measure(
    args: argparse.Namespace, data: tuple[Path, Path], cell: dict[str, Any]
) -> dict[str, Any]:
    """Train a cell, or go on with it, and judge it; return its course and its evaluation."""
    folder = args.runs / "{name}-seed{seed}-rate{rate:g}-steps{steps}".format(**cell)
    run = RunDirectory(folder)
    if not run.events_file.exists():
        command("train", *settings(args, data, cell), "--run-dir", str(folder))
    elif run.last_status() != "completed":
        command("resume", str(folder))
    judged = command("evaluate", str(folder), "--data", str(data[1]), "--json", "--no-drift")
    evaluation = json.loads(judged)
    return {
        "course": [
            {"step": event.step, **{metric: event.value(metric) for _, metric in LINES}}
            for event in events(run)
            if isinstance(event, EvalCompleted)
        ],
        "evaluation": evaluation,
    }


def settings(
    args: argparse.Namespace, data: tuple[Path, Path], cell: dict[str, Any]
) -> Iterable[str]:
    """Return the options of a cell's run; what is not named has its default."""
    more = {
        "model": args.model, "data": data[0], "valid-data": data[1], "steps": cell["steps"],
        "seed": cell["seed"], "learning-rate": cell["rate"], "micro-batch-size": 4,
        "eval-every": max(1, cell["steps"] // 2), "save-every": max(1, cell["steps"] // 2),
        "sample-prompts": 0, "drift-every": 0, "eval-pairs": 100,
    }  # fmt: skip
    words = [word for name, value in more.items() for word in (f"--{name}", str(value))]
    return [*words, *CELLS[cell["name"]], "--no-evaluate"]


def command(*words: str) -> str:
    """Run a command of the program and return what it printed; its failure ends the study."""
    print(" ".join(words), file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "orpo_mlx", *words], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"error: {words[0]} ended with {done.returncode}, see above")
    return done.stdout


def events(run: RunDirectory) -> list[Any]:
    """Return the events of a run."""
    return [record.event for record in read_events(run.events_file)]


# --- words and picture


def write(args: argparse.Namespace, done: Sequence[dict[str, Any]]) -> None:
    """Write what is known so far, and its picture."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    study = {name: getattr(args, name) for name in ("held_out", "prompt_tokens", "answer_tokens")}
    text = json.dumps({"conditions": conditions() | study, "cells": done}, indent=1)
    args.out.write_text(text + "\n", encoding="utf-8")
    args.out.with_suffix(".svg").write_text(draw(done), encoding="utf-8")


def describe(done: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table: what each cell changed on the held-out pairs."""
    lines = [
        "| cell | seed | rate | steps | " + " | ".join(SHOWN) + " | verdict |",
        "| --- " * (len(SHOWN) + 5) + "|",
    ]
    for cell in done:
        metrics = cell["evaluation"]["metrics"]
        changes = [
            "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**metrics[name]["difference"])
            if name in metrics
            else ""
            for name in SHOWN
        ]
        words = [cell["name"], str(cell["seed"]), f"{cell['rate']:g}", str(cell["steps"]), *changes]
        lines.append(f"| {' | '.join(words)} | {cell['evaluation']['verdict']['text']} |")
    return "\n".join(lines)


def draw(done: Sequence[dict[str, Any]]) -> str:
    """Return an SVG: a chart for each kind of cell, its chosen and rejected answers by step."""
    kinds = sorted({(cell["name"], cell["rate"], cell["steps"]) for cell in done})
    charts = []
    for number, (name, rate, steps) in enumerate(kinds):
        series = [
            Series(
                f"{label}, seed {cell['seed']}",
                [at["step"] for at in cell["course"]],
                [at[metric] - cell["course"][0][metric] for at in cell["course"]],
                colour=colour,
            )
            for cell in done
            if (cell["name"], cell["rate"], cell["steps"]) == (name, rate, steps)
            for colour, (label, metric) in enumerate(LINES)
        ]
        unit = "nats, whole answers" if name.startswith(("dpo", "kto")) else "nats per token"
        title = f"{name}, rate {rate:g}, {steps} steps: change of held-out log-probs, {unit}"
        charts.append(chart_svg(title, "step", series, number * HEIGHT))
    return svg_page(charts)


if __name__ == "__main__":
    sys.exit(main())
