"""What is exported: which adapter of a run, and on which base."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from orpo_mlx.adapters.files import save_adapter
from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import AdapterError, ConfigError, ExportError, ModelError
from orpo_mlx.export.source import open_source
from orpo_mlx.models.load import fingerprint
from orpo_mlx.runs.checkpoints import Progress
from orpo_mlx.runs.directory import create_run
from orpo_mlx.training.checkpoint import save_checkpoint


@pytest.fixture
def run(model_folder, tmp_path):
    """A run of the tiny model with checkpoints 1 and 2, of which 1 was best, and a result."""
    import mlx.core as mx
    import mlx.optimizers as optimizers
    from mlx_lm.utils import load_model

    run = create_run(TrainConfig(model=str(model_folder), data="d", run_dir=str(tmp_path / "run")))
    model, _ = load_model(model_folder)
    spec = AdapterSpec(rank=2, scale=3.0)
    attach_adapter(model, spec, seed=0)
    optimizer = optimizers.AdamW(0.1)
    optimizer.init(model.trainable_parameters())

    def write(folder, value):
        weights = {n: mx.full(a.shape, value) for n, a in parameters.items()}
        model.load_weights(list(weights.items()), strict=False)
        save_adapter(model, spec, folder, str(model_folder), fingerprint(model_folder))

    from orpo_mlx.adapters.lora import adapter_parameters

    parameters = adapter_parameters(model)
    for step in (1, 2):
        progress = Progress(step=step, best_step=1, best_value=0.5)
        folder = run.checkpoints_folder
        save_checkpoint(folder, progress, optimizer, lambda f, s=step: write(f, float(s)), {})
    write(run.adapter_folder, 9.0)
    return run


def value_of(source):
    (value,) = {float(v) for layer in source.layers for v in np.unique(layer.a)}
    return value


@pytest.mark.parametrize(
    ("checkpoint", "value", "name"),
    [(None, 9.0, "run"), ("final", 9.0, "run"), ("best", 1.0, "run-1"), ("2", 2.0, "run-2")],
)
def test_a_run_has_a_result_a_best_and_every_checkpoint(run, checkpoint, value, name):
    source = open_source(str(run.path), checkpoint)
    assert value_of(source) == value
    assert source.name == name
    assert source.spec.scale == 3.0
    assert source.run == run


@pytest.mark.parametrize(
    ("checkpoint", "says"), [("3", "There are: 2, 1"), ("bset", "is not a step, best or final")]
)
def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(run, checkpoint, says):
    with pytest.raises((ExportError, ConfigError)) as error:
        open_source(str(run.path), checkpoint)
    assert says in str(error.value)
    assert f"--checkpoint {checkpoint}" in str(error.value)


def test_a_damaged_checkpoint_is_not_exported(run):
    path = run.checkpoints_folder / "0000002" / "adapters.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExportError, match="sha256 differs"):
        open_source(str(run.path), "2")


def test_a_run_without_a_result_offers_its_checkpoint(run):
    shutil.rmtree(run.adapter_folder)
    with pytest.raises(ExportError, match="has no result yet") as error:
        open_source(str(run.path))
    assert "--checkpoint 2" in error.value.what_to_do


def test_an_adapter_folder_has_no_checkpoints(run):
    assert value_of(open_source(str(run.adapter_folder))) == 9.0
    with pytest.raises(ConfigError, match="only runs have checkpoints"):
        open_source(str(run.adapter_folder), "best")


def test_a_base_that_moved_is_asked_for_and_taken(run, copy_folder, model_folder):
    config = run.adapter_folder / "adapter_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "base_model": "/gone/model"}))
    with pytest.raises(ModelError, match="/gone/model") as error:
        _ = open_source(str(run.adapter_folder)).layers
    assert "--model" in error.value.what_to_do
    moved = copy_folder(model_folder, "moved")
    assert value_of(open_source(str(run.adapter_folder), model=str(moved))) == 9.0


def test_a_base_that_is_not_named_is_asked_for(run):
    config = run.adapter_folder / "adapter_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "base_model": None}))
    with pytest.raises(ExportError, match="does not name the base") as error:
        open_source(str(run.adapter_folder))
    assert "--model" in error.value.what_to_do


def test_a_base_that_changed_since_the_training_is_refused(run, make_model_folder, tmp_path):
    other = make_model_folder(tmp_path / "other", seed=5)
    with pytest.raises(AdapterError, match="was trained on"):
        open_source(str(run.adapter_folder), model=str(other))


def test_an_adapter_of_mlx_lm_itself_is_read(run):
    """mlx-lm writes -1 for all blocks, no keys, and the base under another name."""
    config = run.adapter_folder / "adapter_config.json"
    settings = json.loads(config.read_text())
    parameters = {n: v for n, v in settings["lora_parameters"].items() if n != "keys"}
    config.write_text(
        json.dumps({
            "fine_tune_type": "lora", "num_layers": -1, "lora_parameters": parameters,
            "model": settings["base_model"], "iters": 100,
        })
    )  # fmt: skip
    source = open_source(str(run.adapter_folder))
    saved = load_file(run.adapter_folder / "adapters.safetensors")
    assert {f"{layer.path}.lora_a" for layer in source.layers} <= set(saved)
    assert len(source.layers) * 2 == len(saved)


def test_the_delta_is_scale_times_b_times_a(run):
    layer = open_source(str(run.path), "2").layers[0]
    # Every entry of A and B is 2, rank 2, scale 3: 3 * 2 * (2 * 2).
    assert np.unique(layer.delta(3.0)).tolist() == [24.0]
    assert layer.delta(3.0).shape == (layer.b.shape[1], layer.a.shape[0])
