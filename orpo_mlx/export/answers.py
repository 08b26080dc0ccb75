"""Three prompts asked of the tuned model as it was trained and as it was written.

In float32, whatever the number format of the base: 4-bit products in bfloat16 are off by tenths of
a nat on a CPU, many times what writing in bfloat16 rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
from mlx.utils import tree_flatten

from orpo_mlx.adapters.files import load_adapter_into
from orpo_mlx.evaluation.divergence import largest_difference, logprobs, mean_divergence
from orpo_mlx.export.checks import ExportCheck
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.models.load import LoadedModel, load_model
from orpo_mlx.text.formatting import format_bytes

LIMITS = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 2e-2}
"""Largest mean divergence in nats, by the number format that is written.
Models with a norm, a kernel or an expert in the wrong place are off by whole nats."""
_SHARE_OF_EFFECT = 0.01
"""Of the divergence that the adapter makes: where that is large, so is that of half a step."""
_SHARE_OF_MEMORY = 0.6
_DROWNED = 0.5


@dataclass(frozen=True)
class KeptChange:
    """How far what an adapter changes in the log-probs is kept by what was written.

    Attributes:
        correlation: of both changes over every log-prob of the three prompts.
        error: root mean square of their difference, as a share of that of the change.
    """

    correlation: float
    error: float

    @classmethod
    def between(
        cls, base: list[mx.array], tuned: list[mx.array], written: list[mx.array]
    ) -> KeptChange:
        """Compare log-probs [T, V] of three models at the same positions."""
        before, exact, found = (mx.concatenate(one).flatten() for one in (base, tuned, written))
        wanted, kept = exact - before, found - before
        size = _float(mx.sqrt(mx.square(wanted).mean()))
        error = _float(mx.sqrt(mx.square(kept - wanted).mean()))
        norms = _float(mx.linalg.norm(wanted) * mx.linalg.norm(kept))
        correlation = _float((wanted * kept).sum()) / norms if norms else 0.0
        return cls(correlation, error / size if size else 0.0)

    def notes(self, types: str, advice: str) -> list[str]:
        """Say it, and warn where the rounding is as large as the change."""
        text = (
            f"Rounding to {types} is {self.error:.1%} of what the adapter changes in the answers "
            f"to three prompts; a correlation of {self.correlation:.4f} is kept."
        )
        return [f"{text} That may drown it: {advice}" if self.error > _DROWNED else text]


def tuned_answers(
    source: AdapterSource, loaded: LoadedModel
) -> tuple[list[mx.array], list[mx.array]]:
    """Return the log-probs of the base, and with the adapter as it was trained; in float32.

    `loaded` has the adapter attached afterwards, and its numbers in float32.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    loaded.model.set_dtype(mx.float32)
    base = logprobs(loaded.model, loaded.tokenizer)
    settings = dict(source.config["lora_parameters"])
    loaded.model.freeze()  # only the adapter is to be loaded
    linear_to_lora_layers(loaded.model, source.spec.num_layers, settings, source.spec.dora)
    load_adapter_into(loaded.model, source.folder)
    loaded.model.eval()  # without dropout
    return base, logprobs(loaded.model, loaded.tokenizer)


def written_answers(folder: Path, tokenizer: Any) -> list[mx.array]:
    """Return the log-probs of a model that was written; in float32."""
    model = load_model(folder, lazy=True).model
    model.set_dtype(mx.float32)
    return logprobs(model, tokenizer)


def compare_answers(
    folder: Path, source: AdapterSource, loaded: LoadedModel, dtype: str, notes: list[str]
) -> list[ExportCheck]:
    """Load what was written and compare it with the base + adapter.

    Args:
        folder: as written.
        source: the adapter.
        loaded: its base; has the adapter attached afterwards.
        dtype: of what was written.
        notes: get a line of what the rounding does, or one where both do not fit in memory, so
            that nothing was compared.
    """
    size = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
    size = size * 4 // (4 if dtype == "float32" else 2)
    both = size + float32_bytes(loaded)
    if not fits_in_memory(both):
        notes.append(
            f"Its answers were not compared: with the base it takes {format_bytes(both)} of "
            "memory, too much for this machine. Its weights were."
        )
        return []
    base, tuned = tuned_answers(source, loaded)
    found = written_answers(folder, loaded.tokenizer)
    divergence, effect = mean_divergence(tuned, found), mean_divergence(tuned, base)
    limit = LIMITS[dtype] if dtype == "float32" else max(LIMITS[dtype], effect * _SHARE_OF_EFFECT)
    text = (
        f"three prompts: KL {divergence:.2g} nats from base + adapter, {effect:.2g} from the base; "
        f"largest difference of a log-prob {largest_difference(tuned, found):.2g}"
    )
    if dtype != "float32":
        notes += KeptChange.between(base, tuned, found).notes(dtype, "write it in float32.")
    return [ExportCheck("answers", divergence <= limit, divergence, limit, text)]


def answers_with(
    loaded: LoadedModel, weights: Iterable[tuple[str, Callable[[], mx.array]]]
) -> list[mx.array]:
    """Return the log-probs of a model with other weights in some layers.

    Args:
        loaded: plain, in float32; keeps the weights.
        weights: path of a layer, and what makes its weight.
    """
    modules: dict[str, Any] = dict(loaded.model.named_modules())
    for path, weight in weights:
        modules[path].weight = weight()
    return logprobs(loaded.model, loaded.tokenizer)


def float32_bytes(loaded: LoadedModel) -> int:
    """Return what a model takes once its numbers are float32; packed ones stay packed."""
    found: Any = tree_flatten(loaded.model.parameters())
    return sum(
        array.size * 4 if mx.issubdtype(array.dtype, mx.floating) else array.nbytes
        for _, array in found
    )


def fits_in_memory(size: int) -> bool:
    """Whether so many bytes leave this machine some room."""
    return size <= _SHARE_OF_MEMORY * psutil.virtual_memory().total


def _float(array: mx.array) -> float:
    return float(array.item())  # type: ignore[arg-type]
