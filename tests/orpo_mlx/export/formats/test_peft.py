"""PEFT folders: what a reader of PEFT's conventions computes from them, against mlx-lm's fusing."""

import json
import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file

REFERENCE = Path(__file__).parents[3] / "data" / "llama"
PREFIX = "base_model.model."


def read(folder):
    """Return PEFT's delta of every module, [O, I], by the convention alone; and the config."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    deltas = {}
    for name, b in tensors.items():
        if name.endswith(".lora_B.weight"):
            a = tensors[name.replace("lora_B", "lora_A")]
            deltas[name[len(PREFIX) : -len(".lora_B.weight")]] = scale * (b @ a)
        elif name.endswith(".lora_embedding_B"):
            a = tensors[name.replace("_B", "_A")]
            deltas[name[len(PREFIX) : -len(".lora_embedding_B")]] = scale * (b @ a).T
    return deltas, config


WEIGHTS_OF_MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def by_hugging_face_name(deltas, architecture):
    """The same deltas under the names that transformers has, by plain replacements."""
    found = {}
    for name, delta in deltas.items():
        if architecture in ("gemma3 with vision", "gemma4 with vision"):
            name = name.replace("language_model.model.", "model.language_model.")
        name = name.removeprefix("language_model.")
        if "switch_mlp" not in name:
            found[name] = delta
            continue
        for number, part in enumerate(delta):
            single = name.replace("switch_mlp", f"experts.{number}")
            if architecture == "mixtral":
                single = re.sub(r"\w+$", lambda m: WEIGHTS_OF_MIXTRAL[m[0]], single)
            found[single] = part
    return found


def test_peft_adds_to_every_weight_what_mlx_lm_adds(architecture, make_adapter, export, tmp_path):
    require_the_same(architecture, make_adapter(architecture), export, tmp_path)


@pytest.mark.parametrize("name", ["llama", "mixtral", "qwen3_5", "gemma4 with vision"])
def test_an_adapter_of_the_last_block_adds_the_same(name, make_adapter, export, tmp_path):
    require_the_same(name, make_adapter(name, num_layers=1), export, tmp_path)


def require_the_same(architecture, made, export, tmp_path):
    events = export(made.folder, "--to", "peft", "--out", tmp_path / "peft")

    deltas, config = read(tmp_path / "peft")
    wanted = by_hugging_face_name(made.deltas, architecture)
    assert deltas.keys() == wanted.keys()
    for name, delta in wanted.items():
        assert np.abs(deltas[name] - delta).max() < 1e-5 * np.abs(delta).max(), name
    assert sorted(config["target_modules"]) == sorted(wanted)
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (3, 3, False)
    assert all(check["passed"] for check in events[-2]["checks"])
    assert events[-1]["format"] == "peft"


def test_the_reference_adapter_comes_out_as_peft_itself_wrote_it(export, tmp_path):
    """tests/data holds one adapter twice, as mlx-lm and as PEFT save it (alpha 8, rank 4)."""
    words = ("--model", REFERENCE / "model", "--to", "peft", "--out", tmp_path / "peft")
    export(REFERENCE / "adapter_mlx", *words)
    ours, _ = read(tmp_path / "peft")
    theirs, config = read(REFERENCE / "adapter_peft")
    assert config["lora_alpha"] == 8
    assert ours.keys() == theirs.keys()
    for name, delta in theirs.items():
        assert np.abs(ours[name] - delta).max() < 1e-6, name


def test_dora_goes_out_by_its_own_fields(make_adapter, export, tmp_path):
    made = make_adapter("qwen2", dora=True, rank=2)
    export(made.folder, "--to", "peft", "--out", tmp_path / "peft")
    _, config = read(tmp_path / "peft")
    tensors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    saved = load_file(made.folder / "adapters.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    assert config["use_dora"] is True
    assert np.array_equal(tensors[f"{PREFIX}{name}.lora_magnitude_vector"], saved[f"{name}.m"])
    assert len(tensors) == len(saved)


def test_what_does_not_fit_the_number_format_is_found_and_removed(make_adapter, refused, tmp_path):
    made = make_adapter("llama", scale=1e6)  # times B: beyond the 65504 of float16
    words = ("export", made.folder, "--to", "peft", "--out", tmp_path / "p", "--dtype", "float16")
    said = refused(*words, code=1)
    assert "NaN or infinity" in said
    assert "--dtype float32" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_number_format_can_be_chosen(dtype, make_adapter, export, tmp_path):
    made = make_adapter("llama", rank=2)
    events = export(made.folder, "--to", "peft", "--out", tmp_path / "peft", "--dtype", dtype)
    arrays = mx.load(str(tmp_path / "peft" / "adapter_model.safetensors"))
    assert {array.dtype for array in arrays.values()} == {getattr(mx, dtype)}
    (delta,) = (check for check in events[-2]["checks"] if check["name"] == "delta")
    assert 1e-5 < delta["value"] < delta["limit"]


def test_the_base_is_named_by_the_id_of_the_original(make_adapter, export, tmp_path):
    """In this order: --base-id, the model card, config.json's own name."""
    made = make_adapter("llama", quantized=True)

    def named(*words):
        export(made.folder, "--to", "peft", "--out", tmp_path / "peft", "--force", *words)
        return read_config(tmp_path / "peft")["base_model_name_or_path"]

    assert named() == str(made.base)
    config = json.loads((made.base / "config.json").read_text())
    (made.base / "config.json").write_text(json.dumps({**config, "_name_or_path": "meta/one"}))
    assert named() == "meta/one"
    (made.base / "README.md").write_text("---\nbase_model:\n- meta/two\n---\n# A model\n")
    assert named() == "meta/two"
    assert named("--base-id", "meta/three") == "meta/three"


