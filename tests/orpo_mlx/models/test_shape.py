"""The positions a model was made for, as its config.json says it in one of several ways."""

from __future__ import annotations

import pytest

from orpo_mlx.models.shape import context_length

YARN = {"factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA = {"rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024, "n_ctx": 1024}, 1024),  # GPT-2
        ({"max_position_embeddings": 64, "text_config": {"max_position_embeddings": 131072}},
         131072),
        ({"max_position_embeddings": 32768, "sliding_window": 4096}, 32768),
        ({"max_position_embeddings": 131072, "rope_scaling": LLAMA}, 131072),  # Llama 3.2
        ({"max_position_embeddings": 40960, "rope_scaling": {"rope_type": "yarn", **YARN}}, 131072),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0}},
         131072),  # as Qwen2.5 says to add it
        ({"max_position_embeddings": 163840, "rope_scaling": {"type": "yarn", "factor": 40,
          "original_max_position_embeddings": 4096}}, 163840),  # DeepSeek V3
        ({"max_position_embeddings": None, "rope_scaling": None}, None),
        ({"max_position_embeddings": True}, None),
        ({"hidden_size": 64}, None),  # Mamba
    ],
)  # fmt: skip
def test_the_context_is_what_the_model_was_made_for(config, wanted):
    assert context_length(config) == wanted
