"""PEFT adapters become mlx-lm's: out and back is the same delta, and damage is named."""

import json

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from orpo_mlx.__main__ import main as program
from orpo_mlx.adapters.files import read_adapter_spec
from orpo_mlx.adapters.lora import AdapterSpec, adapter_parameters, attach_adapter
from orpo_mlx.adapters.peft import load_peft_into, read_peft_spec


def deltas(model, folder):
    """What mlx-lm, loading an adapter folder by itself, adds to weights of zeros."""
    from mlx_lm.tuner.utils import load_adapters

    found = {}
    for name, layer in load_adapters(model, str(folder)).named_modules():
        if "lora_a" in layer:
            layer.linear.weight = mx.zeros_like(layer.linear.weight)
            found[name] = np.array(layer.fuse().weight)
    return found


def base_model(made):
    from mlx_lm.utils import _get_classes

    config = json.loads((made.base / "config.json").read_text())
    model_class, args_class = _get_classes(config)
    return model_class(args_class.from_dict(config))


@pytest.fixture
def peft(make_adapter, export, tmp_path):
    """Return `peft(architecture, **spec) -> (Made, folder)`: an adapter and its PEFT export."""

    def make(name, **spec):
        made = make_adapter(name, **spec)
        export(made.folder, "--to", "peft", "--out", tmp_path / "peft")
        return made, tmp_path / "peft"

    return make


ROUND_TRIPS = ["llama", "mixtral", "qwen3_moe", "qwen3_5", "gemma3 with vision", "phi3"]


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_out_and_back_adds_the_same(name, peft, tmp_path, capfd):
    made, folder = peft(name, num_layers=2)
    back = tmp_path / "back"
    words = ["adapter", "import", str(folder), "--out", str(back), "--model", str(made.base)]
    assert program([*words, "--json"]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()][-5:]

    found = deltas(base_model(made), back)
    assert found.keys() == made.deltas.keys()
    for layer, delta in made.deltas.items():
        assert np.abs(found[layer] - delta).max() < 1e-5 * np.abs(delta).max(), layer
    assert read_adapter_spec(back).rank == 3
    assert json.loads((back / "adapter_config.json").read_text())["base_model"] == str(made.base)
    assert all(check["passed"] for check in events[-2]["checks"])
    assert events[-1]["path"] == str(back)


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_without_the_model_names_are_taken_over(name, peft, tmp_path, capfd):
    made, folder = peft(name)
    assert program(["adapter", "import", str(folder), "--out", str(tmp_path / "back")]) == 0
    assert deltas(base_model(made), tmp_path / "back").keys() == made.deltas.keys()
    assert "give --model to have it checked" in capfd.readouterr().out


def test_dora_comes_back_with_its_magnitudes(peft, tmp_path):
    made, folder = peft("qwen2", dora=True)
    back = tmp_path / "back"
    program(["adapter", "import", str(folder), "--out", str(back), "--model", str(made.base)])
    ours = load_file(made.folder / "adapters.safetensors")
    theirs = load_file(back / "adapters.safetensors")
    assert read_adapter_spec(back).dora
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        scale = 3.7 if name.endswith("lora_b") else 1.0  # multiplied into B on the way out
        assert np.abs(theirs[name] - scale * array).max() < 1e-5, name


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 4.0)])
def test_alpha_becomes_the_scale_with_and_without_rslora(rslora, scale, peft, tmp_path):
    """alpha 8, rank 4: 8 / 4, and by rsLoRA 8 / sqrt(4)."""
    _, folder = peft("llama", rank=4)
    edit(folder, lora_alpha=8, use_rslora=rslora)
    program(["adapter", "import", str(folder), "--out", str(tmp_path / "back")])
    assert read_adapter_spec(tmp_path / "back").scale == scale


