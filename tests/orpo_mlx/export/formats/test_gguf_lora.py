"""GGUF LoRA files, read back by the gguf package and held against mlx-lm's own fusing."""

import json

import gguf
import numpy as np
import pytest

from orpo_mlx.export.formats.gguf_lora import gguf_tensors
from orpo_mlx.export.source import open_source
from orpo_mlx.models.architectures import find_architecture


def read(path):
    """Return {tensor: (A, B)} and the keys of a GGUF LoRA."""
    reader = gguf.GGUFReader(path)
    halves = {
        tensor.name: np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in reader.tensors
    }
    names = {name.rpartition(".lora_")[0] for name in halves}
    pairs = {name: (halves[f"{name}.lora_a"], halves[f"{name}.lora_b"]) for name in names}
    assert len(halves) == 2 * len(pairs)
    return pairs, {field.name: field.contents() for field in reader.fields.values()}


def as_converted(delta, row, path, config):
    """Do to a whole matrix what llama.cpp's converter does to a weight, without our orders."""
    inner = path.rpartition(".")[2]
    if row.gguf in ("llama", "smollm3", "granite") and inner in ("q_proj", "k_proj"):
        heads = config["num_attention_heads" if inner == "q_proj" else "num_key_value_heads"]
        return delta.reshape(heads, 2, -1, delta.shape[1]).swapaxes(1, 2).reshape(delta.shape)
    if ".linear_attn." in path:
        keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
        delta = delta.T if inner == "out_proj" else delta
        width = values if inner in ("in_proj_a", "in_proj_b") else values * 16
        before, heads = delta[:-width], delta[-width:]
        tiled = heads.reshape(keys, values // keys, -1, heads.shape[1]).swapaxes(0, 1)
        delta = np.concatenate([before, tiled.reshape(heads.shape)])
        return delta.T if inner == "out_proj" else delta
    return delta


def test_the_file_adds_to_every_weight_what_mlx_lm_adds(
    architecture, make_adapter, export, tmp_path
):
    require_the_same(make_adapter(architecture), export, tmp_path)


@pytest.mark.parametrize("name", ["llama", "mixtral", "qwen3_5", "gemma4 with vision"])
def test_an_adapter_of_the_last_block_names_only_that(name, make_adapter, export, tmp_path):
    made = make_adapter(name, num_layers=1)
    require_the_same(made, export, tmp_path)
    names = gguf_tensors(open_source(str(made.folder)))
    assert {name.split(".")[1] for name in names} == {str(made.blocks - 1)}


def require_the_same(made, export, tmp_path):
    path = tmp_path / "adapter.gguf"
    events = export(made.folder, "--to", "gguf-lora", "--out", path)

    pairs, keys = read(path)
    row = find_architecture(json.loads((made.base / "config.json").read_text()))
    assert keys["general.architecture"] == row.gguf
    assert (keys["general.type"], keys["adapter.type"]) == ("adapter", "lora")
    assert keys["adapter.lora.alpha"] == 3.0
    assert pairs.keys() == {row.gguf_name(name) for name in made.deltas}
    for name, delta in made.deltas.items():
        a, b = pairs[row.gguf_name(name)]
        wanted = as_converted(delta, row, name, made.config)
        # alpha / rank is 1
        assert np.abs(b @ a - wanted).max() < 1e-5 * np.abs(wanted).max(), name
    assert [event["event"] for event in events][-2:] == ["verified", "finished"]
    assert all(check["passed"] for check in events[-2]["checks"])


def test_a_quantized_base_changes_nothing_in_the_file(make_adapter, export, tmp_path):
    made = make_adapter("qwen3_moe", quantized=True)
    packed = gguf_tensors(open_source(str(made.folder)))
    config = (made.base / "config.json").read_text()
    (made.base / "config.json").write_text(config.replace('"quantization"', '"no"'))
    plain = gguf_tensors(open_source(str(made.folder)))
    assert packed.keys() == plain.keys()
    assert all(np.array_equal(packed[name], plain[name]) for name in packed)


@pytest.mark.parametrize(("dtype", "kind"), [("float16", "F16"), ("bfloat16", "BF16")])
def test_a_narrower_number_format_is_written_and_its_loss_printed(
    dtype, kind, make_adapter, export, tmp_path
):
    made = make_adapter("llama")
    path = tmp_path / "adapter.gguf"
    events = export(made.folder, "--to", "gguf-lora", "--out", path, "--dtype", dtype)
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    (delta,) = (check for check in events[-2]["checks"] if check["name"] == "delta")
    assert kinds == {kind}
    assert 1e-5 < delta["value"] < delta["limit"]


def test_what_does_not_fit_the_number_format_is_found_and_removed(make_adapter, refused, tmp_path):
    made = make_adapter("llama", scale=1e6)  # times B: beyond the 65504 of float16
    path = tmp_path / "adapter.gguf"
    words = ("export", made.folder, "--to", "gguf-lora", "--out", path, "--dtype", "float16")
    said = refused(*words, code=1)
    assert "NaN or infinity" in said
    assert "--dtype float32" in said
    assert not list(tmp_path.glob("*.gguf")) + list(tmp_path.glob(".*"))


EMBEDDING = ("model.embed_tokens",)


@pytest.mark.parametrize(
    ("architecture_name", "spec", "says"),
    [
        ("llama", {"dora": True}, ("DoRA", "--to fused")),
        ("llama 3.2", {"keys": EMBEDDING}, ("model.embed_tokens", "also the output", "fused")),
    ],
)
def test_what_a_gguf_lora_cannot_say_is_refused_with_the_format_that_can(
    architecture_name, spec, says, make_adapter, refused, tmp_path
):
    made = make_adapter(architecture_name, **spec)
    said = refused("export", made.folder, "--to", "gguf-lora", "--out", tmp_path / "x.gguf")
    for part in (*says, "othing was written"):
        assert part in said
    assert not (tmp_path / "x.gguf").exists()


def test_a_layer_without_a_place_in_gguf_is_named(make_adapter, refused, tmp_path, monkeypatch):
    made = make_adapter("llama")
    row = find_architecture({"model_type": "llama"})
    monkeypatch.delitem(row.inner, "mlp.down_proj")
    said = refused("export", made.folder, "--to", "gguf-lora", "--out", tmp_path / "x.gguf")
    assert "model.layers.0.mlp.down_proj" in said
    assert "self_attn.q_proj" in said  # among those that are known
    assert "--to fused" in said


def test_embedding_and_head_that_are_not_tied_are_written(make_adapter, export, tmp_path):
    made = make_adapter("llama", keys=("model.embed_tokens", "lm_head"))
    path = tmp_path / "adapter.gguf"
    export(made.folder, "--to", "gguf-lora", "--out", path)
    pairs, _ = read(path)
    rows, columns = pairs["token_embd.weight"]
    assert np.abs(rows @ columns.T - made.deltas["model.embed_tokens"]).max() < 1e-4
    a, b = pairs["output.weight"]
    assert np.abs(b @ a - made.deltas["lm_head"]).max() < 1e-4


def test_a_changed_byte_would_be_noticed(make_adapter, refused, tmp_path, monkeypatch):
    """The check reads the file, not what was meant to be in it."""
    made = make_adapter("llama")
    real = gguf.GGUFWriter.write_tensors_to_file

    def write(self, *words, **named):
        tensor = next(iter(self.tensors[0].values()))
        tensor.tensor = tensor.tensor * np.float32(1.001)
        real(self, *words, **named)

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", write)
    path = tmp_path / "x.gguf"
    said = refused("export", made.folder, "--to", "gguf-lora", "--out", path, code=1)
    assert "delta" in said
    assert not path.exists()
