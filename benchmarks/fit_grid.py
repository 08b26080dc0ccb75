"""The memory estimate against what MLX measures, over a grid of models, batches and settings.

    python -m benchmarks.fit_grid [--only TEXT]

Each row is a process of its own that trains a random Llama for one step of two forward passes and
asks MLX for the peak. No row may need more than was estimated. The last line is the smallest,
median and largest estimate / measured. Only MLX's own allocations count: neither its cache of free
buffers nor Python is in them, and numbers of the CPU backend say little about Metal. "process" is
what the whole process grew by, the model included, as the operating system counts it.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

from orpo_mlx.data.batching.shape import Lengths


@dataclass(frozen=True)
class Row:
    """One measurement: a Llama, two micro-batches of like pairs, and settings."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    vocab: int = 4000
    bits: int = 0
    half: bool = False
    pairs: int = 4
    prompt: int = 64
    response: int = 64
    scoring: str = "packed"
    chunk: int = 256
    settings: tuple[tuple[str, Any], ...] = ()

    def name(self) -> str:
        """Return what sets this row apart from the default."""
        default = asdict(Row())
        own = {k: v for k, v in asdict(self).items() if v != default[k] and k != "settings"}
        return " ".join(f"{k}={v}" for k, v in [*own.items(), *self.settings]) or "default"


CHECKPOINT = (("grad_checkpoint", "on"),)
HALF_OF_THEM = (*CHECKPOINT, ("grad_checkpoint_every", 2))
ALL = (("num_layers", -1),)
ROWS = [
    Row(),
    Row(settings=CHECKPOINT),
    Row(scoring="plain"),
    Row(scoring="plain", settings=CHECKPOINT),
    Row(scoring="shared"),
    Row(scoring="fork"),
    Row(hidden=64, layers=2, vocab=500),
    Row(hidden=64, layers=6, vocab=500, pairs=10),
    Row(hidden=256, layers=2, vocab=500, pairs=10),
    Row(hidden=256, layers=6, vocab=500, pairs=6, settings=CHECKPOINT),
    Row(hidden=256, layers=6, vocab=8000, pairs=6),
    Row(hidden=256, layers=6, vocab=8000, pairs=6, settings=(("num_layers", 2),)),
    Row(hidden=256, layers=6, pairs=6, settings=(("num_layers", 2), *CHECKPOINT)),
    Row(hidden=64, layers=2, vocab=32000),
    Row(hidden=256, layers=2, vocab=32000, pairs=2),
    Row(vocab=32000, pairs=8, settings=(("nll_scope", "response"),)),
    Row(vocab=32000, pairs=2, scoring="plain"),
    Row(hidden=64, layers=1, heads=1, kv_heads=1, vocab=8000, pairs=16),
    Row(prompt=1000, response=40, pairs=1),
    Row(prompt=1000, response=40, pairs=1, settings=CHECKPOINT),
    Row(prompt=500, response=20, pairs=4),
    Row(prompt=16, response=500, pairs=1),
    Row(prompt=16, response=500, pairs=2),
    Row(prompt=16, response=500, pairs=2, settings=CHECKPOINT),
    Row(prompt=500, response=200, pairs=2, scoring="plain"),
    Row(prompt=500, response=200, pairs=2, scoring="shared"),
    Row(bits=4, pairs=2),
    Row(bits=4, pairs=4, layers=2, vocab=8000, settings=CHECKPOINT),
    Row(bits=4, scoring="plain", pairs=2, layers=2),
    Row(half=True, pairs=2),
    Row(half=True, pairs=2, settings=CHECKPOINT),
    Row(bits=4, half=True, pairs=2),
    Row(settings=(("target_modules", "q_proj,v_proj"),)),
    Row(settings=(("target_modules", "q_proj,v_proj"), *CHECKPOINT)),
    Row(settings=(("rank", 128),)),
    Row(settings=(("rank", 128), ("optimizer", "sgd"))),
    Row(settings=(("dropout", 0.1),)),
    Row(settings=(("dora", True),)),
    Row(kv_heads=1),
    Row(kv_heads=1, heads=8, prompt=300, response=100, hidden=256),
    Row(hidden=256, pairs=1, prompt=16, response=100, layers=6),
    Row(hidden=64, layers=2, heads=8, prompt=200, response=200),
    Row(hidden=256, layers=6, vocab=500, pairs=6, settings=HALF_OF_THEM),
    Row(hidden=256, layers=8, pairs=2, settings=(*CHECKPOINT, ("grad_checkpoint_every", 4))),
    Row(prompt=500, response=20, pairs=4, settings=HALF_OF_THEM),
    Row(scoring="plain", settings=HALF_OF_THEM),
    Row(scoring="plain", hidden=256, layers=6, vocab=500, pairs=2, settings=HALF_OF_THEM),
    Row(layers=8, vocab=500, settings=(*CHECKPOINT, ("grad_checkpoint_every", 3))),
    Row(layers=8, vocab=500, prompt=16, settings=(*CHECKPOINT, ("grad_checkpoint_every", 8))),
    Row(hidden=64, layers=2, vocab=32000, chunk=16),
    Row(hidden=64, layers=2, vocab=32000, chunk=64),
    Row(hidden=64, layers=2, vocab=32000, chunk=128),
    Row(vocab=8000, pairs=8, chunk=512),
    Row(hidden=64, layers=1, vocab=50257, pairs=2),
    Row(hidden=64, layers=1, vocab=128256, pairs=2, chunk=128),
    Row(hidden=64, layers=2, vocab=500, prompt=3000, response=200, pairs=1),
    Row(hidden=64, layers=2, vocab=500, prompt=3000, response=200, pairs=1, scoring="causal"),
    Row(prompt=1000, response=1000, pairs=1, scoring="causal"),
    Row(prompt=1000, response=200, pairs=2, scoring="causal", settings=CHECKPOINT),
]


