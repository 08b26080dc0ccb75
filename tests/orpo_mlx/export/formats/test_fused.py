"""The tuned model as a folder: its layout is the original's, its answers are the adapter's."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.adapters.files import save_adapter
from orpo_mlx.adapters.lora import AdapterSpec, adapter_layers, attach_adapter
from orpo_mlx.cli import main as program
from orpo_mlx.errors import ExportError
from orpo_mlx.export import shards
from orpo_mlx.export.answers import KeptChange
from orpo_mlx.export.source import open_source
from orpo_mlx.models.load import load_model

Make = Callable[..., Path]
TOKENS = [1, 40, 41, 42, 43, 44, 45]
MOE = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
QWEN_MOE = {
    "model_type": "qwen3_moe", **MOE, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "norm_topk_prob": True,
}  # fmt: skip
MIXTRAL = {"model_type": "mixtral", "num_local_experts": 3, "num_experts_per_tok": 2}
QWEN_3_5: dict[str, Any] = {
    "model_type": "qwen3_5",
    "text_config": {
        "model_type": "qwen3_5_text", "hidden_size": 64, "num_hidden_layers": 4,
        "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "rms_norm_eps": 1e-5, "vocab_size": 300, "full_attention_interval": 4,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
        "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, "tie_word_embeddings": False,
        "max_position_embeddings": 512, "rope_parameters": {
            "type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1],
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def make_adapter(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return `make(model, size=0.05, **spec) -> folder`: a random adapter, B not zero.

    To be read only: the same one is given to all who ask for the same.
    """

    @functools.cache
    def make(model: Path, size: float = 0.05, **options: Any) -> Path:
        loaded = load_model(model)
        spec = AdapterSpec(**{"rank": 4, "scale": 3.7, **options})
        attach_adapter(loaded.model, spec, seed=1)
        for i, (_, layer) in enumerate(adapter_layers(loaded.model)):
            layer.lora_b = mx.random.normal(layer.lora_b.shape, key=mx.random.key(i)) * size
            if "m" in layer:
                layer.m = layer.m * 1.25
        folder = tmp_path_factory.mktemp("adapters") / "adapter"
        save_adapter(loaded.model, spec, folder, str(model), loaded.fingerprint)
        return folder

    return make


def export(adapter: Path, out: Path, *more: str) -> int:
    return program.main(["export", str(adapter), "--to", "fused", "--out", str(out), *more])


def logits(model: Path, adapter: Path | None = None) -> np.ndarray:
    """As mlx-lm itself loads and answers."""
    from mlx_lm.utils import load

    path = str(adapter) if adapter else None
    return np.array(load(str(model), adapter_path=path)[0](mx.array([TOKENS])).astype(mx.float32))


