"""What the core's tests share beyond the tiny models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def has_compiler():
    """Whether MLX can compile on this machine's CPU: it calls a C++ compiler."""
    return shutil.which("g++") is not None or shutil.which("c++") is not None


@pytest.fixture(params=["plain", "quantized"])
def base_folder(request: pytest.FixtureRequest) -> Path:
    """A tiny model, once with plain and once with packed weights."""
    name = "model_folder" if request.param == "plain" else "quantized_model_folder"
    return request.getfixturevalue(name)


@pytest.fixture(scope="session")
def moe_folder(
    make_model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny model whose blocks hold experts."""
    return make_model_folder(
        tmp_path_factory.mktemp("moe") / "model",
        model_type="qwen3_moe",
        num_experts=4,
        num_experts_per_tok=2,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        moe_intermediate_size=32,
        head_dim=16,
        norm_topk_prob=True,
    )


@pytest.fixture
def folder(model_folder: Path, copy_folder: Callable[..., Path]) -> Path:
    """A sound model that a test may damage."""
    return copy_folder(model_folder)
