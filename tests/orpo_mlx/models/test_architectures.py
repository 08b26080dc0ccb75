"""The table of names, against the name map of the gguf package and against orders done by hand."""

import gguf
import numpy as np
import pytest

from orpo_mlx.errors import ExportError
from orpo_mlx.models.architectures import ARCHITECTURES, Architecture, find_architecture, mlx_name

ROWS = [pytest.param(row, id=row.model_types[0]) for row in ARCHITECTURES]


def row_of(model_type: str) -> Architecture:
    return find_architecture({"model_type": model_type})


def known_to_gguf(row: Architecture, inner: str) -> list[str]:
    """What the gguf package may call a layer: of experts it knows the stacked tensor."""
    (name, *_) = row.checkpoint_names(f"{row.root[0]}layers.2.{inner}", experts=1)
    name = name.replace(".0.", ".").replace("language_model.", "")
    return [
        name,
        name.replace("model.layers", "layers").replace("block_sparse_moe", "feed_forward"),
    ]


@pytest.mark.parametrize("row", ROWS)
def test_every_layer_has_the_name_that_the_gguf_package_gives_it(row: Architecture):
    (kind,) = (arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == row.gguf)
    names = gguf.get_tensor_name_map(kind, 3)
    for inner in row.inner:
        ours = row.gguf_name(f"{row.root[0]}layers.2.{inner}")
        theirs = [names.get_name(name) for name in known_to_gguf(row, inner)]
        assert ours is not None
        assert ours.removesuffix(".weight") in theirs, inner
    assert row.gguf_name(f"{row.root[0]}embed_tokens") == "token_embd.weight"
    assert row.gguf_name(row.head) == "output.weight"


@pytest.mark.parametrize("row", ROWS)
def test_the_way_there_and_back_is_the_same_name(row: Architecture):
    for inner in row.inner:
        path = f"{row.root[0]}layers.12.{inner}"
        for names in (row.peft_names(path, experts=3), row.checkpoint_names(path, experts=3)):
            assert {row.mlx_name(name)[0] for name in names} == {path}
            experts = [row.mlx_name(name)[1] for name in names]
            assert experts == ([0, 1, 2] if inner in row.experts else [None])
    assert row.mlx_name(row.peft_names(row.head)[0]) == (row.head, None)


def test_names_of_hugging_face_by_hand():
    assert row_of("llama").peft_names("model.layers.2.self_attn.q_proj") == [
        "model.layers.2.self_attn.q_proj"
    ]
    assert row_of("mixtral").peft_names(
        "model.layers.0.block_sparse_moe.switch_mlp.up_proj", 2
    ) == [
        "model.layers.0.block_sparse_moe.experts.0.w3",
        "model.layers.0.block_sparse_moe.experts.1.w3",
    ]
    path = "language_model.model.layers.1.linear_attn.out_proj"
    assert row_of("qwen3_5").peft_names(path) == ["model.layers.1.linear_attn.out_proj"]
    assert row_of("qwen3_5").checkpoint_names(path) == [
        "model.language_model.layers.1.linear_attn.out_proj"
    ]
    assert mlx_name("model.layers.0.mlp.experts.11.up_proj") == (
        "model.layers.0.mlp.switch_mlp.up_proj",
        11,
    )


def test_the_rows_of_queries_and_keys_by_hand():
    """Two heads of four rows: each head's halves (0, 1) and (2, 3) are interleaved."""
    config = {"num_attention_heads": 2, "num_key_value_heads": 1}
    queries = row_of("llama").order("model.layers.0.self_attn.q_proj", config, 8)
    keys = row_of("llama").order("model.layers.0.self_attn.k_proj", config, 4)
    assert queries.rows is not None
    assert keys.rows is not None
    assert queries.rows.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert keys.rows.tolist() == [0, 2, 1, 3]
    for other in ("v_proj", "o_proj"):
        assert row_of("llama").order(f"model.layers.0.self_attn.{other}", config, 8).rows is None
    assert row_of("qwen3").order("model.layers.0.self_attn.q_proj", config, 8).rows is None


def test_the_value_heads_of_linear_attention_by_hand():
    """Two key heads with two value heads each: 0, 1 belong to key 0; tiled they are 0 and 2."""
    config = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 3,
        "linear_value_head_dim": 2,
    }
    block = "language_model.model.layers.0.linear_attn."
    row = row_of("qwen3_5")
    gates = row.order(f"{block}in_proj_z", config, 8)
    betas = row.order(f"{block}in_proj_b", config, 4)
    mixed = row.order(f"{block}in_proj_qkv", config, 2 * 2 * 3 + 8)
    out = row.order(f"{block}out_proj", config, 5)
    assert gates.rows is not None
    assert gates.rows.tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert betas.rows is not None
    assert betas.rows.tolist() == [0, 2, 1, 3]
    assert mixed.rows is not None
    assert mixed.rows.tolist() == [*range(12), *(12 + gates.rows)]
    assert out.rows is None
    assert np.array_equal(out.columns, gates.rows)


def test_an_architecture_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ExportError) as error:
        find_architecture({"model_type": "mamba"})
    assert "'mamba'" in error.value.message
    for name in ("llama", "qwen3_moe", "gemma3_text", "phi3", "granite"):
        assert f" {name}" in error.value.message


def test_no_model_type_is_in_the_table_twice():
    names = [name for row in ARCHITECTURES for name in row.model_types]
    assert len(names) == len(set(names))
