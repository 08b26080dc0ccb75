"""Rotary positions in a GGUF: keys of the header, and the factors that are tensors there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np

from orpo_mlx.errors import ExportError

_TYPES = {
    "linear": gguf.RopeScalingType.LINEAR,
    "yarn": gguf.RopeScalingType.YARN,
    "longrope": gguf.RopeScalingType.LONGROPE,
    "su": gguf.RopeScalingType.LONGROPE,
}
_PLAIN = ("default", "llama3", "mrope", "proportional")
"""Need no key: llama3 and proportional have their factors in a tensor."""
_STILL = 1e30
"""A factor that stops a pair of dimensions from turning."""
_YARN = {
    "extrapolation_factor": "add_rope_scaling_yarn_ext_factor",
    "attention_factor": "add_rope_scaling_yarn_attn_factor",
    "beta_fast": "add_rope_scaling_yarn_beta_fast",
    "beta_slow": "add_rope_scaling_yarn_beta_slow",
}


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json says of positions, in whichever of its forms, for full attention.

    Raises:
        ExportError: its kind of scaling has no counterpart known here.
    """
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found = dict(found.get("full_attention", found))
    found.setdefault("rope_type", found.get("type") or "default")
    for key, default in (("rope_theta", 10000.0), ("original_max_position_embeddings", None)):
        found.setdefault(key, config.get(key, default))
    if found["rope_type"] not in (*_TYPES, *_PLAIN):
        raise ExportError(
            f"rope_type {found['rope_type']!r} in config.json: how a GGUF says this is not known "
            "here; nothing was written.",
            "Merge into a GGUF of the base model: --base-gguf FILE.",
        )
    return found


def add_rope(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    """Write the keys of the header."""
    rope = rope_parameters(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    sliding = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
    local = sliding.get("rope_theta") or config.get("rope_local_base_freq")
    if local is not None:
        writer.add_rope_freq_base_swa(float(local))
    if (kind := _TYPES.get(rope["rope_type"])) is None:
        return
    writer.add_rope_scaling_type(kind)
    if kind is gguf.RopeScalingType.LONGROPE:
        writer.add_rope_scaling_attn_factors(_long_attention(config, rope))
        return
    writer.add_rope_scaling_factor(float(rope["factor"]))
    if kind is gguf.RopeScalingType.YARN:
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
        for key, add in _YARN.items():
            if rope.get(key) is not None:
                getattr(writer, add)(float(rope[key]))


def _long_attention(config: Mapping[str, Any], rope: Mapping[str, Any]) -> float:
    """Return what LongRoPE multiplies attention by."""
    before = rope["original_max_position_embeddings"]
    scale = config["max_position_embeddings"] / before
    return math.sqrt(1 + math.log(scale) / math.log(before)) if scale > 1 else 1.0


def rope_tensors(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the factors of each pair of dimensions by tensor name; most models have none."""
    rope = rope_parameters(config)
    if rope["rope_type"] == "llama3":
        return {"rope_freqs.weight": _llama3_factors(config, rope)}
    if rope["rope_type"] == "proportional":
        pairs = int(config["global_head_dim"]) // 2
        turning = int(pairs * float(rope["partial_rotary_factor"]))
        factors = np.repeat([1.0, _STILL], [turning, pairs - turning])
        return {"rope_freqs.weight": factors.astype(np.float32)}
    if rope["rope_type"] in ("longrope", "su"):
        return {
            f"rope_factors_{name}.weight": np.array(rope[f"{name}_factor"], np.float32)
            for name in ("long", "short")
        }
    return {}


def _llama3_factors(config: Mapping[str, Any], rope: Mapping[str, Any]) -> np.ndarray:
    """Long waves are stretched by the factor, short ones kept, those between blended."""
    width = head_width(config)
    waves = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, width, 2, dtype=np.float32) / width)
    context, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((context / waves - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def head_width(config: Mapping[str, Any]) -> int:
    """Return the dimensions of one attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