# mlx-lm has no DoRA for experts.
@pytest.mark.parametrize(
    ("name", "dora"), [("qwen3_moe", False), ("qwen3_5", False), ("qwen3_5", True)]
)
def test_init_adapter_takes_experts_wrapped_models_and_dora(name, dora, peft):
    made, folder = peft(name, dora=dora, target_modules=("all",))
    model = base_model(made)
    spec = read_peft_spec(folder)
    attach_adapter(model, spec, seed=0)
    load_peft_into(model, folder)
    saved = load_file(made.folder / "adapters.safetensors")
    found = adapter_parameters(model)
    assert (spec.rank, spec.scale, spec.dora) == (3, 1.0, dora)
    assert found.keys() == saved.keys()
    for key, array in saved.items():
        scale = 3.7 if key.endswith("lora_b") else 1.0
        assert np.abs(np.array(found[key]) - scale * array).max() < 1e-5, key
    assert isinstance(spec, AdapterSpec)


# Damage


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


FIRST = "base_model.model.model.layers.0.mlp.switch_mlp".replace("switch_mlp", "experts.1")


def drop_half(tensors):
    del tensors[next(name for name in tensors if "lora_B" in name)]


def drop_expert(tensors):
    del tensors[f"{FIRST}.up_proj.lora_A.weight"]


def poison(tensors):
    tensors[f"{FIRST}.up_proj.lora_A.weight"][0, :2] = np.nan


DAMAGES = [
    pytest.param(drop_half, "found of", True, id="a half is missing"),
    pytest.param(drop_half, "lora_b of", False, id="a half is missing, no model"),
    pytest.param(drop_expert, "expert 1 of 4 is missing", False, id="an expert is missing"),
    pytest.param(poison, "holds 2 values that are NaN", True, id="NaN"),
    pytest.param(poison, "holds 2 values that are NaN", False, id="NaN, no model"),
    pytest.param({"r": 4}, "shape", True, id="another rank"),
    pytest.param({"r": 4}, "says r = 4", False, id="another rank, no model"),
    pytest.param({"bias": "all"}, "bias is 'all'", False, id="with biases"),
    pytest.param({"rank_pattern": {"q": 2}}, "rank_pattern", False, id="several ranks"),
    pytest.param({"peft_type": "IA3"}, "LoRA adapter", False, id="no LoRA"),
    pytest.param({"use_dora": True}, "use_dora is True", False, id="DoRA without magnitudes"),
    pytest.param({"lora_alpha": "x"}, "lora_alpha", False, id="alpha is no number"),
]


@pytest.mark.parametrize(("damage", "says", "with_model"), DAMAGES)
def test_damage_is_named_and_nothing_is_written(damage, says, with_model, peft, refused, tmp_path):
    made, folder = peft("qwen3_moe")
    if isinstance(damage, dict):
        edit(folder, **damage)
    else:
        edit_tensors(folder, damage)
    model = ["--model", made.base] if with_model else []
    said = refused("adapter", "import", folder, "--out", tmp_path / "back", *model)
    assert says in said
    assert str(folder) in said
    assert not (tmp_path / "back").exists()


def test_what_is_no_peft_adapter_is_named(make_adapter, refused, tmp_path):
    made = make_adapter("llama")
    words = ("--out", tmp_path / "back")
    assert "mlx-lm's format already" in refused("adapter", "import", made.folder, *words)
    assert "no PEFT adapter is there" in refused("adapter", "import", made.base, *words)
    (made.base / "adapter_model.bin").write_bytes(b"\x80\x04")
    assert "pickles are not read" in refused("adapter", "import", made.base, *words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "import"),
        (["export"], "export is no action"),
        (["import"], "PEFT_FOLDER is missing"),
        (["import", "x"], "--out FOLDER is missing"),
        (["import", "x", "--uot", "y"], "--out"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(words, says, refused):
    assert says in refused("adapter", *words)


def test_the_wrong_model_is_named(peft, refused, make_adapter, tmp_path):
    made, folder = peft("llama")
    config = json.loads((made.base / "config.json").read_text())
    (made.base / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    said = refused("adapter", "import", folder, "--out", tmp_path / "b", "--model", made.base)
    assert "has shape (64, 3); (32, 3) is needed" in said
