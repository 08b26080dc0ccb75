"""A few steps on a real model beside TRL and mlx-lm-lora: the same numbers, time and memory.

    python benchmarks/make_peers.py trl mlx-lm-lora
    python benchmarks/real_model.py --model FOLDER --data PAIRS --out real.json
    python benchmarks/real_model.py --model FOLDER --workload rag --rounds 5 --out real-rag.json

Pairs that fit into `--longest` tokens are tokenized once, by the model's own template, and every
system gets these ids in this order. With `--workload` the pairs of one step are random tokens, as
many as in that workload of `side_by_side.py`, taken again in the measured step.
This trainer and TRL begin with one adapter, whose B is not zero, and their metrics are compared
step by step; mlx-lm-lora makes its own and is there for time and memory. The folder must be one
that mlx-lm and transformers both load.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from make_peers import PEERS
from side_by_side import (
    FULL_NLL,
    LAM,
    LEARNING_RATE,
    RANK,
    SAME_OBJECTIVE,
    SCALE,
    TARGETS,
    WORKLOADS,
    System,
    against,
    conditions,
    run,
)  # fmt: skip
from work import flop, linear_sizes, packed, useful
from workload import random_pairs

from orpo_mlx.config import build_config
from orpo_mlx.data.prepare import find_training_data, prepare_data
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.load import load_tokenizer

UNMEASURED = 1
SYSTEMS = (
    System("orpo-mlx", options=SAME_OBJECTIVE),
    System("mlx-lm-lora", "mlx-lm-lora"),
    System("orpo-mlx, TRL's loss", options=FULL_NLL),
    System("trl", "trl", options={"learning_rate_schedule": "constant"}),
    System("orpo-mlx, blocks twice", options=SAME_OBJECTIVE | {"grad_checkpoint": "on"}),
)
COMPARED = {
    "mlx-lm-lora": "orpo-mlx",
    "trl": "orpo-mlx, TRL's loss",
    "orpo-mlx, blocks twice": "orpo-mlx",
}
"""With whom each is compared, which has its objective. The last one computes all blocks again in
the backward pass."""

NAMES = {
    "loss": "loss", "nll_loss": "nll_loss", "logps/chosen": "chosen_logps",
    "logps/rejected": "rejected_logps", "log_odds_chosen": "log_odds_ratio",
    "rewards/accuracies": "preference_accuracy",
}  # fmt: skip
"""What is compared: TRL's names, and ours."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write everything."""
    args = build_parser().parse_args(argv)
    systems = [system for system in SYSTEMS if system.name in args.systems]
    missing = [s.peer for s in systems if s.peer and not PEERS[s.peer].is_ready()]
    if missing:
        names = " ".join(missing)
        print(f"error: no environment for {names}\nRun python benchmarks/make_peers.py {names}")
        return 2
    if args.workload:
        args.steps = 1
    pairs = random_ids(args) if args.workload else fitting_pairs(args)
    args.longest = max(pair.longest for pair in token_pairs(pairs))
    results: dict[str, list[dict[str, Any]]] = {system.name: [] for system in systems}
    report: dict[str, Any] = {}
    for _ in iter_rounds(args, pairs, results):
        report = {
            "conditions": conditions()
            | {"workload": args.workload, "pairs": len(pairs), "longest": args.longest},
            "least": least(args, pairs),
            "rows": rows(results),
            "largest_difference": differences(results),
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(describe(report))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    names = [system.name for system in SYSTEMS]
    parser = argparse.ArgumentParser(description="Steps on a real model beside other trainers.")
    parser.add_argument("--model", required=True, help="folder in float32")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", help="preference pairs, any layout")
    source.add_argument("--workload", choices=WORKLOADS, help="one measured step of such lengths")
    parser.add_argument(
        "--systems", nargs="+", choices=names, default=names, metavar="NAME", help="some of them"
    )
    parser.add_argument("--pairs", type=int, default=4, help="to a step")
    parser.add_argument("--longest", type=int, default=384, help="tokens of prompt and answer")
    parser.add_argument("--steps", type=int, default=5, help="measured ones; one more comes before")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="JSON of everything measured")
    return parser


