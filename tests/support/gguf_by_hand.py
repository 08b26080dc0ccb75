"""A tiny Llama's tensors as llama.cpp has them, spelled out; nothing of the exporter is used."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

HEADS = {"q_proj": 4, "k_proj": 2}
INNER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def as_llama_cpp_has_it(name: str, weight: np.ndarray) -> np.ndarray:
    """Rows of q and k: in each head of 2h rows, row i comes to 2i and row h + i to 2i + 1."""
    heads = HEADS.get(name.rpartition(".")[2])
    if heads is None:
        return weight
    moved = np.empty_like(weight)
    size = len(weight) // heads
    for head in range(heads):
        for i in range(size // 2):
            moved[head * size + 2 * i] = weight[head * size + i]
            moved[head * size + 2 * i + 1] = weight[head * size + size // 2 + i]
    return moved


def gguf_name(name: str) -> str:
    outer = {"model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm"}
    if name in outer:
        return f"{outer[name]}.weight"
    _, _, block, inner = name.split(".", 3)
    return f"blk.{block}.{INNER[inner]}.weight"


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {
        t.name: np.array(gguf.quants.dequantize(t.data, t.tensor_type), np.float32)
        for t in gguf.GGUFReader(path).tensors
    }


def fused_weights(model: Path, adapter: Path) -> dict[str, np.ndarray]:
    """The tuned weights as mlx-lm itself fuses them."""
    from mlx_lm.utils import load

    tuned = load(str(model), adapter_path=str(adapter))[0]
    return {
        name: np.array((module.fuse(dequantize=True) if hasattr(module, "fuse") else module).weight)
        for name, module in tuned.named_modules()
        if hasattr(module, "fuse") or ("weight" in module and ".linear" not in name)
    }
