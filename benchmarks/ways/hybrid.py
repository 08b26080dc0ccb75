"""What a step on hybrid and recurrent models costs, scored one way and another.

    python -m benchmarks.ways.hybrid --rounds 7 --out benchmarks/results/hybrid.json
    python -m benchmarks.ways.hybrid --models qwen3_5 --size small --ways fork,packed

Each model is random and has a process of its own. In each round every way takes a step on the same
new pairs, from the same weights, in turns of order; the first step of a way, on pairs of no round,
is not measured. Counted is user CPU time of all threads, and MLX's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workload import Workload, random_pairs

SIZES = {
    "tiny": {"hidden": 64, "layers": 4, "vocab": 1000, "head": 16},
    "small": {"hidden": 256, "layers": 4, "vocab": 8000, "head": 32},
}
PAIRS, SPREAD = 8, 0.5
WORKLOADS = {"short": (24, 12), "hh": (150, 60)}
"""Median tokens of prompts and answers; hh is that of side_by_side.py."""


@dataclass(frozen=True)
class Task:
    """A model of `configs`, its size, and how long pairs are."""

    model: str
    size: str
    workload: str


def configs(hidden: int, layers: int, vocab: int, head: int) -> dict[str, dict[str, Any]]:
    """Return config.json of each model; one layer of four has attention where a kind has any."""
    heads = hidden // head
    common = {
        "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": 3 * hidden,
        "num_attention_heads": heads, "num_key_value_heads": heads // 2, "head_dim": head,
        "rms_norm_eps": 1e-5, "vocab_size": vocab, "rope_theta": 10000.0,
        "max_position_embeddings": 4096, "tie_word_embeddings": False,
    }  # fmt: skip
    delta = {
        "full_attention_interval": layers, "linear_num_key_heads": heads // 2,
        "linear_num_value_heads": heads, "linear_key_head_dim": head,
        "linear_value_head_dim": head, "linear_conv_kernel_dim": 4, "partial_rotary_factor": 0.5,
    }  # fmt: skip
    kinds: dict[str, dict[str, Any]] = {
        "qwen3_5": {"text_config": {**common, **delta, "model_type": "qwen3_5_text"}},
        "qwen3_next": {
            **delta, "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1,
            "shared_expert_intermediate_size": hidden, "mlp_only_layers": [],
            "moe_intermediate_size": hidden, "norm_topk_prob": True,
        },
        "lfm2": {
            "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "block_dim": hidden,
            "block_ff_dim": 3 * hidden, "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": False, "full_attn_idxs": [layers - 1],
        },
        "granitemoehybrid": {
            "attention_bias": False, "embedding_multiplier": 2.0, "attention_multiplier": 0.25,
            "logits_scaling": 2.0, "residual_multiplier": 0.5, "mamba_n_heads": 2 * heads,
            "mamba_d_head": head, "mamba_proj_bias": False, "mamba_d_state": head,
            "mamba_d_conv": 4, "mamba_n_groups": 1, "mamba_conv_bias": True,
            "layer_types": [*["mamba"] * (layers - 1), "attention"],
        },
        "mamba2": {
            "num_heads": 2 * heads, "head_dim": head, "state_size": head, "conv_kernel": 4,
            "n_groups": 1, "use_bias": False, "use_conv_bias": True, "layer_norm_epsilon": 1e-5,
            "time_step_limit": [0.001, 100.0], "time_step_rank": 4,
        },
    }  # fmt: skip
    return {name: {**common, **own, "model_type": name} for name, own in kinds.items()}


def build_model(config: dict[str, Any]) -> Any:
    """Return a random model with LoRA of rank 8 in all linear layers, B drawn too."""
    import mlx.core as mx
    from mlx_lm.utils import _get_classes

    from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
    from orpo_mlx.verify.gradients import fill_adapter

    mx.random.seed(1)
    model_class, args_class = _get_classes(config)
    model: Any = model_class(args_class.from_dict(config))
    attach_adapter(model, AdapterSpec(rank=8), seed=0)
    fill_adapter(model)
    mx.eval(model.parameters())
    return model


def measure(task: Task, ways: Sequence[str], rounds: int) -> dict[str, Any]:
    """Return for each way what each round took, and how far gradients are from plain rows."""
    from orpo_mlx.scoring.select import WAYS

    model = build_model(configs(**SIZES[task.size])[task.model])
    steps = {name: Stepper(model, WAYS[name], task) for name in [*ways, "plain"]}
    wanted = steps.pop("plain").gradient(seed=0)
    apart = {name: largest_distance(step.gradient(seed=0), wanted) for name, step in steps.items()}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    for number in range(rounds):
        order = list(steps) if number % 2 else list(reversed(steps))
        for name in order:
            taken[name].append(steps[name].step(seed=number + 1))
    return {"apart": apart, "rounds": taken}


class Stepper:
    """Takes steps on a model by one way of scoring; the optimizer's rate is 0, so it stays."""

    def __init__(self, model: Any, way: Any, task: Task) -> None:
        from orpo_mlx.config import build_config
        from orpo_mlx.scoring.base import Scoring
        from orpo_mlx.training.optimizer import build_optimizer
        from orpo_mlx.training.preparation.objective import objective
        from orpo_mlx.training.step import TrainStep

        config = build_config({"nll_scope": "response"})
        self.scoring, self.task = Scoring(way, "response"), task
        goal = objective(config)
        optimizer = build_optimizer(config)
        self.take = TrainStep(model, optimizer, goal, self.scoring, compiled=False)

    def batch(self, seed: int, count: int = PAIRS) -> Any:
        """Return pairs of a seed, in one forward pass."""
        from orpo_mlx.data.types import TokenPair

        prompt, answer = WORKLOADS[self.task.workload]
        drawn = random_pairs(
            Workload(vocab=SIZES[self.task.size]["vocab"], pairs=PAIRS, prompt_tokens=prompt,
                     response_tokens=answer, length_spread=SPREAD, seed=seed)
        )  # fmt: skip
        rows = [TokenPair(r["prompt_ids"], r["chosen_ids"], r["rejected_ids"]) for r in drawn]
        return self.scoring.build(rows, range(count))

    def gradient(self, seed: int) -> dict[str, np.ndarray]:
        """Return the gradient of two pairs; plain rows of more take mlx-lm minutes."""
        import mlx.core as mx
        from mlx.utils import tree_flatten

        flat: Any = tree_flatten(self.take.gradient([self.batch(seed, 2)], mx.random.key(0)))
        return {name: np.array(value) for name, value in flat}

    def step(self, seed: int) -> dict[str, float]:
        """Take a step; return CPU seconds of the process and peak bytes."""
        import mlx.core as mx

        mx.clear_cache()
        mx.reset_peak_memory()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        self.take([self.batch(seed)], mx.random.key(0), 0.0)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        return {"cpu_seconds": after - before, "peak_bytes": mx.get_peak_memory()}


