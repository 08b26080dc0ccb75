"""Adapters on disk: rebuilt by mlx-lm exactly, and refused when they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import mlx_lm.utils
import numpy as np
import pytest
from support.tiny_adapter import load, logits, shake

from orpo_mlx.adapters.files import (
    check_base,
    load_adapter_into,
    read_adapter_config,
    read_adapter_spec,
    save_adapter,
)
from orpo_mlx.adapters.lora import AdapterSpec, adapter_layers, adapter_parameters, attach_adapter
from orpo_mlx.adapters.peft import read_peft_spec
from orpo_mlx.errors import AdapterError, ConfigError

FIRST = "model.layers.0.self_attn.q_proj"
LAYERS = [
    "mlp.down_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "self_attn.k_proj",
    "self_attn.o_proj",
    "self_attn.q_proj",
    "self_attn.v_proj",
]


@pytest.mark.parametrize(
    "spec",
    [
        AdapterSpec(rank=4),
        AdapterSpec(rank=4, num_layers=1, dropout=0.2),
        AdapterSpec(rank=2, target_modules=("q_proj", "lm_head"), scale=3.5),
        AdapterSpec(rank=2, target_modules=("model.layers.0.mlp.up_proj", "v_proj"), num_layers=1),
        AdapterSpec(rank=2, target_modules=("model.layers.1.mlp.up_proj",)),
        AdapterSpec(rank=4, dora=True),
    ],
    ids=["all", "last block", "lm_head", "outside the last blocks", "one of two", "dora"],
)
def test_mlx_lm_rebuilds_the_saved_adapter_exactly(
    base_folder: Path, tmp_path: Path, spec: AdapterSpec
) -> None:
    model = load(base_folder)
    attach_adapter(model, spec, seed=0)
    shake(model)
    save_adapter(model, spec, tmp_path / "out", base_model="tiny")
    loaded, _ = mlx_lm.utils.load(str(base_folder), adapter_path=str(tmp_path / "out"))[:2]
    names = [name for name, _ in adapter_layers(loaded)]
    assert names == [name for name, _ in adapter_layers(model)]
    assert np.array_equal(logits(loaded), logits(model))


def test_mlx_lm_rebuilds_a_saved_adapter_of_experts(moe_folder: Path, tmp_path: Path) -> None:
    model = load(moe_folder)
    attach_adapter(model, AdapterSpec(rank=2), seed=0)
    shake(model)
    save_adapter(model, AdapterSpec(rank=2), tmp_path / "out")
    loaded, _ = mlx_lm.utils.load(str(moe_folder), adapter_path=str(tmp_path / "out"))[:2]
    assert np.array_equal(logits(loaded), logits(model))


@pytest.fixture
def saved(model_folder: Path, tmp_path: Path) -> Path:
    """A trained adapter of rank 4 on both blocks."""
    model = load(model_folder)
    spec = AdapterSpec(rank=4, scale=3.0, dropout=0.1)
    attach_adapter(model, spec, seed=0)
    shake(model)
    folder = tmp_path / "adapter"
    save_adapter(model, spec, folder, "org/tiny", "f" * 64, extra={"note": "kept"})
    return folder


def attached(model_folder: Path, folder: Path) -> Any:
    model = load(model_folder)
    attach_adapter(model, read_adapter_spec(folder), seed=1)
    return model


def test_a_saved_adapter_comes_back_as_it_was(model_folder: Path, saved: Path) -> None:
    spec = read_adapter_spec(saved)
    assert replace(spec, target_modules=("all",)) == AdapterSpec(4, 3.0, 0.1, ("all",), 2, False)
    assert sorted(spec.target_modules) == LAYERS
    model = attached(model_folder, saved)
    load_adapter_into(model, saved, "f" * 64, "org/tiny")
    reference, _ = mlx_lm.utils.load(str(model_folder), adapter_path=str(saved))[:2]
    assert np.array_equal(logits(model), logits(reference))
    assert json.loads((saved / "adapter_config.json").read_text())["note"] == "kept"


def test_saving_leaves_only_the_two_files(saved: Path) -> None:
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["adapter_config.json", "adapters.safetensors"]


def test_a_failed_save_keeps_the_old_adapter(
    model_folder: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (saved / "adapters.safetensors").read_bytes()
    model = attached(model_folder, saved)

    def fail(file: BinaryIO, *args: Any, **kwargs: Any) -> None:
        file.write(b"half")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", fail)
    with pytest.raises(RuntimeError, match="No space"):
        save_adapter(model, AdapterSpec(rank=4), saved)
    assert (saved / "adapters.safetensors").read_bytes() == before
    assert len(list(saved.iterdir())) == 2


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    for name, value in changes.items():
        (config["lora_parameters"] if name in config["lora_parameters"] else config)[name] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale": float("nan")}, "scale is 'nan'"),
        ({"scale": "20"}, "scale is '20'"),
        ({"rank": 0}, "rank is '0'"),
        ({"rank": 2.5}, "rank is '2.5'"),
        ({"dropout": 1.0}, "dropout is '1.0'"),
        ({"fine_tune_type": "full"}, "fine_tune_type is 'full'"),
        ({"num_layers": "all"}, "num_layers is 'all'"),
        ({"num_layers": None}, "num_layers is 'None'"),
        ({"keys": "q_proj"}, "keys is 'q_proj'"),
        ({"lora_parameters": None}, "lora_parameters is 'None'"),
    ],
)
def test_senseless_adapter_settings_are_refused(
    saved: Path, changes: dict[str, Any], said: str
) -> None:
    edit(saved, **changes)
    with pytest.raises(AdapterError, match=said):
        read_adapter_spec(saved)


def test_an_adapter_for_more_blocks_than_there_are_is_refused(
    model_folder: Path, saved: Path
) -> None:
    edit(saved, num_layers=99)
    with pytest.raises(ConfigError, match="this model has 2 blocks"):
        attached(model_folder, saved)


def test_another_rank_than_the_tensors_names_tensor_and_shapes(
    model_folder: Path, saved: Path
) -> None:
    edit(saved, rank=8)
    with pytest.raises(AdapterError, match=r"q_proj\.lora_a has shape \(64, 4\); \(64, 8\)"):
        load_adapter_into(attached(model_folder, saved), saved)


def rewrite(folder: Path, change: Callable[[dict[str, mx.array]], dict[str, mx.array]]) -> None:
    path = str(folder / "adapters.safetensors")
    arrays: Any = mx.load(path)
    mx.eval(arrays)
    mx.save_safetensors(path, change(dict(arrays)))


def test_half_an_adapter_is_refused_and_changes_nothing(model_folder: Path, saved: Path) -> None:
    rewrite(saved, lambda arrays: dict(sorted(arrays.items())[:14]))
    model = attached(model_folder, saved)
    before = logits(model)
    with pytest.raises(AdapterError, match="14 found of 28 expected tensors; first missing: "):
        load_adapter_into(model, saved)
    assert np.array_equal(logits(model), before)


def test_nan_in_an_adapter_is_refused(model_folder: Path, saved: Path) -> None:
    rewrite(saved, lambda arrays: {**arrays, f"{FIRST}.lora_b": mx.full((4, 64), float("nan"))})
    with pytest.raises(AdapterError, match=r"q_proj\.lora_b holds 256 values"):
        load_adapter_into(attached(model_folder, saved), saved)


def test_half_precision_weights_train_on_in_full_precision(model_folder: Path, saved: Path) -> None:
    rewrite(saved, lambda arrays: {n: a.astype(mx.bfloat16) for n, a in arrays.items()})
    model = attached(model_folder, saved)
    load_adapter_into(model, saved)
    assert {a.dtype for a in adapter_parameters(model).values()} == {mx.float32}


@pytest.mark.parametrize("sign", ["peft_type", "file", "tensors"])
def test_an_adapter_of_peft_is_named_and_the_way_in_is_shown(
    model_folder: Path, saved: Path, sign: str
) -> None:
    model = attached(model_folder, saved)
    if sign == "peft_type":
        edit(saved, peft_type="LORA")
    elif sign == "file":
        (saved / "adapters.safetensors").rename(saved / "adapter_model.safetensors")
    else:
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        rewrite(saved, lambda arrays: {name: mx.ones((4, 64))})
    with pytest.raises(AdapterError, match="PEFT") as error:
        load_adapter_into(model, saved)
    assert "--init-adapter" in error.value.what_to_do


@pytest.mark.parametrize(
    ("base", "fingerprint", "fits"),
    [
        ("org/tiny", "f" * 64, True),
        ("moved/elsewhere", "f" * 64, True),
        ("org/tiny", "0" * 64, False),
        ("org/other", None, False),
        ("folder/Tiny", None, True),
        (None, None, True),
    ],
)
def test_the_base_is_compared_by_fingerprint_and_else_by_name(
    model_folder: Path, saved: Path, base: str | None, fingerprint: str | None, fits: bool
) -> None:
    model = attached(model_folder, saved)
    if fits:
        load_adapter_into(model, saved, fingerprint, base)
        return
    with pytest.raises(AdapterError, match="trained on org/tiny") as error:
        load_adapter_into(model, saved, fingerprint, base)
    assert str(base) in error.value.message


def test_an_adapter_that_does_not_name_its_base_is_accepted(
    model_folder: Path, saved: Path
) -> None:
    edit(saved, base_model=None, base_fingerprint=None)
    load_adapter_into(attached(model_folder, saved), saved, "a" * 64, "org/any")


@pytest.mark.parametrize("content", [None, "{", "[]", "[" * 100_000])
def test_a_missing_or_broken_settings_file_is_an_adapter_error(
    saved: Path, content: str | None
) -> None:
    path = saved / "adapter_config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        read_adapter_spec(saved)


def test_an_adapter_trained_by_mlx_lm_can_be_the_start(model_folder: Path, tmp_path: Path) -> None:
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model = load(model_folder)
    model.freeze()
    linear_to_lora_layers(model, 1, {"rank": 3, "scale": 20.0, "dropout": 0.0})
    shake(model)
    folder = tmp_path / "theirs"
    folder.mkdir()
    weights = adapter_parameters(model)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    settings = {"rank": 3, "scale": 20.0, "dropout": 0.0}
    config = {"num_layers": 1, "lora_parameters": settings, "model": str(model_folder)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    ours = attached(model_folder, folder)
    load_adapter_into(ours, folder, base_model=str(model_folder))
    assert np.array_equal(logits(ours), logits(model))


ODD = (None, True, -1, 0, 1e300, 10**400, float("nan"), "8", "", [], [1], {}, {"a": []})
MLX_CONFIG = {
    "fine_tune_type": "lora", "num_layers": -1, "base_model": "m", "base_fingerprint": "f",
    "lora_parameters": {"rank": 8, "scale": 2.0, "dropout": 0.0, "keys": ["q_proj"]},
}  # fmt: skip
PEFT_CONFIG = {
    "peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "use_dora": False,
    "use_rslora": False, "bias": "none", "alpha_pattern": {},
}  # fmt: skip


def _with_odd_values(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in config.items():
        for odd in ODD:
            yield config | {key: odd}
            if isinstance(value, dict):
                yield from (config | {key: value | {inner: odd}} for inner in value)


def test_settings_of_wrong_types_are_refused_in_words(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    arrays = {name.format("A"): mx.zeros((8, 4)), name.format("B"): mx.zeros((4, 8))}
    mx.save_safetensors(str(theirs / "adapter_model.safetensors"), arrays)
    read, advice = 0, []
    for folder, config in ((ours, MLX_CONFIG), (theirs, PEFT_CONFIG)):
        for odd in _with_odd_values(config):
            (folder / "adapter_config.json").write_text(json.dumps(odd))
            try:
                if folder == ours:
                    read_adapter_spec(folder)
                    check_base(folder, read_adapter_config(folder), "other", "m")
                else:
                    read_peft_spec(folder)
                read += 1
            except AdapterError as error:
                advice.append(error.what_to_do)
    assert read > 10
    assert len(advice) > 100
    assert all(advice)
