"""Factors of rotary positions, held against those of mlx-lm's own implementation."""

from __future__ import annotations

import numpy as np
import pytest
from mlx_lm.models.rope_utils import Llama3RoPE

from orpo_mlx.errors import ExportError
from orpo_mlx.export.new_gguf.rope import rope_parameters, rope_tensors

SIZES = {
    "hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
}  # fmt: skip
LLAMA_3 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def test_llama_3_stretches_as_mlx_lm_does():
    (factors,) = rope_tensors({**SIZES, "rope_scaling": LLAMA_3}).values()
    theirs = np.array(Llama3RoPE(64, base=500000.0, scaling_config=LLAMA_3)._freqs)
    plain = 500000.0 ** (np.arange(0, 64, 2) / 64)
    np.testing.assert_allclose(factors, theirs / plain, rtol=1e-5)
    assert factors.min() == 1.0
    assert factors.max() == 32.0


def test_long_rope_has_the_factors_of_config_json():
    scaling = {"type": "longrope", "long_factor": [2.0] * 32, "short_factor": [1.5] * 32}
    found = rope_tensors({**SIZES, "rope_scaling": scaling})
    assert found["rope_factors_long.weight"].tolist() == [2.0] * 32
    assert found["rope_factors_short.weight"].tolist() == [1.5] * 32


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 7.0},
        {"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}},
        {"rope_parameters": {"full_attention": {"rope_theta": 7.0}, "sliding_attention": {}}},
        {"rope_theta": 7.0, "rope_scaling": None},
    ],
)
def test_every_form_of_config_json_is_read(config):
    assert rope_parameters(config)["rope_theta"] == 7.0
    assert rope_tensors({**SIZES, **config}) == {}


def test_an_unknown_scaling_is_refused():
    with pytest.raises(ExportError, match="'dynamic'"):
        rope_parameters({"rope_scaling": {"type": "dynamic"}})
