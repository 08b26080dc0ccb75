"""Three prompts asked of the tuned model as it was trained and as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
from mlx.utils import tree_flatten

from orpo_mlx.adapter_files import load_adapter_into
from orpo_mlx.export.checks import Check
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.tuned import own_dtype
from orpo_mlx.formatting import format_bytes
from orpo_mlx.models import LoadedModel, load_model

PROMPTS = ("The capital of France is", "Explain in one sentence why the sky is blue.", "1, 2, 3,")
LIMITS = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 2e-2}
"""Largest mean divergence in nats, by the coarser number format of the base and what is written.
Models with a norm, a kernel or an expert in the wrong place are off by whole nats."""
_SHARE_OF_MEMORY = 0.6


def logprobs(model: Any, tokenizer: Any) -> list[mx.array]:
    """Return the log-probs [T, V] of the three prompts in float32."""
    found = []
    for prompt in PROMPTS:
        ids = mx.array(tokenizer.encode(prompt))[None]
        logits = model(ids)[0].astype(mx.float32)
        found.append(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    mx.eval(found)
    return found


def largest_difference(one: list[mx.array], other: list[mx.array]) -> float:
    """Return the largest difference of any log-prob, in nats."""
    return max(float(mx.abs(a - b).max().item()) for a, b in zip(one, other, strict=True))  # type: ignore[arg-type]


def mean_divergence(one: list[mx.array], other: list[mx.array]) -> float:
    """Return the mean KL divergence of `other` from `one` over all positions, in nats."""
    sums = [(mx.exp(a) * (a - b)).sum(axis=-1) for a, b in zip(one, other, strict=True)]
    return float(mx.concatenate(sums).mean().item())  # type: ignore[arg-type]


def tuned_answers(
    source: AdapterSource, loaded: LoadedModel
) -> tuple[list[mx.array], list[mx.array]]:
    """Return the log-probs of the base, and with the adapter as it was trained.

    `loaded` has the adapter attached afterwards.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    base = logprobs(loaded.model, loaded.tokenizer)
    settings = dict(source.config["lora_parameters"])
    loaded.model.freeze()  # only the adapter is to be loaded
    linear_to_lora_layers(loaded.model, source.spec.num_layers, settings, source.spec.dora)
    load_adapter_into(loaded.model, source.folder)
    loaded.model.eval()  # without dropout
    return base, logprobs(loaded.model, loaded.tokenizer)


def compare_answers(
    folder: Path, source: AdapterSource, loaded: LoadedModel, dtype: str, notes: list[str]
) -> list[Check]:
    """Load what was written and compare it with the base + adapter.

    Judged by the mean divergence: what a model in half precision says of unlikely tokens is off by
    tenths of a nat wherever its sums are made in another order.

    Args:
        folder: as written.
        source: the adapter.
        loaded: its base; has the adapter attached afterwards.
        dtype: of what was written.
        notes: get a line where both do not fit in memory, so that nothing was compared.
    """
    size = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
    parameters: Any = tree_flatten(loaded.model.parameters())
    both = size + sum(array.nbytes for _, array in parameters)
    if both > _SHARE_OF_MEMORY * psutil.virtual_memory().total:
        notes.append(
            f"Its answers were not compared: with the base it takes {format_bytes(both)} of "
            "memory, too much for this machine. Its weights were."
        )
        return []
    limit = max(LIMITS[name] for name in (own_dtype(loaded), dtype))
    base, tuned = tuned_answers(source, loaded)
    found = logprobs(load_model(folder).model, loaded.tokenizer)
    divergence, effect = mean_divergence(tuned, found), mean_divergence(tuned, base)
    text = (
        f"three prompts: KL {divergence:.2g} nats from base + adapter, {effect:.2g} from the base; "
        f"largest difference of a log-prob {largest_difference(tuned, found):.2g}"
    )
    return [Check("answers", divergence <= limit, divergence, limit, text)]