def weights(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in folder.glob("model*.safetensors"):
        arrays: Any = mx.load(str(path))
        found |= {name: np.array(array.astype(mx.float32)) for name, array in arrays.items()}
    return found


def test_mlx_lm_answers_as_with_the_adapter(
    make_adapter: Make, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    adapter = make_adapter(model_folder)
    assert export(adapter, tmp_path / "out") == 0
    fused, tuned = logits(tmp_path / "out"), logits(model_folder, adapter)
    np.testing.assert_allclose(fused, tuned, atol=1e-5)
    assert np.abs(tuned - logits(model_folder)).max() > 0.1
    assert "ok    answers" in capsys.readouterr().out


def test_dora_is_folded_in(make_adapter: Make, model_folder: Path, tmp_path: Path):
    adapter = make_adapter(model_folder, dora=True)
    assert export(adapter, tmp_path / "out") == 0
    np.testing.assert_allclose(logits(tmp_path / "out"), logits(model_folder, adapter), atol=1e-5)


def test_a_quantized_base_becomes_a_plain_model(
    make_adapter: Make, quantized_model_folder: Path, tmp_path: Path
):
    adapter = make_adapter(quantized_model_folder)
    assert export(adapter, tmp_path / "out") == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not {"quantization", "quantization_config"} & set(config)
    assert not [name for name in weights(tmp_path / "out") if name.endswith("scales")]
    tuned = logits(quantized_model_folder, adapter)
    np.testing.assert_allclose(logits(tmp_path / "out"), tuned, atol=2e-5)


def test_a_four_bit_bfloat16_base_is_judged_in_float32(
    make_adapter: Make, quantized_model_folder: Path, copy_folder: Make, tmp_path: Path, capsys: Any
):
    """Its products in bfloat16 are off by more on a CPU than writing in bfloat16 rounds."""
    model = copy_folder(quantized_model_folder, "coarse")
    arrays: Any = mx.load(str(model / "model.safetensors"))
    arrays = {
        # Large log-probs, so that the errors of the products are, too.
        name: array * 60 if name in ("lm_head.scales", "lm_head.biases") else array
        for name, array in arrays.items()
    }
    half = {n: a.astype(mx.bfloat16) if a.dtype == mx.float32 else a for n, a in arrays.items()}
    mx.save_safetensors(str(model / "model.safetensors"), half, metadata={"format": "mlx"})
    adapter = make_adapter(model)
    assert export(adapter, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "ok    answers" in said
    found = re.search(r"to bfloat16 is (\S+)% of .* correlation of (\S+) is kept", said)
    assert found is not None
    assert 0 < float(found[1]) < 10
    assert float(found[2]) > 0.99


def test_what_is_kept_of_a_change_is_known_by_hand():
    before, after = mx.zeros((2, 2)), mx.array([[3.0, 4.0], [0.0, 0.0]])
    written = mx.array([[3.0, 4.0], [0.0, 5.0]])
    kept = KeptChange.between([before], [after], [written])
    assert kept.correlation == pytest.approx(25 / (5 * 50**0.5))
    assert kept.error == pytest.approx(1.0)
    assert "may drown it" in kept.notes("F16", "finer")[0]
    assert KeptChange.between([before], [after], [after]) == KeptChange(1.0, 0.0)


def unstacked(block: str, stacked: dict[str, np.ndarray], names: dict[str, str]) -> dict[str, Any]:
    """What Hugging Face calls the experts that mlx-lm stacks."""
    return {
        f"{block}.experts.{e}.{theirs}.weight": stacked[f"{block}.switch_mlp.{ours}.weight"][e]
        for ours, theirs in names.items()
        for e in range(3)
    }


@pytest.mark.parametrize(
    ("config", "block", "names"),
    [
        (
            QWEN_MOE,
            "mlp",
            {"gate_proj": "gate_proj", "up_proj": "up_proj", "down_proj": "down_proj"},
        ),
        (MIXTRAL, "block_sparse_moe", {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}),
    ],
    ids=["qwen3_moe", "mixtral"],
)
def test_experts_are_unstacked_to_their_original_names(
    config: dict[str, Any], block: str, names: dict[str, str], make_adapter: Make,
    make_model_folder: Make, tmp_path: Path,
):  # fmt: skip
    model = make_model_folder(tmp_path / "moe", **config)
    adapter = make_adapter(model, num_layers=1)
    assert export(adapter, tmp_path / "out") == 0
    before, found = weights(model), weights(tmp_path / "out")
    wanted = unstacked(f"model.layers.0.{block}", before, names)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
    assert not [name for name in found if "switch_mlp" in name]
    np.testing.assert_allclose(logits(tmp_path / "out"), logits(model, adapter), atol=2e-5)


def test_what_mlx_lm_changes_on_loading_is_undone(
    make_adapter: Make, tmp_path: Path, make_model_folder: Make
):
    """Qwen3.5 as Hugging Face has it: norms around 0, convolutions [C, 1, K], another root."""
    model = make_model_folder(tmp_path / "mlx", **QWEN_3_5)
    hugging_face = {}
    for name, array in weights(model).items():
        theirs = name.replace("language_model.model.", "model.language_model.")
        theirs = theirs.replace("language_model.lm_head", "lm_head")
        shifted = ("layernorm.weight", "language_model.norm.weight", "q_norm.weight")
        if theirs.endswith((*shifted, "k_norm.weight")):
            array = array - 1
        if "conv1d" in theirs:
            array = array.swapaxes(1, 2)
        hugging_face[theirs] = np.ascontiguousarray(array)
    original = Path(shutil.copytree(model, tmp_path / "original"))
    arrays = {name: mx.array(array) for name, array in hugging_face.items()}
    mx.save_safetensors(str(original / "model.safetensors"), arrays, metadata={"format": "pt"})
    adapter = make_adapter(original, num_layers=1)
    assert export(adapter, tmp_path / "out") == 0
    found = weights(tmp_path / "out")
    assert found.keys() == hugging_face.keys()
    for name, array in hugging_face.items():
        if ".layers.3." not in name or "norm" in name:
            np.testing.assert_allclose(found[name], array, atol=1e-6)
    np.testing.assert_allclose(logits(tmp_path / "out"), logits(original, adapter), atol=2e-5)


def test_settings_and_tokenizer_are_the_original_s(
    make_adapter: Make, quantized_model_folder: Path, copy_folder: Make, tmp_path: Path
):
    original = copy_folder(quantized_model_folder, "original")
    (original / "model.safetensors").unlink()
    config = json.loads((original / "config.json").read_text())
    config |= {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"}
    del config["quantization"]
    (original / "config.json").write_text(json.dumps(config))
    (original / "tokenizer.model").write_bytes(b"sentencepiece")
    adapter = make_adapter(quantized_model_folder)
    options = ["--original", str(original), "--dtype", "float16"]
    assert export(adapter, tmp_path / "out", *options) == 0
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {**config, "torch_dtype": "float16"}
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (original / name).read_bytes()
    arrays: Any = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert {array.dtype for n, array in arrays.items() if "proj" in n} == {mx.float16}


def test_a_float32_base_in_half_precision_is_so_in_every_weight(
    make_adapter: Make, model_folder: Path, tmp_path: Path
):
    adapter = make_adapter(model_folder, target_modules=("q_proj",))
    assert export(adapter, tmp_path / "out", "--dtype", "bfloat16") == 0
    arrays: Any = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert {array.dtype for array in arrays.values()} == {mx.bfloat16}


def test_answers_that_are_not_the_adapter_s_are_noticed(
    make_adapter: Make, model_folder: Path, tmp_path: Path, capsys: Any
):
    """All weights are right, but config.json makes another model of them."""
    original = Path(shutil.copytree(model_folder, tmp_path / "original"))
    config = json.loads((original / "config.json").read_text())
    (original / "config.json").write_text(json.dumps({**config, "rope_theta": 3.0}))
    adapter = make_adapter(model_folder)
    assert export(adapter, tmp_path / "out", "--original", str(original)) == 1
    assert "answers: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_much_for_the_memory_is_said_and_not_compared(
    make_adapter: Make, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
):  # fmt: skip
    from orpo_mlx.export import answers

    adapter = make_adapter(model_folder)
    memory = type("Memory", (), {"total": 1000})
    monkeypatch.setattr(answers.psutil, "virtual_memory", lambda: memory)
    assert export(adapter, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "answers were not compared" in said
    assert "ok    answers" not in said


def test_an_adapter_of_a_tied_embedding_is_folded_in(
    make_adapter: Make, make_model_folder: Make, tmp_path: Path
):
    """mlx-lm's own trainer makes such ones."""
    model = make_model_folder(tmp_path / "tied", tie_word_embeddings=True)
    adapter = make_adapter(model, num_layers=1, target_modules=("q_proj",))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["lora_parameters"]["keys"].append("model.embed_tokens")
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    arrays: Any = mx.load(str(adapter / "adapters.safetensors"))
    rows = len(weights(model)["model.embed_tokens.weight"])
    arrays["model.embed_tokens.lora_a"] = mx.random.normal((rows, 4), key=mx.random.key(3))
    arrays["model.embed_tokens.lora_b"] = 0.1 * mx.random.normal((4, 64), key=mx.random.key(4))
    mx.save_safetensors(str(adapter / "adapters.safetensors"), arrays)
    assert export(adapter, tmp_path / "out") == 0
    np.testing.assert_allclose(logits(tmp_path / "out"), logits(model, adapter), atol=5e-5)
    assert not [name for name in weights(tmp_path / "out") if "lm_head" in name]


def test_an_original_of_another_kind_is_refused(
    make_adapter: Make, model_folder: Path, make_model_folder: Make, tmp_path: Path, capsys: Any
):
    other = make_model_folder(tmp_path / "qwen", model_type="qwen2")
    adapter = make_adapter(model_folder)
    assert export(adapter, tmp_path / "out", "--original", str(other)) == 2
    assert "qwen2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_large_models_are_written_in_parts(
    make_adapter: Make, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):

    monkeypatch.setattr(shards, "SHARD_BYTES", 100_000)
    adapter = make_adapter(model_folder)
    assert export(adapter, tmp_path / "out") == 0
    parts = sorted(path.name for path in (tmp_path / "out").glob("model-*.safetensors"))
    assert len(parts) > 1
    assert all(part.endswith(f"of-{len(parts):05d}.safetensors") for part in parts)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(parts)
    assert index["weight_map"].keys() == weights(tmp_path / "out").keys()
    np.testing.assert_allclose(logits(tmp_path / "out"), logits(model_folder, adapter), atol=1e-5)


def test_a_full_disk_is_told_before_anything_is_written(
    make_adapter: Make, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
):  # fmt: skip
    adapter = make_adapter(model_folder)
    usage = type("Usage", (), {"free": 1000, "total": 2000, "used": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert export(adapter, tmp_path / "out") == 2
    assert "1000 bytes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("part", "check"), [("q_proj", "delta"), ("v_proj", "untouched"), ("norm", "untouched")]
)
def test_a_wrong_weight_is_noticed(
    part: str, check: str, make_adapter: Make, model_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: Any,
):  # fmt: skip
    from orpo_mlx.export.formats import fused

    write = shards.write_shards

    def damaged(folder: Path, tensors: Any, size: int) -> None:
        write(folder, ((n, a * 1.001 if part in n else a) for n, a in tensors), size)

    monkeypatch.setattr(fused, "write_shards", damaged)
    adapter = make_adapter(model_folder, target_modules=("q_proj",))
    assert export(adapter, tmp_path / "out") == 1
    assert f"{check}: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Quantized


def test_only_the_layers_the_adapter_changes_are_quantized_anew(
    make_adapter: Make, quantized_model_folder: Path, tmp_path: Path, capsys: Any
):
    adapter = make_adapter(quantized_model_folder, num_layers=1, target_modules=("v_proj",))
    assert export(adapter, tmp_path / "out", "--quantize", "4") == 0
    arrays: Any = mx.load(str(tmp_path / "out" / "model.safetensors"))
    before: Any = mx.load(str(quantized_model_folder / "model.safetensors"))
    assert arrays.keys() == before.keys()
    changed = {n for n, a in arrays.items() if not mx.array_equal(a, before[n]).item()}
    assert changed
    assert all(name.startswith("model.layers.1.self_attn.v_proj.") for name in changed)
    assert "of what the adapter does" in capsys.readouterr().out


@pytest.mark.parametrize(("size", "drowned"), [(0.0005, True), (0.3, False)])
def test_an_adapter_that_drowns_in_the_rounding_is_told(
    size: float, drowned: bool, make_adapter: Make, quantized_model_folder: Path, tmp_path: Path,
    capsys: Any,
):  # fmt: skip
    adapter = make_adapter(quantized_model_folder, size)
    assert export(adapter, tmp_path / "out", "--quantize", "4") == 0
    assert ("drowns it" in capsys.readouterr().out) == drowned


def test_a_plain_base_is_quantized_whole(
    make_adapter: Make, model_folder: Path, tmp_path: Path, capsys: Any
):
    words = ["--quantize", "8", "--json"]
    assert export(make_adapter(model_folder), tmp_path / "out", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1])["event"] == "finished"
    assert all(line.startswith("{") for line in lines)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization"]["bits"] == 8
    assert np.isfinite(logits(tmp_path / "out")).all()


def test_other_bits_than_the_base_s_quantize_every_layer_anew(
    make_adapter: Make, quantized_model_folder: Path, tmp_path: Path
):
    """With 8 bits the answers are those of the adapter on its 4-bit base, nearly."""
    adapter = make_adapter(quantized_model_folder)
    assert export(adapter, tmp_path / "out", "--quantize", "8") == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["quantization"]["bits"], config["quantization"]["group_size"]) == (8, 32)
    found, wanted = logits(tmp_path / "out"), logits(quantized_model_folder, adapter)
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
    arrays: Any = mx.load(str(tmp_path / "out" / "model.safetensors"))
    before: Any = mx.load(str(quantized_model_folder / "model.safetensors"))
    for name in arrays:
        if name.endswith(".scales"):
            weight = name.replace(".scales", ".weight")
            assert arrays[weight].shape[1] == 2 * before[weight].shape[1]


TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize("more", [(), ("--quantize", "4")], ids=["fused", "quantized"])
def test_a_model_asks_in_the_form_that_was_trained(
    tmp_path: Path, model_folder: Path, pairs_file: Callable[..., Path], more: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file, run = tmp_path / "own.jinja", tmp_path / "run"
    file.write_text(TEMPLATE)
    words = [
        "--model", model_folder, "--data", pairs_file(4), "--run-dir", run, "--steps", "1",
        "--chat-template", file, "--valid-fraction", "0", "--rank", "2", "--quiet",
    ]  # fmt: skip
    assert program.main(["train", *map(str, words)]) == 0
    assert export(run, tmp_path / "out", *more) == 0
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<user>Hi<|im_end|><assistant>"
    assert program.main(["export", str(run), "--to", "mlx", "--out", str(tmp_path / "mlx")]) == 0
    assert f"--chat-template {file}" in capsys.readouterr().out
    file.unlink()
    with pytest.raises(ExportError, match="was trained with --chat-template") as error:
        _ = open_source(str(run)).template
    assert "Put the file back" in error.value.what_to_do
    assert export(run, tmp_path / "again", *more) == 2
