"""A model and preference pairs to measure with: random, seeded, made on the spot.

`step_time.py` runs this file in a process of its own, so that the memory needed to make the model
does not show in what is measured.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

PAD, EOS, FIRST_WORD = 0, 1, 2
"""Token ids of the made-up vocabulary; the rest are words."""


@dataclass(frozen=True)
class Workload:
    """What is trained, on what.

    Attributes:
        hidden, layers, heads, vocab: of a Llama with an MLP four times as wide as `hidden`.
        bits: quantize the frozen weights to this many; 0 = not at all.
        dtype: of the other weights, and of the activations.
        prompt_tokens, response_tokens: medians of log-normal lengths.
        length_spread: sigma of their logarithm; 0 = all alike.
    """

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    vocab: int = 4096
    bits: int = 0
    dtype: str = "float32"
    pairs: int = 16
    prompt_tokens: int = 64
    response_tokens: int = 64
    length_spread: float = 0.5
    seed: int = 0


def scaled(base: Workload, length: float, **changes: Any) -> Workload:
    """Return a workload with lengths by a factor, and other changes."""
    lengths = {
        name: round(length * getattr(base, name)) for name in ("prompt_tokens", "response_tokens")
    }
    return replace(base, **lengths, **changes)


def model_folder(folder: Path) -> Path:
    """Return where `write_workload` puts the model."""
    return folder / "model"


def pairs_file(folder: Path) -> Path:
    """Return where `write_workload` puts the pairs."""
    return folder / "pairs.jsonl"


def write_workload(workload: Workload, folder: Path) -> None:
    """Write the model in mlx-lm's format, its tokenizer and the pairs."""
    model_folder(folder).mkdir(parents=True)
    write_model(workload, model_folder(folder))
    write_tokenizer(workload.vocab, model_folder(folder))
    lines = [json.dumps(row) + "\n" for row in random_pairs(workload)]
    pairs_file(folder).write_text("".join(lines), encoding="utf-8")


def write_model(workload: Workload, folder: Path) -> None:
    """Write random weights and config.json; the same for the same workload."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs

    config = model_config(workload)
    mx.random.seed(workload.seed)
    model = Model(ModelArgs.from_dict(config))
    model.set_dtype(getattr(mx, workload.dtype))
    if workload.bits:
        # The smallest group, so that small models can be quantized too.
        nn.quantize(model, group_size=32, bits=workload.bits)
        config["quantization"] = {"group_size": 32, "bits": workload.bits}
    weights: Any = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def model_config(workload: Workload) -> dict[str, Any]:
    """Return config.json of the model."""
    return {
        "model_type": "llama",
        "hidden_size": workload.hidden,
        "intermediate_size": 4 * workload.hidden,
        "num_hidden_layers": workload.layers,
        "num_attention_heads": workload.heads,
        "num_key_value_heads": workload.heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 1 << 20,
        "vocab_size": workload.vocab,
        "tie_word_embeddings": False,
        "eos_token_id": EOS,
    }


def write_tokenizer(vocab: int, folder: Path) -> None:
    """Write a tokenizer of words w2, w3, ...; only trainers that take text ever call it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = {"<pad>": PAD, "</s>": EOS} | {f"w{i}": i for i in range(FIRST_WORD, vocab)}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def random_pairs(workload: Workload) -> list[dict[str, list[int]]]:
    """Return pairs of random token ids; the same for the same workload."""
    random = np.random.default_rng(workload.seed)

    def ids(median: int) -> list[int]:
        length = median * random.lognormal(0.0, workload.length_spread)
        # One pair of twenty times the median would decide the peak memory all by itself.
        length = round(min(max(length, 1), 4 * median))
        return random.integers(FIRST_WORD, workload.vocab, length).tolist()

    return [
        {
            "prompt_ids": ids(workload.prompt_tokens),
            "chosen_ids": [*ids(workload.response_tokens), EOS],
            "rejected_ids": [*ids(workload.response_tokens), EOS],
        }
        for _ in range(workload.pairs)
    ]


if __name__ == "__main__":
    write_workload(Workload(**json.loads(sys.argv[2])), Path(sys.argv[1]))
