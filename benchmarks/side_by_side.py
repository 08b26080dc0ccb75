"""One training step of this trainer and of its peers on the same pairs and weights, interleaved.

    python benchmarks/make_peers.py
    python benchmarks/side_by_side.py --workloads uf,rag,hh --rounds 3 --out result.json
    python benchmarks/side_by_side.py --workloads hh --vocab 128000 --systems orpo-mlx,mlx-lm-lora

Each run is a process that trains a random Llama for a few steps through the trainer's own public
entry, with its own batches, on rows in the order of the file. The first step is not measured. The
order of the systems turns round with every round. What each row means stands in README.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from compare import compare
from make_peers import HERE, PEERS
from work import NOTHING, Shapes, flop, packed, padded, useful
from workload import Workload, model_config, model_folder, pairs_file, random_pairs, scaled

import orpo_mlx
from orpo_mlx.data.batching.packed import round_up
from orpo_mlx.data.types import TokenPair

RANK, SCALE, LEARNING_RATE, LAM = 8, 2.0, 5e-5, 0.1

WORKLOADS = {
    "uf": Workload(prompt_tokens=120, response_tokens=300, length_spread=0.25),
    "rag": Workload(prompt_tokens=1000, response_tokens=80, length_spread=0.15),
    "hh": Workload(prompt_tokens=150, response_tokens=60, length_spread=0.5),
}
"""Lengths like those of UltraFeedback, of questions with retrieved passages, and of HH-RLHF."""

SIZES: dict[str, dict[str, Any]] = {
    "S": {"hidden": 256, "layers": 4, "heads": 4},
    "B": {"hidden": 512, "layers": 8, "heads": 8},
    # One head, since a CPU keeps its scores: 16,000 tokens of a prompt take 0.5 GB in each layer.
    "L": {"hidden": 64, "layers": 2, "heads": 1},
    # 0.7 billion parameters with a vocabulary of 128,000, as a user would train them: for a GPU.
    "M": {"hidden": 1024, "layers": 24, "heads": 16, "bits": 4, "dtype": "bfloat16"},
}
TARGETS = {
    "qv": ["q_proj", "v_proj"],
    "all": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}

SAME_OBJECTIVE = {
    "nll_scope": "response",
    "nll_reduction": "pair",
    "schedule": "constant",
    "warmup": 0,
    "max_grad_norm": 0,
}
"""What makes this trainer's loss that of mlx-lm-lora."""


@dataclass(frozen=True)
class System:
    """One of those compared.

    Attributes:
        name: in the table.
        peer: of `make_peers.PEERS`; "" is this trainer.
        options: settings of this trainer.
    """

    name: str
    peer: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def command(self) -> list[str]:
        """Return what to run, short of the task."""
        if not self.peer:
            return [sys.executable, str(HERE / "peers" / "orpo_mlx_steps.py")]
        return [str(PEERS[self.peer].python), str(PEERS[self.peer].script)]

    def scope(self) -> str:
        """Return which tokens of the chosen side its NLL counts."""
        if self.options.get("objective") == "dpo":
            return "response"
        if self.peer:
            return "response" if self.peer == "mlx-lm-lora" else "full"
        return self.options.get("nll_scope", "response")

    def done(self, pairs: Sequence[TokenPair]) -> Shapes | None:
        """Return what it computes for a step; none where that is not known, as of a peer's DPO."""
        if self.peer and self.options.get("objective") == "dpo":
            return None
        longest = max(pair.longest for pair in pairs)
        if not self.peer and self.options.get("scoring") != "plain":
            return packed(pairs, self.scope(), self.options.get("tokens_per_batch", 4096))
        width = {
            "": round_up(longest - 1, 32),
            "mlx-lm-lora": round_up(longest, 8) - 1,
            "mlx-tune": round_up(longest, 64) - 1,
            "trl": longest,
        }.get(self.peer)
        return padded(len(pairs), width) if width else None


FULL_NLL = {"nll_scope": "full", "schedule": "constant", "warmup": 0}
"""The objective of TRL."""

