"""LoRA on mlx-lm's layers: attached, keyed, saved, loaded and switched off."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.utils
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from orpo_mlx import adapter
from orpo_mlx.adapter import AdapterSpec, attach_adapter
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import AdapterError, ConfigError

TOKENS = mx.array([[5, 9, 200, 31, 7, 42], [8, 8, 120, 3, 250, 1]])
ATTENTION = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
MLP = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


@pytest.fixture(params=["plain", "quantized"])
def base_folder(request: pytest.FixtureRequest) -> Path:
    name = "model_folder" if request.param == "plain" else "quantized_model_folder"
    return request.getfixturevalue(name)


def load(folder: Path) -> Any:
    return mlx_lm.utils.load_model(folder)[0]


def logits(model: Any) -> np.ndarray:
    return np.array(model(TOKENS).astype(mx.float32))


def shake(model: Any, seed: int = 7) -> None:
    """Give the adapter values as after training, so that it changes answers."""
    mx.random.seed(seed)
    trained = tree_map(lambda a: a + 0.1 * mx.random.normal(a.shape), model.trainable_parameters())
    model.update(trained)


def make_moe(make_model_folder: Callable[..., Path], path: Path) -> Path:
    return make_model_folder(
        path,
        model_type="qwen3_moe",
        num_experts=4,
        num_experts_per_tok=2,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        moe_intermediate_size=32,
        head_dim=16,
        norm_topk_prob=True,
    )


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
    assert adapter.build_adapter_spec(TrainConfig(), model).num_layers == 2
    assert adapter.build_adapter_spec(TrainConfig(num_layers=17), model).num_layers == 17


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
    assert [name for name, _ in adapter.adapter_layers(model)] == expected


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
        starts.append(np.array(adapter.adapter_parameters(model)[f"{FIRST}.lora_a"]))
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])


FIRST = "model.layers.0.self_attn.q_proj"


def test_only_the_adapter_is_trainable_and_numbers_are_right(base_folder: Path) -> None:
    model = load(base_folder)
    attach_adapter(model, AdapterSpec(rank=4, target_modules=("q_proj", "down_proj")), seed=0)
    shapes = {name: array.shape for name, array in adapter.adapter_parameters(model).items()}
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
    assert adapter.count_parameters(model) == (trainable, total)


def test_dora_counts_and_trains_one_magnitude_per_output(model_folder: Path) -> None:
    model = load(model_folder)
    attach_adapter(model, AdapterSpec(rank=2, dora=True, target_modules=("k_proj",)), seed=0)
    assert adapter.adapter_parameters(model)["model.layers.1.self_attn.k_proj.m"].shape == (32,)


def test_dora_refuses_widths_that_mlx_lm_computes_wrong(
    make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model = load(make_model_folder(tmp_path / "m"))
    nn.quantize(model, group_size=32, bits=6)
    with pytest.raises(ConfigError, match="quantized to 6 bits"):
        attach_adapter(model, AdapterSpec(dora=True), seed=0)


def test_experts_get_adapters_but_no_dora(
    make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model = load(make_moe(make_model_folder, tmp_path / "moe"))
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
    with adapter.adapter_switched_off(model):
        assert np.array_equal(logits(model), before)
    assert np.array_equal(logits(model), trained)


def test_the_adapter_is_back_after_an_error(model_folder: Path) -> None:
    model = load(model_folder)
    names = attach_adapter(model, AdapterSpec(), seed=0)
    off = adapter.adapter_switched_off(model)
    off.__enter__()
    assert adapter.adapter_layers(model) == []
    assert not off.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert sorted(name for name, _ in adapter.adapter_layers(model)) == sorted(names)


# Dropout


def dropout_loss(model: Any, key: mx.array) -> mx.array:
    adapter.set_dropout_key(model, key)
    return nn.losses.cross_entropy(model(TOKENS[:, :-1]), TOKENS[:, 1:], reduction="mean")


def dropout_gradients(model: Any, key: mx.array) -> dict[str, np.ndarray]:
    value_and_grad = nn.value_and_grad(model, lambda: dropout_loss(model, key))
    return {name: np.array(grad) for name, grad in tree_flatten(value_and_grad()[1])}


def dropout_model(folder: Path) -> Any:
    model = load(folder)
    attach_adapter(model, AdapterSpec(rank=4, dropout=0.3), seed=0)
    shake(model)
    return model.train()


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    layer = adapter.KeyedDropout(0.3)
    layer._key = mx.random.key(3)
    out = np.array(layer(mx.ones((100, 1000))))
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.7)}
    assert abs((out == 0).mean() - 0.3) < 0.01
    layer.eval()
    assert np.array_equal(layer(mx.ones((2, 2))), mx.ones((2, 2)))


def test_dropout_depends_on_the_key_and_on_nothing_else(model_folder: Path) -> None:
    model = dropout_model(model_folder)
    losses = []
    for noise, key in ((1, 5), (2, 5), (2, 6)):
        mx.random.seed(noise)
        losses.append(dropout_loss(model, mx.random.key(key)).item())
    assert losses[0] == losses[1] != losses[2]


def test_every_layer_has_its_own_mask(model_folder: Path) -> None:
    model = dropout_model(model_folder)
    adapter.set_dropout_key(model, mx.random.key(5))
    keys = {tuple(layer.dropout._key.tolist()) for _, layer in adapter.adapter_layers(model)}
    assert len(keys) == 14
    adapter.set_dropout_key(model, None)
    with pytest.raises(RuntimeError, match="set_dropout_key"):
        model(TOKENS)


def test_dropout_is_off_in_evaluation_and_its_key_is_no_parameter(model_folder: Path) -> None:
    model = dropout_model(model_folder)
    names = set(adapter.adapter_parameters(model))
    adapter.set_dropout_key(model, mx.random.key(5))
    assert set(adapter.adapter_parameters(model)) == names
    model.eval()
    plain = logits(model)
    adapter.set_dropout_key(model, mx.random.key(6))
    assert np.array_equal(logits(model), plain)


def checkpoint_blocks(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Recompute each block in the backward pass, as mlx-lm's --grad-checkpoint does."""
    calls: list[int] = []
    plain = type(model.layers[0]).__call__

    def checkpointed(self: Any, *args: Any, **kwargs: Any) -> Any:
        def inner(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            self.update(parameters)
            return plain(self, *args, **kwargs)

        return mx.checkpoint(inner)(self.trainable_parameters(), *args, **kwargs)

    monkeypatch.setattr(type(model.layers[0]), "__call__", checkpointed)
    return calls


def test_checkpointing_with_dropout_gives_identical_gradients(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, key = dropout_model(base_folder), mx.random.key(11)
    plain = dropout_gradients(model, key)
    calls = checkpoint_blocks(model, monkeypatch)
    checkpointed = dropout_gradients(model, key)
    assert calls
    assert plain.keys() == checkpointed.keys()
    for name in plain:
        assert np.array_equal(plain[name], checkpointed[name]), name


def test_gradients_under_dropout_agree_with_finite_differences(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, key = dropout_model(model_folder), mx.random.key(11)
    checkpoint_blocks(model, monkeypatch)
    gradients = dropout_gradients(model, key)
    start = model.trainable_parameters()
    rng = np.random.default_rng(0)
    for name, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape).astype(np.float32)
        values = {}
        for sign in (1, -1):
            moved = dict(tree_flatten(start))
            moved[name] = moved[name] + sign * 5e-3 * mx.array(direction)
            model.load_weights(list(moved.items()), strict=False)
            values[sign] = dropout_loss(model, key).item()
        model.update(start)
        slope = (values[1] - values[-1]) / 1e-2
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.05, abs=3e-4), name


def test_a_compiled_step_takes_the_key_as_an_argument(model_folder: Path) -> None:
    model = dropout_model(model_folder)

    @mx.compile
    def compiled(key: mx.array) -> mx.array:
        loss = dropout_loss(model, key)
        adapter.set_dropout_key(model, None)
        return loss

    for seed in (1, 2, 1):
        key = mx.random.key(seed)
        assert compiled(key).item() == pytest.approx(dropout_loss(model, key).item(), rel=1e-6)
    assert compiled(mx.random.key(1)).item() != compiled(mx.random.key(2)).item()


# Saved and loaded


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
    adapter.save_adapter(model, spec, tmp_path / "out", base_model="tiny")
    loaded, _ = mlx_lm.utils.load(str(base_folder), adapter_path=str(tmp_path / "out"))[:2]
    names = [name for name, _ in adapter.adapter_layers(loaded)]
    assert names == [name for name, _ in adapter.adapter_layers(model)]
    assert np.array_equal(logits(loaded), logits(model))


def test_mlx_lm_rebuilds_a_saved_adapter_of_experts(
    make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_moe(make_model_folder, tmp_path / "moe")
    model = load(folder)
    attach_adapter(model, AdapterSpec(rank=2), seed=0)
    shake(model)
    adapter.save_adapter(model, AdapterSpec(rank=2), tmp_path / "out")
    loaded, _ = mlx_lm.utils.load(str(folder), adapter_path=str(tmp_path / "out"))[:2]
    assert np.array_equal(logits(loaded), logits(model))


@pytest.fixture
def saved(model_folder: Path, tmp_path: Path) -> Path:
    """A trained adapter of rank 4 on both blocks."""
    model = load(model_folder)
    spec = AdapterSpec(rank=4, scale=3.0, dropout=0.1)
    attach_adapter(model, spec, seed=0)
    shake(model)
    folder = tmp_path / "adapter"
    adapter.save_adapter(model, spec, folder, "org/tiny", "f" * 64, extra={"note": "kept"})
    return folder


def attached(model_folder: Path, folder: Path) -> Any:
    model = load(model_folder)
    attach_adapter(model, adapter.read_adapter_spec(folder), seed=1)
    return model


def test_a_saved_adapter_comes_back_as_it_was(model_folder: Path, saved: Path) -> None:
    spec = adapter.read_adapter_spec(saved)
    assert replace(spec, target_modules=("all",)) == AdapterSpec(4, 3.0, 0.1, ("all",), 2, False)
    assert sorted(spec.target_modules) == sorted([*ATTENTION, *MLP])
    model = attached(model_folder, saved)
    adapter.load_adapter_into(model, saved, "f" * 64, "org/tiny")
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

    def fail(path: str, *args: Any, **kwargs: Any) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", fail)
    with pytest.raises(RuntimeError, match="No space"):
        adapter.save_adapter(model, AdapterSpec(rank=4), saved)
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
        adapter.read_adapter_spec(saved)


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
        adapter.load_adapter_into(attached(model_folder, saved), saved)


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
        adapter.load_adapter_into(model, saved)
    assert np.array_equal(logits(model), before)


def test_nan_in_an_adapter_is_refused(model_folder: Path, saved: Path) -> None:
    rewrite(saved, lambda arrays: {**arrays, f"{FIRST}.lora_b": mx.full((4, 64), float("nan"))})
    with pytest.raises(AdapterError, match=r"q_proj\.lora_b holds 256 values"):
        adapter.load_adapter_into(attached(model_folder, saved), saved)


def test_half_precision_weights_train_on_in_full_precision(model_folder: Path, saved: Path) -> None:
    rewrite(saved, lambda arrays: {n: a.astype(mx.bfloat16) for n, a in arrays.items()})
    model = attached(model_folder, saved)
    adapter.load_adapter_into(model, saved)
    assert {a.dtype for a in adapter.adapter_parameters(model).values()} == {mx.float32}


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
        adapter.load_adapter_into(model, saved)
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
        adapter.load_adapter_into(model, saved, fingerprint, base)
        return
    with pytest.raises(AdapterError, match="trained on org/tiny") as error:
        adapter.load_adapter_into(model, saved, fingerprint, base)
    assert str(base) in error.value.message


def test_an_adapter_that_does_not_name_its_base_is_accepted(
    model_folder: Path, saved: Path
) -> None:
    edit(saved, base_model=None, base_fingerprint=None)
    adapter.load_adapter_into(attached(model_folder, saved), saved, "a" * 64, "org/any")


@pytest.mark.parametrize("content", [None, "{", "[]", "[" * 100_000])
def test_a_missing_or_broken_settings_file_is_an_adapter_error(
    saved: Path, content: str | None
) -> None:
    path = saved / "adapter_config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        adapter.read_adapter_spec(saved)


def test_an_adapter_trained_by_mlx_lm_can_be_the_start(model_folder: Path, tmp_path: Path) -> None:
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model = load(model_folder)
    model.freeze()
    linear_to_lora_layers(model, 1, {"rank": 3, "scale": 20.0, "dropout": 0.0})
    shake(model)
    folder = tmp_path / "theirs"
    folder.mkdir()
    weights = adapter.adapter_parameters(model)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    settings = {"rank": 3, "scale": 20.0, "dropout": 0.0}
    config = {"num_layers": 1, "lora_parameters": settings, "model": str(model_folder)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    ours = attached(model_folder, folder)
    adapter.load_adapter_into(ours, folder, base_model=str(model_folder))
    assert np.array_equal(logits(ours), logits(model))
