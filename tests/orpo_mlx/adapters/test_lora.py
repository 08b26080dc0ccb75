"""LoRA on mlx-lm's layers: attached, counted and switched off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from support.tiny_adapter import load, logits, shake

from orpo_mlx.adapters import lora
from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import ConfigError

ATTENTION = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
MLP = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


# Which layers


def test_all_means_every_linear_layer_of_the_blocks_and_nothing_else(base_folder: Path) -> None:
    names = attach_adapter(load(base_folder), AdapterSpec(), seed=0)
    inner = [*MLP, *ATTENTION]
    assert sorted(names) == sorted(f"model.layers.{i}.{name}" for i in (0, 1) for name in inner)


def test_the_last_blocks_are_counted_from_the_end(model_folder: Path) -> None:
    names = attach_adapter(load(model_folder), AdapterSpec(num_layers=1), seed=0)
    assert len(names) == 7
    assert all(name.startswith("model.layers.1.") for name in names)


@pytest.mark.parametrize("count", [0, 3, 99])
def test_an_impossible_number_of_blocks_names_the_possible_ones(
    model_folder: Path, count: int
) -> None:
    with pytest.raises(ConfigError, match="this model has 2 blocks"):
        attach_adapter(load(model_folder), AdapterSpec(num_layers=count), seed=0)


def test_the_default_of_sixteen_blocks_fits_a_smaller_model(model_folder: Path) -> None:
    model = load(model_folder)
    assert lora.build_adapter_spec(TrainConfig(), model).num_layers == 2
    assert lora.build_adapter_spec(TrainConfig(num_layers=17), model).num_layers == 17


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("v_proj",), ["model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj"]),
        (("lm_head",), ["lm_head"]),
        (("model.layers.0.mlp.up_proj",), ["model.layers.0.mlp.up_proj"]),
        (
            ("self_attn.v_proj", "model.layers.1.self_attn.v_proj"),
            ["model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj"],
        ),
    ],
)
def test_targets_are_last_names_or_whole_paths(
    model_folder: Path, targets: tuple[str, ...], expected: list[str]
) -> None:
    model = load(model_folder)
    assert attach_adapter(model, AdapterSpec(target_modules=targets), seed=0) == expected
    assert [name for name, _ in lora.adapter_layers(model)] == expected


def test_part_of_a_name_is_no_match_and_the_message_lists_the_names(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean q_proj\?") as error:
        attach_adapter(load(model_folder), AdapterSpec(target_modules=("q_pro",)), seed=0)
    for name in ("down_proj", "lm_head", "q_proj"):
        assert name in error.value.what_to_do


def test_a_tied_output_layer_is_explained(
    make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_model_folder(tmp_path / "tied", tie_word_embeddings=True)
    with pytest.raises(ConfigError, match="embedding, used twice"):
        attach_adapter(load(folder), AdapterSpec(target_modules=("lm_head",)), seed=0)


# Start


def test_a_fresh_adapter_changes_no_logit(base_folder: Path) -> None:
    model = load(base_folder)
    before = logits(model)
    attach_adapter(model, AdapterSpec(target_modules=("all", "lm_head")), seed=0)
    assert np.array_equal(logits(model), before)


def test_a_fresh_dora_adapter_changes_no_logit(model_folder: Path) -> None:
    model = load(model_folder)
    before = logits(model)
    attach_adapter(model, AdapterSpec(dora=True), seed=0)
    assert np.array_equal(logits(model), before)


def test_a_fresh_dora_adapter_on_packed_weights_changes_rounding_only(
    quantized_model_folder: Path,
) -> None:
    model = load(quantized_model_folder)
    before = logits(model)
    attach_adapter(model, AdapterSpec(dora=True), seed=0)
    assert np.abs(logits(model) - before).max() < 1e-4


def test_the_start_follows_from_the_seed_alone(model_folder: Path) -> None:
    starts = []
    for noise, seed in ((1, 5), (2, 5), (2, 6)):
        model = load(model_folder)
        mx.random.seed(noise)
        attach_adapter(model, AdapterSpec(rank=4), seed=seed)
        following = mx.random.uniform(shape=(3,)).tolist()
        mx.random.seed(noise)
        assert following == mx.random.uniform(shape=(3,)).tolist()
        starts.append(np.array(lora.adapter_parameters(model)[f"{FIRST}.lora_a"]))
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])


FIRST = "model.layers.0.self_attn.q_proj"


def test_only_the_adapter_is_trainable_and_numbers_are_right(base_folder: Path) -> None:
    model = load(base_folder)
    attach_adapter(model, AdapterSpec(rank=4, target_modules=("q_proj", "down_proj")), seed=0)
    shapes = {name: array.shape for name, array in lora.adapter_parameters(model).items()}
    assert shapes == {
        f"model.layers.{i}.{name}.lora_{side}": shape
        for i in (0, 1)
        for name, sides in {
            "self_attn.q_proj": {"a": (64, 4), "b": (4, 64)},
            "mlp.down_proj": {"a": (128, 4), "b": (4, 64)},
        }.items()
        for side, shape in sides.items()
    }
    # By hand: per block attention 64*64*2 + 64*32*2, mlp 3*64*128, norms 2*64; then the rest.
    vocab = model.args.vocab_size
    block = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64
    trainable = 2 * (64 * 4 * 2 + 128 * 4 + 4 * 64)
    total = 2 * block + 2 * vocab * 64 + 64 + trainable
    assert lora.count_parameters(model) == (trainable, total)


def test_dora_counts_and_trains_one_magnitude_per_output(model_folder: Path) -> None:
    model = load(model_folder)
    attach_adapter(model, AdapterSpec(rank=2, dora=True, target_modules=("k_proj",)), seed=0)
    assert lora.adapter_parameters(model)["model.layers.1.self_attn.k_proj.m"].shape == (32,)


def test_dora_refuses_widths_that_mlx_lm_computes_wrong(
    make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model = load(make_model_folder(tmp_path / "m"))
    nn.quantize(model, group_size=32, bits=6)
    with pytest.raises(ConfigError, match="quantized to 6 bits"):
        attach_adapter(model, AdapterSpec(dora=True), seed=0)


def test_experts_get_adapters_but_no_dora(
    moe_folder: Path,
) -> None:
    model = load(moe_folder)
    before = logits(model)
    with pytest.raises(ConfigError, match="SwitchLinear, for which there is no DoRA"):
        attach_adapter(model, AdapterSpec(dora=True), seed=0)
    names = attach_adapter(model, AdapterSpec(rank=2), seed=0)
    assert "model.layers.0.mlp.switch_mlp.down_proj" in names
    assert np.array_equal(logits(model), before)


# Off


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_switched_off_the_base_answers_bit_for_bit(base_folder: Path, dora: bool) -> None:
    model = load(base_folder)
    before = logits(model)
    attach_adapter(model, AdapterSpec(dora=dora, num_layers=1), seed=0)
    shake(model)
    trained = logits(model)
    assert not np.allclose(trained, before)
    with lora.adapter_switched_off(model):
        assert np.array_equal(logits(model), before)
    assert np.array_equal(logits(model), trained)


def test_the_adapter_is_back_after_an_error(model_folder: Path) -> None:
    model = load(model_folder)
    names = attach_adapter(model, AdapterSpec(), seed=0)
    off = lora.adapter_switched_off(model)
    off.__enter__()
    assert lora.adapter_layers(model) == []
    assert not off.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert sorted(name for name, _ in lora.adapter_layers(model)) == sorted(names)
