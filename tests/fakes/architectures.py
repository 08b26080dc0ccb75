"""Tiny models of every architecture that can be exported: their config.json."""

from __future__ import annotations

from typing import Any

BASE = {
    "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 96, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "max_position_embeddings": 512, "tie_word_embeddings": False, "hidden_act": "silu",
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}
VISION = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32, "image_size": 28, "patch_size": 14,
}  # fmt: skip
LINEAR, FULL, SLIDING = "linear_attention", "full_attention", "sliding_attention"
GEMMA_4 = {
    "model_type": "gemma4_text",
    "tie_word_embeddings": True, **GEMMA, "layer_types": [SLIDING, SLIDING, FULL],
    "sliding_window": 64, "sliding_window_pattern": 3, "global_head_dim": 32,
    "final_logit_softcapping": 30.0, "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": None, "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False, "attention_k_eq_v": False, "rope_parameters": {
        FULL: {
            "rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6,
        },
        SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
    },
}  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"]},
    "llama 3.2": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"],
        "tie_word_embeddings": True, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "mistral": {"architectures": ["MistralForCausalLM"], "sliding_window": None},
    "mixtral": {
        "architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 2,
        "sliding_window": None,
    },
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True},
    "qwen2_moe": {
        "architectures": ["Qwen2MoeForCausalLM"], "num_experts": 4, "num_experts_per_tok": 2,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64, "norm_topk_prob": False,
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"]},
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 4, "num_experts_per_tok": 2,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 32,
        "norm_topk_prob": True,
    },
    "qwen3_5": {
        "architectures": ["Qwen3_5ForConditionalGeneration"], "text_config": {
        "model_type": "qwen3_5_text", "num_hidden_layers": 4,
        "layer_types": [LINEAR, LINEAR, LINEAR, FULL],
        "full_attention_interval": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4,
        "mtp_num_hidden_layers": 1, "partial_rotary_factor": 0.5, "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1], "mrope_interleaved": True,
        }},
    },
    "gemma": {"architectures": ["GemmaForCausalLM"], "tie_word_embeddings": True, **GEMMA},
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"], "tie_word_embeddings": True, **GEMMA,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 16, "sliding_window": 64,
    },
    "gemma3": {
        "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"],
        "tie_word_embeddings": True, **GEMMA, "query_pre_attn_scalar": 16, "sliding_window": 64,
        "num_hidden_layers": 6, "sliding_window_pattern": 6, "layer_types": [*[SLIDING] * 5, FULL],
        "rope_local_base_freq": 10000.0, "rope_theta": 1000000.0,
    },
    "gemma4": {"architectures": ["Gemma4ForCausalLM"], **GEMMA_4},
    "gemma3 with vision": {
        "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
        "vision_config": VISION, "mm_tokens_per_image": 4, "text_config": {
            "model_type": "gemma3_text", "tie_word_embeddings": True, **GEMMA,
            "query_pre_attn_scalar": 16, "sliding_window": 64, "num_hidden_layers": 6,
            "sliding_window_pattern": 6, "rope_local_base_freq": 10000.0, "rope_theta": 1000000.0,
            "layer_types": [*[SLIDING] * 5, FULL],
        },
    },
    "gemma4 with vision": {
        "model_type": "gemma4", "architectures": ["Gemma4ForConditionalGeneration"],
        "vision_config": None, "audio_config": None, "text_config": GEMMA_4,
    },
    "phi3": {
        "architectures": ["Phi3ForCausalLM"], "original_max_position_embeddings": 512,
        "partial_rotary_factor": 1.0, "sliding_window": None,
    },
    "smollm3": {
        "architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [1, 1, 1],
        "no_rope_layer_interval": 4, "tie_word_embeddings": True, "use_sliding_window": False,
    },
    "granite": {
        "architectures": ["GraniteForCausalLM"], "logits_scaling": 2.0,
        "attention_multiplier": 0.25, "embedding_multiplier": 2.0, "residual_multiplier": 0.5,
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
    },
    "olmo2": {"architectures": ["Olmo2ForCausalLM"]},
    "olmo3": {
        "architectures": ["Olmo3ForCausalLM"], "sliding_window": 64, "num_hidden_layers": 4,
        "rope_theta": 500000.0,
        "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
    },
    "starcoder2": {
        "architectures": ["Starcoder2ForCausalLM"], "norm_epsilon": 1e-5, "use_bias": True,
        "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh", "sliding_window": None,
    },
    "cohere2": {
        "architectures": ["Cohere2ForCausalLM"], "layer_norm_eps": 1e-5, "logit_scale": 0.25,
        "attention_bias": False, "sliding_window": 64, "sliding_window_pattern": 4,
        "layer_types": [SLIDING, SLIDING, SLIDING, FULL], "num_hidden_layers": 4,
        "tie_word_embeddings": True, "rotary_pct": 1.0,
    },
}  # fmt: skip


def build_config(name: str, vocab_size: int) -> dict[str, Any]:
    """Return the config.json of one of `MODELS`."""
    config = {"model_type": name, **MODELS[name]}
    text = {**BASE, "vocab_size": vocab_size, **config.get("text_config", config)}
    if "vocab_size_per_layer_input" in text:
        text["vocab_size_per_layer_input"] = vocab_size
    # mlx-lm's Gemma 3 takes the size of the vocabulary from the outer part.
    nested = {**config, "text_config": text, "vocab_size": vocab_size}
    return nested if "text_config" in config else text