DPO = {"objective": "dpo", "beta": 0.1}
PLAIN = {"scoring": "plain", "batching": "fixed"}
SYSTEMS = {
    system.name: system
    for system in (
        System("orpo-mlx", options=SAME_OBJECTIVE),
        System("orpo-mlx plain", options=SAME_OBJECTIVE | PLAIN),
        System("orpo-mlx full nll", options=FULL_NLL),
        System("orpo-mlx plain full nll", options=FULL_NLL | PLAIN),
        System("orpo-mlx packed", options=SAME_OBJECTIVE | {"scoring": "packed"}),
        System("orpo-mlx causal", options=SAME_OBJECTIVE | {"scoring": "causal"}),
        System("mlx-lm-lora", "mlx-lm-lora"),
        System("mlx-tune", "mlx-tune"),
        System("unsloth-zoo", "unsloth-zoo"),
        System("trl", "trl"),
        System("orpo-mlx dpo", options=DPO | FULL_NLL | {"nll_scope": "response"}),
        System("mlx-lm-lora dpo", "mlx-lm-lora", DPO),
        System("trl dpo", "trl", DPO),
    )
}


_NOT_BY_DEFAULT = ("orpo-mlx plain full nll", "orpo-mlx packed", "orpo-mlx causal")
DEFAULT_SYSTEMS = [
    name for name in SYSTEMS if name not in _NOT_BY_DEFAULT and not name.endswith(" dpo")
]