def read_config(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def test_a_base_known_by_its_path_alone_is_noted(make_adapter, export, tmp_path):
    made = make_adapter("llama")
    done = export(made.folder, "--to", "peft", "--out", tmp_path / "peft")[-1]
    assert any("--base-id OWNER/NAME" in note for note in done["notes"])
    assert str(tmp_path / "peft") in done["command"]


def test_an_unknown_architecture_keeps_its_names(make_adapter, export, tmp_path, monkeypatch):
    made = make_adapter("llama")
    monkeypatch.setattr("orpo_mlx.models.architectures.ARCHITECTURES", ())
    done = export(made.folder, "--to", "peft", "--out", tmp_path / "peft")[-1]
    assert sorted(read(tmp_path / "peft")[0]) == sorted(made.deltas)
    assert any("'llama'" in note or "llama" in note for note in done["notes"])


def test_experts_of_an_unknown_architecture_are_refused(
    make_adapter, refused, tmp_path, monkeypatch
):
    made = make_adapter("qwen3_moe")
    monkeypatch.setattr("orpo_mlx.models.architectures.ARCHITECTURES", ())
    said = refused("export", made.folder, "--to", "peft", "--out", tmp_path / "peft")
    assert "model.layers.0.mlp.switch_mlp" in said
    assert "--to fused" in said
    assert not (tmp_path / "peft").exists()


def test_an_embedding_that_is_the_output_too_is_refused(make_adapter, refused, tmp_path):
    made = make_adapter("llama 3.2", keys=("model.embed_tokens", "self_attn.q_proj"))
    said = refused("export", made.folder, "--to", "peft", "--out", tmp_path / "peft")
    assert "model.embed_tokens" in said
    assert "--to fused" in said
    assert not (tmp_path / "peft").exists()


def test_an_embedding_that_is_not_is_written(make_adapter, export, tmp_path):
    made = make_adapter("llama", keys=("model.embed_tokens", "lm_head"))
    export(made.folder, "--to", "peft", "--out", tmp_path / "peft")
    deltas, _ = read(tmp_path / "peft")
    for name, delta in made.deltas.items():
        assert np.abs(deltas[name] - delta).max() < 1e-4, name


def test_only_some_projections_of_experts_are_noted(make_adapter, export, tmp_path):
    made = make_adapter("qwen3_moe", target_modules=("switch_mlp.up_proj",))
    done = export(made.folder, "--to", "peft", "--out", tmp_path / "peft")[-1]
    assert any("converter and vLLM refuse" in note for note in done["notes"])