def measure(row: Row) -> dict[str, Any]:
    """Train one step in this process; return the estimate's parts and the peak in bytes."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs

    from orpo_mlx.adapters import lora
    from orpo_mlx.config import build_config
    from orpo_mlx.data.types import TokenPair
    from orpo_mlx.models.recompute import checkpoint_layers
    from orpo_mlx.models.shape import build_shape
    from orpo_mlx.planning import memory
    from orpo_mlx.scoring.base import Scoring
    from orpo_mlx.scoring.select import WAYS
    from orpo_mlx.training.optimizer import build_optimizer
    from orpo_mlx.training.preparation.objective import objective
    from orpo_mlx.training.step import TrainStep, step_key

    sizes: dict[str, Any] = {
        "model_type": "llama", "hidden_size": row.hidden, "intermediate_size": 4 * row.hidden,
        "num_hidden_layers": row.layers, "num_attention_heads": row.heads,
        "num_key_value_heads": row.kv_heads, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "vocab_size": row.vocab, "tie_word_embeddings": False,
    }  # fmt: skip
    model: Any = Model(ModelArgs.from_dict(sizes))
    if row.half:
        model.set_dtype(mx.bfloat16)
    if row.bits:
        nn.quantize(model, group_size=32, bits=row.bits)
        sizes["quantization"] = {"group_size": 32, "bits": row.bits}
    mx.eval(model.parameters())
    names = {"mlx.core.float32": "F32", "mlx.core.bfloat16": "BF16", "mlx.core.uint32": "U32"}
    arrays: Any = tree_flatten(model.parameters())
    headers = {name: (names[str(array.dtype)], tuple(array.shape)) for name, array in arrays}
    shape = build_shape(sizes, headers)

    config = build_config(dict(row.settings))
    lora.attach_adapter(model, lora.build_adapter_spec(config, model), 0)
    savings = replace(memory.own_savings(config), head_chunk=row.chunk)
    if savings.recompute_every:
        checkpoint_layers(model.layers, savings.recompute_every)
    ids = [i % (row.vocab - 1) + 1 for i in range(row.prompt + row.response)]
    pair = TokenPair(ids[: row.prompt], ids[row.prompt :], ids[row.prompt :])
    scoring = Scoring(WAYS[row.scoring], config.nll_scope, chunk=row.chunk)
    batch = scoring.build([pair] * row.pairs, range(row.pairs))
    step = TrainStep(
        model, build_optimizer(config), objective(config), scoring,
        max_grad_norm=config.max_grad_norm, compiled=False,
    )  # fmt: skip
    del arrays
    mx.clear_cache()
    mx.reset_peak_memory()
    before = peak_footprint() - mx.get_active_memory()
    step([batch, batch], step_key(0, 1), 1e-4)
    step([batch, batch], step_key(0, 2), 1e-4)
    lengths = [Lengths(row.prompt, row.response, row.response)] * row.pairs
    tokens = WAYS[row.scoring].batch_shape(lengths, config.nll_scope)
    found = memory.estimate(shape, config, tokens, savings=savings)
    return {
        "estimate": found.total, "measured": mx.get_peak_memory(), "parts": found.parts(),
        "footprint": peak_footprint() - before,
    }  # fmt: skip


def peak_footprint() -> int:
    """Return the most memory this process ever had in RAM, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def measure_apart(row: Row) -> dict[str, Any]:
    """Measure in a fresh process: the peak of one row must not hold anything of another."""
    command = [sys.executable, "-m", "benchmarks.fit_grid", "--row", json.dumps(asdict(row))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{row.name()}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str]) -> int:
    """Measure all rows; return 1 if an estimate was too low."""
    if argv[:1] == ["--row"]:
        given = json.loads(argv[1])
        given["settings"] = tuple(map(tuple, given["settings"]))
        print(json.dumps(measure(Row(**given))))
        return 0
    wanted = argv[1] if argv[:1] == ["--only"] else ""
    ratios = []
    print("estimate MB  measured MB  ratio  process MB  row")
    for row in ROWS:
        if wanted in row.name():
            found = measure_apart(row)
            ratios.append(found["estimate"] / found["measured"])
            sizes = f"{found['estimate'] / 1e6:11.1f}  {found['measured'] / 1e6:11.1f}"
            process = f"{found['footprint'] / 1e6:10.1f}"
            print(f"{sizes}  {ratios[-1]:5.2f}  {process}  {row.name()}", flush=True)
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"{len(ratios)} rows: estimate / measured {low:.2f} / {middle:.2f} / {high:.2f}")
    return 1 if low < 1 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
