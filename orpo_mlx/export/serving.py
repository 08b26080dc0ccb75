"""Commands that serve what was exported, over HTTP, as OpenAI's API."""

from __future__ import annotations

import re
from pathlib import Path

from orpo_mlx.export.source import AdapterSource
from orpo_mlx.text.commands import command_line

VLLM_USUAL_RANK = 16
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values of --max-lora-rank that vLLM takes."""


def with_mlx(model: str | Path, adapter: str | Path | None = None) -> str:
    """Return the command that serves a model, with an adapter beside it, by mlx-lm."""
    more = ["--adapter-path", adapter] if adapter else []
    return command_line("mlx_lm.server", "--model", model, *more)


def with_llama(model: str | Path, adapter: Path | None = None) -> str:
    """Return the command that serves a GGUF, with a GGUF LoRA, by llama.cpp."""
    more = ["--lora", adapter] if adapter else []
    return command_line("llama-server", "-m", model, *more)


def with_vllm(source: AdapterSource, base: str, adapter: str | Path) -> list[str]:
    """Return the command that serves a PEFT adapter by vLLM; none if vLLM cannot.

    Args:
        source: the adapter.
        base: what vLLM loads as the base.
        adapter: a folder, or a Hub id.
    """
    row = source.base.known_architecture
    if (
        source.rates
        or source.spec.dora
        or source.spec.rank > _VLLM_RANKS[-1]
        or (row and row.is_idle_in_vllm)
    ):
        return []
    rank = next(rank for rank in _VLLM_RANKS if rank >= source.spec.rank)
    name = re.sub(r"[^\w.-]+", "-", source.name).strip("-") or "tuned"
    words = ["serve", base, "--enable-lora", "--lora-modules", f"{name}={adapter}"]
    return [command_line("vllm", *words, "--max-lora-rank", str(rank))]


def vllm_notes(source: AdapterSource) -> list[str]:
    """Return what vLLM does not take of a PEFT adapter, or takes only if it is told to."""
    row, spec, notes = source.base.known_architecture, source.spec, []
    if spec.dora:
        notes.append("vLLM and llama.cpp refuse DoRA; --to fused works in both.")
    elif spec.rank > _VLLM_RANKS[-1]:
        notes.append(f"vLLM takes ranks up to {_VLLM_RANKS[-1]}; --to fused works there.")
    elif spec.rank > VLLM_USUAL_RANK:
        notes.append(f"vLLM takes ranks above {VLLM_USUAL_RANK} only with --max-lora-rank.")
    if row and row.is_idle_in_vllm:
        notes.append(
            "vLLM loads this adapter and does nothing with it, and does not say so: it calls the "
            "layers of this model language_model.*, PEFT does not. Use --to fused there."
        )
    stacked = [layer.path.rpartition(".")[0] for layer in source.layers if layer.kind == "experts"]
    if any(stacked.count(block) != 3 for block in stacked):
        notes.append(
            "Only some projections of the experts are adapted: llama.cpp's converter and vLLM "
            "refuse that; PEFT and --to gguf-lora take it."
        )
    return notes
