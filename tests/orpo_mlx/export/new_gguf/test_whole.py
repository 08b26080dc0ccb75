"""A GGUF made from the MLX weights alone, held against a merge by hand and the tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.gguf_by_hand import as_llama_cpp_has_it, fused_weights, gguf_name, tensors

from orpo_mlx.cli import main as program
from orpo_mlx.models.load import load_tokenizer

Make = Callable[..., Path]
TYPE = gguf.GGMLQuantizationType
HALF_STEP = {"float32": 1e-6, "float16": 2**-11, "bfloat16": 2**-8, "q8_0": 1.125 / 254}
"""Of the largest weight of a tensor or block, by the bits of each format; the step of q8_0 is
rounded to 16 bits itself."""


def export(adapter: Path, out: Path, *more: str) -> int:
    return program.main(["export", str(adapter), "--to", "gguf", "--out", str(out), *more])


def keys(path: Path) -> dict[str, Any]:
    fields = gguf.GGUFReader(path).fields.values()
    return {field.name: field.contents() for field in fields if field.name[:5] != "GGUF."}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_random_adapter: Make) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out.gguf"
    assert export(make_random_adapter(), out, "--weights-dtype", "float32") == 0
    return out


@pytest.mark.parametrize("dtype", HALF_STEP)
def test_the_weights_are_those_mlx_lm_fuses(
    dtype: str, make_random_adapter: Make, model_folder: Path, tmp_path: Path
):
    out = tmp_path / "out.gguf"
    assert export(make_random_adapter(), out, "--weights-dtype", dtype) == 0
    found, wanted = tensors(out), fused_weights(model_folder, make_random_adapter())
    assert found.keys() == {gguf_name(name) for name in wanted}
    for name, weight in wanted.items():
        exact = as_llama_cpp_has_it(name, weight)
        step = HALF_STEP["float32" if weight.ndim == 1 else dtype] * np.abs(exact).max()
        assert np.abs(found[gguf_name(name)] - exact).max() <= step * 1.01 + 2e-6, name
    kinds = {t.name: t.tensor_type for t in gguf.GGUFReader(out).tensors}
    assert kinds["blk.0.attn_norm.weight"] == TYPE.F32
    assert kinds["blk.0.attn_q.weight"].name == {
        "float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0",
    }[dtype]  # fmt: skip


def test_a_quantized_base_is_unpacked(
    make_random_adapter: Make, quantized_model_folder: Path, tmp_path: Path, capsys: Any
):
    adapter = make_random_adapter(model=quantized_model_folder)
    out = tmp_path / "out.gguf"
    assert export(adapter, out, "--weights-dtype", "float32") == 0
    assert "rounded weights" in capsys.readouterr().out
    found = tensors(out)
    for name, weight in fused_weights(quantized_model_folder, adapter).items():
        if weight.dtype == np.uint32:  # mlx-lm leaves packed what has no adapter
            continue
        exact = as_llama_cpp_has_it(name, weight)
        np.testing.assert_allclose(found[gguf_name(name)], exact, rtol=0, atol=2e-5)


def test_the_header_says_the_model(whole: Path, model_folder: Path):
    found, config = keys(whole), json.loads((model_folder / "config.json").read_text())
    assert found["general.architecture"] == "llama"
    assert found["general.type"] == "model"
    assert found["general.file_type"] == gguf.LlamaFileType.ALL_F32
    assert found["llama.block_count"] == config["num_hidden_layers"]
    assert found["llama.embedding_length"] == config["hidden_size"]
    assert found["llama.feed_forward_length"] == config["intermediate_size"]
    assert found["llama.attention.head_count"] == config["num_attention_heads"]
    assert found["llama.attention.head_count_kv"] == config["num_key_value_heads"]
    assert found["llama.context_length"] == config["max_position_embeddings"]
    assert found["llama.rope.freq_base"] == config["rope_theta"]
    width = config["hidden_size"] // config["num_attention_heads"]
    assert found["llama.rope.dimension_count"] == width
    epsilon = found["llama.attention.layer_norm_rms_epsilon"]
    assert epsilon == pytest.approx(config["rms_norm_eps"])


def test_tokens_merges_specials_and_template_are_the_models(whole: Path, model_folder: Path):
    found, tokenizer = keys(whole), load_tokenizer(model_folder)
    file = json.loads((model_folder / "tokenizer.json").read_text())
    tokens = found["tokenizer.ggml.tokens"]
    assert {text: i for i, text in enumerate(tokens)} == tokenizer.get_vocab()
    special = {added["content"] for added in file["added_tokens"]}
    control = {tokens[i] for i, kind in enumerate(found["tokenizer.ggml.token_type"]) if kind == 3}
    assert control == special
    pairs = [merge if isinstance(merge, str) else " ".join(merge)
             for merge in file["model"]["merges"]]  # fmt: skip
    assert found["tokenizer.ggml.merges"] == pairs
    assert found["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert found["tokenizer.ggml.bos_token_id"] == tokenizer.bos_token_id
    assert found["tokenizer.ggml.padding_token_id"] == tokenizer.pad_token_id
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.ggml.pre"] == "gpt-2"
    assert found["tokenizer.chat_template"] == tokenizer.chat_template


def test_rows_of_the_embedding_without_a_token_are_marked_unused(
    make_random_adapter: Make, make_model_folder: Callable[..., Path], tmp_path: Path
):
    model = make_model_folder(tmp_path / "model", vocab_size=320)
    assert export(make_random_adapter(model=model), tmp_path / "out.gguf") == 0
    found = keys(tmp_path / "out.gguf")
    assert found["llama.vocab_size"] == 320
    assert len(found["tokenizer.ggml.tokens"]) == 320
    assert found["tokenizer.ggml.tokens"][-1] == "[PAD319]"
    assert found["tokenizer.ggml.token_type"][-1] == gguf.TokenType.UNUSED


def damaged(model: Path, copy: Path, file: str, change: Callable[[dict[str, Any]], object]) -> Path:
    shutil.copytree(model, copy)
    content = json.loads((copy / file).read_text())
    change(content)
    (copy / file).write_text(json.dumps(content))
    return copy


CASES: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "cutting": (
        "tokenizer.json",
        lambda t: t.update(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": "x+"},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "how it cuts text",
    ),
    "normalizer": (
        "tokenizer.json",
        lambda t: t.update(normalizer={"type": "Lowercase"}),
        "how it cuts text",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_gguf_cannot_say_is_refused_with_the_way_that_works(
    case: str, make_random_adapter: Make, model_folder: Path, tmp_path: Path, capsys: Any
):
    file, change, said = CASES[case]
    model = damaged(model_folder, tmp_path / "model", file, change)
    assert export(make_random_adapter(model=model), tmp_path / "out.gguf") == 2
    error = capsys.readouterr().err
    assert said in error
    assert "--base-gguf" in error
    assert not (tmp_path / "out.gguf").exists()


def test_a_wrong_byte_in_what_was_written_is_noticed(
    make_random_adapter: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    from orpo_mlx.export.new_gguf import whole

    write = whole._write

    def write_wrongly(path: Path, *rest: Any) -> None:
        write(path, *rest)
        data: Any = gguf.GGUFReader(path, "r+").tensors[3].data
        data.reshape(-1)[0] += 1
        data.flush()

    monkeypatch.setattr(whole, "_write", write_wrongly)
    out = tmp_path / "out.gguf"
    assert export(make_random_adapter(), out, "--weights-dtype", "float32") == 1
    assert "weights" in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture
def whole_of(make_model_folder, make_random_adapter, model_folder, architectures, tmp_path):
    """Return `whole_of(architecture) -> (base's weights by MLX's names, keys and tensors)`."""

    def make(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, np.ndarray]]:
        rows = json.loads((model_folder / "config.json").read_text())["vocab_size"]
        model = make_model_folder(tmp_path / "model", **architectures.build_config(name, rows))
        out = tmp_path / "out.gguf"
        adapter = make_random_adapter(model=model)
        assert export(adapter, out, "--weights-dtype", "float32") == 0
        return load_file(model / "model.safetensors"), keys(out), tensors(out)

    return make


def test_linear_attention_is_written_as_llama_cpp_reads_it(whole_of):
    """Value heads of Qwen3.5 lie by key head in MLX, one of each in turn in a GGUF."""
    base, said, found = whole_of("qwen3_5")
    block = "language_model.model.layers.0.linear_attn."
    turns = [0, 2, 1, 3]  # two value heads for each of two key heads
    assert found["blk.0.ssm_a"] == pytest.approx(-np.exp(base[f"{block}A_log"][turns]), rel=1e-6)
    assert found["blk.0.ssm_dt.bias"].tolist() == base[f"{block}dt_bias"][turns].tolist()
    kernel = base[f"{block}conv1d.weight"][:, :, 0]
    rows = [*range(64), *(64 + 16 * head + i for head in turns for i in range(16))]
    assert found["blk.0.ssm_conv1d.weight"].tolist() == kernel[rows].tolist()
    norm = base["language_model.model.layers.0.input_layernorm.weight"]
    assert found["blk.0.attn_norm.weight"] == pytest.approx(norm, rel=1e-6)  # with mlx-lm's 1
    assert found["blk.0.ssm_norm.weight"].tolist() == base[f"{block}norm.weight"].tolist()
    recurs = said["qwen35.attention.recurrent_layers"]
    assert list(recurs) == [True, True, True, False]
    assert said["qwen35.rope.dimension_sections"] == [2, 1, 1, 0]
    assert said["qwen35.ssm.inner_size"] == 64


def test_gemma_4s_blocks_differ_in_width_and_turn_in_part(whole_of):
    base, said, found = whole_of("gemma4")
    assert found["rope_freqs.weight"].tolist() == pytest.approx([1.0] * 4 + [1e30] * 12)
    assert (said["gemma4.attention.key_length"], said["gemma4.attention.key_length_swa"]) == (
        32, 16,
    )  # fmt: skip
    assert list(said["gemma4.attention.sliding_window_pattern"]) == [True, True, False]
    scale = base["model.layers.1.layer_scalar"]
    assert found["blk.1.layer_output_scale.weight"].tolist() == scale.tolist()
    norm = base["model.layers.0.input_layernorm.weight"]
    assert found["blk.0.attn_norm.weight"].tolist() == norm.tolist()