def largest_distance(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """Return the largest relative distance, by norm, of a parameter's gradient."""
    norm = np.linalg.norm
    return max(float(norm(found[name] - wanted[name]) / norm(wanted[name])) for name in wanted)


def summary(found: dict[str, Any], ways: Sequence[str]) -> dict[str, Any]:
    """Return medians, and the ratio of the first way to the others with its 95 % interval."""
    rounds = found["rounds"]
    each: dict[str, Any] = {
        name: {
            "cpu_seconds_per_pair": statistics.median(r["cpu_seconds"] for r in rounds[name])
            / PAIRS,
            "peak_bytes": max(r["peak_bytes"] for r in rounds[name]),
            "gradient_apart": found["apart"][name],
        }
        for name in ways
    }
    for name in ways[1:]:
        pairs = zip(rounds[ways[0]], rounds[name], strict=True)
        ratios = [a["cpu_seconds"] / b["cpu_seconds"] for a, b in pairs]
        each[name]["times_less"] = statistics.median(ratios)
        each[name]["interval"] = interval(ratios)
    return each


def interval(ratios: Sequence[float]) -> list[float]:
    """Return the middle 95 % of medians of resampled rounds."""
    drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    return [float(x) for x in np.percentile(np.median(drawn, axis=1), [2.5, 97.5])]


def table(models: dict[str, dict[str, Any]], ways: Sequence[str]) -> str:
    """Return what was found as a Markdown table."""
    lines = [
        "| Model | Way | CPU s/pair | Peak in MLX | Time of "
        f"{ways[0]} against it | Gradient from plain rows |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for title, each in models.items():
        for name in ways:
            row = each[name]
            times = ""
            if "interval" in row:
                low, high = row["interval"]
                times = f"{row['times_less']:.1f}x ({low:.1f}-{high:.1f})"
            cells = [
                title if name == ways[0] else "", name, f"{row['cpu_seconds_per_pair']:.4f}",
                f"{row['peak_bytes'] / 1e6:.0f} MB", times, f"{row['gradient_apart']:.1e}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def conditions(size: str) -> dict[str, Any]:
    """Return what a figure should not be read without."""
    return {
        "system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count(),
        "mlx": version("mlx"), "mlx-lm": version("mlx-lm"),
        "preload": Path(os.environ.get("LD_PRELOAD", "")).name, "load": os.getloadavg(),
        "pairs": PAIRS, "workloads": WORKLOADS, "spread": SPREAD, "size": SIZES[size],
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all models, each in a process of its own; print the table."""
    args = build_parser().parse_args(argv)
    ways = args.ways.split(",")
    if args.one:
        print(json.dumps(measure(Task(**json.loads(args.one)), ways, args.rounds)))
        return 0
    found, raw = {}, {}
    for workload in args.workloads.split(","):
        for name in args.models.split(","):
            task, title = Task(name, args.size, workload), f"{name}, {workload}"
            raw[title] = measure_apart(task, args.ways, args.rounds)
            found[title] = summary(raw[title], ways)
            print(table({title: found[title]}, ways).split("\n", 2)[2], flush=True)
    if args.out:
        whole = {"conditions": conditions(args.size), "models": found, "rounds": raw}
        args.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(table(found, ways))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Measure ways of scoring on hybrid models.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--models", default=",".join(configs(**SIZES["tiny"])))
    parser.add_argument("--ways", default="fork,packed")
    parser.add_argument("--out", type=Path, help="write what was measured to this JSON file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


def measure_apart(task: Task, ways: str, rounds: int) -> dict[str, Any]:
    """Measure in a fresh process: the peak of one model must not hold anything of another."""
    command = [sys.executable, "-m", "benchmarks.ways.hybrid", "--one", json.dumps(asdict(task))]
    command += ["--rounds", str(rounds), "--ways", ways]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
