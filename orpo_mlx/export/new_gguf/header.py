"""The sizes in a GGUF's header, by `general.architecture`: what llama.cpp builds the model from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gguf

from orpo_mlx.errors import ExportError
from orpo_mlx.export.new_gguf.rope import add_rope, head_width, rope_parameters
from orpo_mlx.models.architectures import Architecture

Config = Mapping[str, Any]
Add = Callable[[gguf.GGUFWriter, Config], None]


def add_sizes(writer: gguf.GGUFWriter, architecture: Architecture, config: Config) -> None:
    """Write what config.json says of the model.

    Args:
        writer: of the file.
        architecture: of the model.
        config: sizes of the language model (`BaseModel.text_config`).

    Raises:
        ExportError: the architecture is not known here, or config.json lacks a size.
    """
    more = require_described(architecture)
    try:
        _add_usual(writer, _by_block(config) if more is _gemma4 else config)
        more(writer, config)
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"config.json: {error.args[0]!s:.60} is missing or no number, and a GGUF must say it; "
            "nothing was written.",
            "Take config.json from the original model, or merge into a GGUF of it: --base-gguf.",
        ) from error


def require_described(architecture: Architecture) -> Add:
    """Return what writes the keys that only this architecture has.

    Raises:
        ExportError: what its header must say is not known here.
    """
    if architecture.gguf in _MORE:
        return _MORE[architecture.gguf]
    raise ExportError(
        f"{architecture.title}: a whole GGUF of it cannot be made from the MLX weights alone; "
        f"nothing was written. Those of {', '.join(_MORE)} can.",
        "Merge into a GGUF of the base model: --base-gguf FILE or --base-gguf "
        "OWNER/NAME:FILE.gguf.",
    )


def _add_usual(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(_sizes(config["intermediate_size"]))
    writer.add_head_count(int(config["num_attention_heads"]))
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    writer.add_head_count_kv(_sizes(heads))
    writer.add_vocab_size(int(config["vocab_size"]))
    add_rope(writer, config)
    if config.get("head_dim"):
        writer.add_key_length(int(config["head_dim"]))
        writer.add_value_length(int(config["head_dim"]))
    _add(writer.add_layer_norm_rms_eps, config, "rms_norm_eps")
    _add(writer.add_layer_norm_eps, config, "layer_norm_eps", "norm_epsilon")
    _add(writer.add_expert_count, config, "num_local_experts", "num_experts", kind=int)
    _add(writer.add_expert_used_count, config, "num_experts_per_tok", kind=int)


def _sizes(value: Any) -> Any:
    """Return a size, or one for each block."""
    return [int(size) for size in value] if isinstance(value, list) else int(value)


def _add(
    add: Callable[[Any], None], config: Config, *keys: str, kind: Callable[[Any], Any] = float
) -> None:
    """Write the first of these that config.json has."""
    found = next((config[key] for key in keys if config.get(key) is not None), None)
    if found is not None:
        add(kind(found))


def _no_more(_writer: gguf.GGUFWriter, _config: Config) -> None:
    return


def _llama(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_rope_dimension_count(head_width(config))


def _granite(writer: gguf.GGUFWriter, config: Config) -> None:
    _llama(writer, config)
    _add(writer.add_attention_scale, config, "attention_multiplier")
    _add(writer.add_embedding_scale, config, "embedding_multiplier")
    _add(writer.add_residual_scale, config, "residual_multiplier")
    _add(writer.add_logit_scale, config, "logits_scaling")


def _experts(writer: gguf.GGUFWriter, config: Config) -> None:
    _add(writer.add_expert_feed_forward_length, config, "moe_intermediate_size", kind=int)
    shared = "shared_expert_intermediate_size"
    _add(writer.add_expert_shared_feed_forward_length, config, shared, kind=int)


def _gemma2(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_attn_logit_softcapping(float(config["attn_logit_softcapping"]))
    writer.add_final_logit_softcapping(float(config["final_logit_softcapping"]))
    writer.add_sliding_window(int(config["sliding_window"]))


def _gemma3(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_sliding_window(int(config["sliding_window"]))
    _add(writer.add_final_logit_softcapping, config, "final_logit_softcapping")


def _phi3(writer: gguf.GGUFWriter, config: Config) -> None:
    rope = rope_parameters(config)
    share = float(rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0)
    writer.add_rope_dimension_count(int(share * head_width(config)))
    before = rope["original_max_position_embeddings"] or config["max_position_embeddings"]
    writer.add_rope_scaling_orig_ctx_len(int(before))
    # 0 tells Phi-4 from the others, which have a window.
    writer.add_sliding_window(int(config.get("sliding_window") or 0))


def _olmo(writer: gguf.GGUFWriter, config: Config) -> None:
    if config.get("sliding_window") is None:
        return
    blocks = range(1, int(config["num_hidden_layers"]) + 1)
    kinds = config.get("layer_types")
    slides = [k == "sliding_attention" for k in kinds] if kinds else [n % 4 != 0 for n in blocks]
    writer.add_sliding_window(int(config["sliding_window"]))
    writer.add_sliding_window_pattern(slides)
    writer.add_rope_freq_base_swa(float(rope_parameters(config)["rope_theta"]))


def _cohere2(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_logit_scale(float(config["logit_scale"]))
    writer.add_sliding_window(int(config["sliding_window"]))
    share = float(config.get("rotary_pct", 1.0))
    writer.add_rope_dimension_count(int(share * head_width(config)))
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)


def _qwen35(writer: gguf.GGUFWriter, config: Config) -> None:
    rope = rope_parameters(config)
    share = float(rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 0.25)
    writer.add_rope_dimension_count(int(share * head_width(config)))
    sections = [*(rope.get("mrope_section") or (11, 11, 10)), 0, 0, 0, 0]
    writer.add_rope_dimension_sections(sections[:4])
    values, width = int(config["linear_num_value_heads"]), int(config["linear_value_head_dim"])
    writer.add_ssm_conv_kernel(int(config["linear_conv_kernel_dim"]))
    writer.add_ssm_state_size(int(config["linear_key_head_dim"]))
    writer.add_ssm_group_count(int(config["linear_num_key_heads"]))
    writer.add_ssm_time_step_rank(values)
    writer.add_ssm_inner_size(values * width)
    every = int(config.get("full_attention_interval") or 4)
    blocks = range(1, int(config["num_hidden_layers"]) + 1)
    kinds = config.get("layer_types")
    recurs = [k == "linear_attention" for k in kinds] if kinds else [n % every != 0 for n in blocks]
    writer.add_array(f"{writer.arch}.attention.recurrent_layers", recurs)
    writer.add_full_attention_interval(every)


def _by_block(config: Config) -> dict[str, Any]:
    """Return Gemma 4's config with the sizes that its blocks differ in, and its whole heads."""
    found = {**config, "head_dim": config["global_head_dim"]}
    slides = _slides(config)
    own = len(slides) - int(config.get("num_kv_shared_layers") or 0)
    if config.get("use_double_wide_mlp"):
        width = int(config["intermediate_size"])
        found["intermediate_size"] = [width * (1 if n < own else 2) for n in range(len(slides))]
    if (whole := config.get("num_global_key_value_heads")) is not None:
        each = config["num_key_value_heads"]
        found["num_key_value_heads"] = [each if slide else whole for slide in slides]
    return found


def _gemma4(writer: gguf.GGUFWriter, config: Config) -> None:
    _gemma3(writer, config)
    writer.add_sliding_window_pattern(_slides(config))
    writer.add_shared_kv_layers(int(config.get("num_kv_shared_layers") or 0))
    writer.add_embedding_length_per_layer_input(int(config.get("hidden_size_per_layer_input") or 0))
    writer.add_rope_dimension_count(int(config["global_head_dim"]))
    width = int(config["head_dim"])
    writer.add_key_length_swa(width)
    writer.add_value_length_swa(width)
    writer.add_rope_dimension_count_swa(width)


def _slides(config: Config) -> list[bool]:
    return [kind == "sliding_attention" for kind in config["layer_types"]]


_MORE: dict[str, Add] = {
    "llama": _llama,
    "qwen2": _no_more,
    "qwen2moe": _experts,
    "qwen3": _no_more,
    "qwen3moe": _experts,
    "qwen35": _qwen35,
    "gemma": _no_more,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "phi3": _phi3,
    "smollm3": _llama,
    "granite": _granite,
    "olmo2": _olmo,
    "starcoder2": _no_more,
    "cohere2": _cohere2,
}