@dataclass(frozen=True)
class Case:
    """A workload, a model and an adapter.

    Attributes:
        workload, size, targets: keys of `WORKLOADS`, `SIZES` and `TARGETS`.
        pairs: in the data, all of them measured.
        length: factor on the workload's lengths.
        prompt, layers: median tokens of prompts and blocks of the model; 0 = the workload's, the
            size's.
        unmeasured: steps before.
    """

    workload: str
    size: str = "S"
    vocab: int = 32000
    targets: str = "qv"
    pairs: int = 8
    pairs_per_step: int = 4
    length: float = 1.0
    prompt: int = 0
    layers: int = 0
    unmeasured: int = 1

    def random(self) -> Workload:
        """Return the model and pairs to make."""
        own = {"vocab": self.vocab, "pairs": self.pairs, **SIZES[self.size]}
        if self.layers:
            own["layers"] = self.layers
        made = scaled(WORKLOADS[self.workload], self.length, **own)
        return replace(made, prompt_tokens=self.prompt) if self.prompt else made

    def steps(self) -> list[list[TokenPair]]:
        """Return the pairs of each measured step."""
        rows = [
            TokenPair(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"])
            for row in random_pairs(self.random())
        ]
        size = self.pairs_per_step
        return [rows[i : i + size] for i in range(0, len(rows), size)]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the cases of the command line, print a table of each, write them all."""
    args = build_parser().parse_args(argv)
    systems = [SYSTEMS[name] for name in args.systems]
    missing = [s.peer for s in systems if s.peer and not PEERS[s.peer].is_ready()]
    if args.available:
        systems = [s for s in systems if s.peer not in missing]
    elif missing:
        names = " ".join(missing)
        print(f"error: no environment for {names}\nRun python benchmarks/make_peers.py {names}")
        return 2
    cases = [
        Case(workload, size, vocab, targets, args.pairs)
        for size in args.sizes
        for vocab in args.vocab
        for targets in args.targets
        for workload in args.workloads
    ]
    reports: list[dict[str, Any]] = []
    for case in cases:
        results: dict[str, list[dict[str, Any]]] = {}
        for results in iter_rounds(case, systems, args.rounds):
            # After every round, because hours may pass until the last one.
            report = report_case(case, systems, results)
            write([*reports, report], args.out)
        reports.append(report_case(case, systems, results))
        print(describe(reports[-1]), flush=True)
    return 0


def write(reports: list[dict[str, Any]], out: Path | None) -> None:
    """Write what was measured so far."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"conditions": conditions(), "cases": reports}, indent=1)
        out.write_text(text + "\n", encoding="utf-8")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""

    def one_of(known: Any) -> Any:
        def convert(text: str) -> list[str]:
            names = text.split(",")
            wrong = [name for name in names if name not in known]
            if wrong:
                raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(known)}")
            return names

        return convert

    parser = argparse.ArgumentParser(description="Compare a training step with the peers'.")
    parser.add_argument("--workloads", type=one_of(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--sizes", type=one_of(SIZES), default=["S"])
    parser.add_argument("--targets", type=one_of(TARGETS), default=["qv"])
    parser.add_argument(
        "--vocab", type=lambda text: [int(n) for n in text.split(",")], default=[32000]
    )
    parser.add_argument("--systems", type=one_of(SYSTEMS), default=DEFAULT_SYSTEMS)
    parser.add_argument(
        "--available", action="store_true", help="leave out peers without an environment"
    )
    parser.add_argument("--pairs", type=int, default=8, help="4 to a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write everything measured to this JSON file")
    return parser


# --- runs


def run_case(case: Case, systems: Sequence[System], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run every system `rounds` times; see `iter_rounds`."""
    *_, results = iter_rounds(case, systems, rounds)
    return results


def iter_rounds(
    case: Case, systems: Sequence[System], rounds: int
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Run every system in turn; after each round yield all measurements so far, by name, and
    under "" those of the machine's matmul rate."""
    results: dict[str, list[dict[str, Any]]] = {"": [], **{s.name: [] for s in systems}}
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-side-by-side-") as temporary:
        folder = Path(temporary)
        maker = [sys.executable, str(HERE / "workload.py"), str(folder)]
        subprocess.run([*maker, json.dumps(asdict(case.random()))], check=True)
        for i in range(rounds):
            results[""].append(run([sys.executable, str(HERE / "rate.py"), case.random().dtype]))
            for system in systems if i % 2 == 0 else reversed(systems):
                results[system.name].append(run_once(case, system, folder))
                cpu = sum(results[system.name][-1]["cpu_seconds"])
                print(f"round {i + 1}: {system.name} {cpu:.2f} s", file=sys.stderr, flush=True)
            yield results


def run_once(case: Case, system: System, folder: Path) -> dict[str, Any]:
    """Train once in a process of its own."""
    pairs = [json.loads(line) for line in pairs_file(folder).read_text().splitlines()]
    longest = max(pair.longest for step in case.steps() for pair in step)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        task = {
            "model": str(model_folder(folder)),
            "pairs": pairs,
            "pairs_per_step": case.pairs_per_step,
            "steps": case.unmeasured + len(case.steps()),
            "unmeasured": case.unmeasured,
            "targets": TARGETS[case.targets],
            "rank": RANK,
            "scale": SCALE,
            "learning_rate": LEARNING_RATE,
            "lam": LAM,
            "longest": longest + 8,  # some round up before they cut
            "out": out,
            "options": system.options,
        }
        (Path(out) / "task.json").write_text(json.dumps(task), encoding="utf-8")
        return run([*system.command(), str(Path(out) / "task.json")])


def run(command: list[str]) -> dict[str, Any]:
    """Run a command and return the JSON of its last line; its failure ends the program."""
    # Only this trainer's script needs the path; a peer is what its environment holds.
    path = {"PYTHONPATH": str(HERE.parent)} if command[0] == sys.executable else {}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | path
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- numbers


def report_case(
    case: Case, systems: Sequence[System], results: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return the medians of a case, and how each system compares with the first one."""
    config = model_config(case.random())
    rate = float(np.median([run["flop_per_second"] for run in results[""]]))
    first = systems[0].name
    rows = []
    for system in systems:
        runs = results[system.name]
        work = count_work(case, system, config)
        cpu = [sum(run["cpu_seconds"]) / case.pairs for run in runs]
        memory = [run["peak_memory_bytes"] for run in runs if run["peak_memory_bytes"]]
        rows.append(
            {
                "system": system.name,
                "cpu_seconds_per_pair": float(np.median(cpu)),
                "wall_seconds_per_pair": float(
                    np.median([sum(run["wall_seconds"]) / case.pairs for run in runs])
                ),
                "peak_memory_bytes": float(np.median(memory)) if memory else None,
                "peak_rss_bytes": float(np.median([run["peak_rss_bytes"] for run in runs])),
                "losses": runs[0]["losses"],
                "reference_cpu_seconds": float(
                    np.median([run.get("reference_cpu_seconds", 0.0) for run in runs])
                ),
                "remark": runs[0].get("remark", ""),
                "versions": runs[0]["versions"],
                **work,
                "share_of_floor": work["useful_flop"] / rate / (np.median(cpu) * case.pairs),
                "against_first": against(results[first], runs),
                "cpu_seconds": [run["cpu_seconds"] for run in runs],
                "wall_seconds": [run["wall_seconds"] for run in runs],
            }
        )
    return {
        "case": asdict(case),
        "workload": asdict(case.random()),
        "rounds": len(results[first]),
        "flop_per_second": rate,
        "rows": rows,
    }


def count_work(case: Case, system: System, config: dict[str, Any]) -> dict[str, Any]:
    """Return the operations of all measured steps, those done and those its objective needs."""
    targets = TARGETS[case.targets]
    done: Shapes | None = NOTHING
    needed = NOTHING
    for pairs in case.steps():
        needed += useful(pairs, system.scope())
        step = system.done(pairs)
        done = None if done is None or step is None else done + step
    return {
        "useful_flop": flop(needed, config, targets, RANK),
        "done_flop": None if done is None else flop(done, config, targets, RANK),
    }


def against(first: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many times the first system's time and memory another needs, with intervals."""
    found = {}
    for name in ("cpu_seconds", "wall_seconds", "peak_memory_bytes", "peak_rss_bytes"):
        both = [[run[name] for run in runs] for runs in (first, other)]
        if any(value is None for side in both for value in side):
            found[name] = None
            continue
        a, b = ([float(np.sum(value)) for value in side] for side in both)
        ratio = compare(name, a, b)
        found[name] = {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}
    return found


def conditions() -> dict[str, Any]:
    """Return what the numbers mean nothing without."""
    import mlx.core as mx

    return {
        "device": str(mx.default_device()),
        "device_name": mx.device_info().get("device_name", ""),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.mac_ver()[0] or platform.release()}",
        "python": platform.python_version(),
        "orpo_mlx": orpo_mlx.__version__,
        "mlx": importlib.metadata.version("mlx"),
        "mlx_lm": importlib.metadata.version("mlx-lm"),
        # On Linux a preloaded BLAS changes the speed by several times.
        "preload": Path(os.environ.get("LD_PRELOAD", "")).name,
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", ""),
        "rank": RANK,
    }


# --- words


def describe(report: dict[str, Any]) -> str:
    """Return a case as a Markdown table."""
    case = report["case"]
    lines = [
        f"**{case['workload']}**, model {case['size']}, vocabulary {case['vocab']}, LoRA on "
        f"{case['targets']}, {case['pairs']} pairs, {report['rounds']} rounds",
        "",
        "| system | CPU s/pair | wall s/pair | peak MLX | peak RSS | GEMM done / useful | floor "
        "| time | memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *(describe_row(row) for row in report["rows"]), ""])


def describe_row(row: dict[str, Any]) -> str:
    """Return one system as a row of the table."""

    def size(value: float | None) -> str:
        return "" if value is None else f"{value / 1e6:.0f} MB"

    def ratio(name: str) -> str:
        found = row["against_first"][name]
        if found is None:
            return ""
        return f"{found['ratio']:.2f}x ({found['low']:.2f}-{found['high']:.2f})"

    done = "" if row["done_flop"] is None else f"{row['done_flop'] / 1e9:.0f}"
    return (
        f"| {row['system']} | {row['cpu_seconds_per_pair']:.3f} "
        f"| {row['wall_seconds_per_pair']:.3f} | {size(row['peak_memory_bytes'])} "
        f"| {size(row['peak_rss_bytes'])} | {done} / {row['useful_flop'] / 1e9:.0f} GFLOP "
        f"| {100 * row['share_of_floor']:.0f} % | {ratio('cpu_seconds')} "
        f"| {ratio('peak_memory_bytes') or ratio('peak_rss_bytes')} |"
    )


if __name__ == "__main__":
    sys.exit(main())