def fitting_pairs(args: argparse.Namespace) -> list[dict[str, list[int]]]:
    """Return the first pairs of the file that fit, as token ids."""
    config = build_config({"model": args.model, "data": args.data, "valid_fraction": 0})
    folder = Path(args.model)
    found = find_training_data(config)
    data = prepare_data(config, found, load_tokenizer(folder), folder)
    fit = [pair for pair in data.train if pair.longest <= args.longest]
    return [
        {
            "prompt_ids": list(pair.prompt),
            "chosen_ids": list(pair.chosen),
            "rejected_ids": list(pair.rejected),
        }
        for pair in fit[: args.pairs * (args.steps + UNMEASURED)]
    ]


def random_ids(args: argparse.Namespace) -> list[dict[str, list[int]]]:
    """Return the pairs of a workload in the words of the model."""
    config = json.loads((Path(args.model) / "config.json").read_text(encoding="utf-8"))
    made = replace(WORKLOADS[args.workload], vocab=config["vocab_size"], pairs=args.pairs)
    return random_pairs(made)


def token_pairs(pairs: list[dict[str, list[int]]]) -> list[TokenPair]:
    """Return the pairs as this trainer has them."""
    return [TokenPair(p["prompt_ids"], p["chosen_ids"], p["rejected_ids"]) for p in pairs]


def iter_rounds(
    args: argparse.Namespace,
    pairs: list[dict[str, list[int]]],
    results: dict[str, list[dict[str, Any]]],
) -> Iterator[None]:
    """Run every system in turn into `results`; yield after each round."""
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-real-model-") as temporary:
        adapter = write_adapter(Path(temporary) / "adapter", Path(args.model))
        systems = [system for system in SYSTEMS if system.name in results]
        for number in range(args.rounds):
            for system in systems if number % 2 == 0 else reversed(systems):
                task = task_of(args, pairs, system, adapter)
                with tempfile.TemporaryDirectory(dir=temporary) as out:
                    file = Path(out) / "task.json"
                    file.write_text(json.dumps(task | {"out": out}), encoding="utf-8")
                    results[system.name].append(run([*system.command(), str(file)]))
                print(f"round {number + 1}: {system.name}", file=sys.stderr, flush=True)
            yield


def task_of(
    args: argparse.Namespace, pairs: list[dict[str, list[int]]], system: System, adapter: Path
) -> dict[str, Any]:
    """Return what a system is to do, see `peers/meter.py`."""
    begin = {"": "init_adapter", "trl": "adapter"}.get(system.peer)
    return {
        "model": args.model,
        "pairs": pairs,
        "pairs_per_step": args.pairs,
        "steps": args.steps + UNMEASURED,
        "unmeasured": UNMEASURED,
        "targets": TARGETS["qv"],
        "rank": RANK,
        "scale": SCALE,
        "learning_rate": LEARNING_RATE,
        "lam": LAM,
        "longest": args.longest + 8,  # some round up before they cut
        "options": system.options | ({begin: str(adapter)} if begin else {}),
    }


def write_adapter(folder: Path, model: Path) -> Path:
    """Write a PEFT adapter of seeded random numbers for a Llama; return its folder."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    value = hidden // heads * config["num_key_value_heads"]
    random = np.random.default_rng(0)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        for name, width in (("q_proj", hidden), ("v_proj", value)):
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            for part, shape in (("A", (RANK, hidden)), ("B", (width, RANK))):
                numbers = 0.01 * random.standard_normal(shape)
                weights[f"{place}.lora_{part}.weight"] = mx.array(numbers, mx.float32)
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), weights)
    about = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": int(SCALE * RANK),
        "target_modules": TARGETS["qv"], "lora_dropout": 0.0, "bias": "none",
        "base_model_name_or_path": str(model),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


# --- numbers and words


def least(args: argparse.Namespace, pairs: list[dict[str, list[int]]]) -> dict[str, float]:
    """Return what this trainer cannot do without in a step, for a Llama in float32: operations of
    matrix products, and bytes that live until the backward pass where nothing is computed again.

    Kept are the weights and, of each block: its input and what follows attention, queries, keys and
    values, one array of scores, gate and up of the MLP.
    """
    config = json.loads((Path(args.model) / "config.json").read_text(encoding="utf-8"))
    step = token_pairs(pairs[: args.pairs])
    shapes = {"useful": useful(step, "response"), "done": packed(step, "response", sys.maxsize)}
    sizes = linear_sizes(config)
    widths = {name: sizes[name][1] for name in ("q_proj", "k_proj", "v_proj", "gate_proj")}
    per_token = 2 * config["hidden_size"] + sum(widths.values()) + widths["gate_proj"]
    blocks, row = config["num_hidden_layers"], shapes["done"]
    scores = config["num_attention_heads"] * row.attention
    weights = sum(file.stat().st_size for file in Path(args.model).glob("*.safetensors"))
    return {
        "useful_flop": flop(shapes["useful"], config, TARGETS["qv"], RANK),
        "done_flop": flop(row, config, TARGETS["qv"], RANK),
        "score_bytes": 4 * blocks * scores,
        "kept_bytes": weights + 4 * blocks * (row.tokens * per_token + scores),
    }


def rows(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the medians of each system, and how a peer compares with this trainer."""
    table = []
    for name, runs in results.items():
        first = COMPARED.get(name)
        memory = [run["peak_memory_bytes"] for run in runs if run["peak_memory_bytes"]]
        table.append(
            {
                "system": name,
                "rounds": len(runs),
                "cpu_seconds_per_step": float(np.median([np.mean(r["cpu_seconds"]) for r in runs])),
                "peak_memory_bytes": float(np.median(memory)) if memory else None,
                "peak_rss_bytes": float(np.median([r["peak_rss_bytes"] for r in runs])),
                "losses": runs[0]["losses"],
                "versions": runs[0]["versions"],
                "against": against(results[first], runs) if first in results else None,
            }
        )
    return table


def differences(results: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return the largest difference of each metric from TRL's over all steps, relative above 1."""
    if not {"trl", COMPARED["trl"]} <= set(results):
        return {}
    ours, theirs = (results[name][0]["metrics"] for name in (COMPARED["trl"], "trl"))
    return {
        name: max(
            abs(a[name] - float(b[key])) / max(1.0, abs(float(b[key])))
            for a, b in zip(ours, theirs, strict=True)
        )
        for key, name in NAMES.items()
    }


def describe(report: dict[str, Any]) -> str:
    """Return everything as Markdown."""

    def ratio(row: dict[str, Any], name: str) -> str:
        found = row["against"] and row["against"][name]
        return "{ratio:.2f}x ({low:.2f}-{high:.2f})".format(**found) if found else ""

    def size(value: float | None) -> str:
        return f"{value / 1e6:.0f} MB" if value else ""

    lines = [
        "| system | CPU s/step | peak MLX | peak of the process | time | memory |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        memory = ratio(row, "peak_memory_bytes") or ratio(row, "peak_rss_bytes")
        cells = [
            row["system"], f"{row['cpu_seconds_per_step']:.2f}", size(row["peak_memory_bytes"]),
            size(row["peak_rss_bytes"]), ratio(row, "cpu_seconds"), memory,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    if report["largest_difference"]:
        lines += ["", "Largest difference from TRL, relative above 1:"]
    lines += [f"- {name}: {value:.1e}" for name, value in report["largest_difference"].items()]
    counted = report["least"]
    lines += [
        "",
        f"A step has {counted['useful_flop'] / 1e9:.0f} GFLOP of matrix products, this trainer "
        f"{counted['done_flop'] / 1e9:.0f}; {size(counted['kept_bytes'])} live until its backward "
        f"pass, {size(counted['score_bytes'])} of them scores.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
