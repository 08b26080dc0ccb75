"""The memory estimate: its parts by hand, never below what MLX measures, and the refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from support.hub import point_client

from benchmarks import fit_grid
from orpo_mlx.cli import main as command
from orpo_mlx.cli.commands.train import dry_run
from orpo_mlx.cli.run_report import build_report
from orpo_mlx.config import build_config
from orpo_mlx.data.batching.buckets import build_buckets
from orpo_mlx.data.batching.shape import BatchShape, Lengths
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import ConfigError, ModelError
from orpo_mlx.models.shape import Linear, ModelShape, build_shape, folder_shape, read_shape
from orpo_mlx.planning.batch_shape import longest_batch
from orpo_mlx.planning.memory import Savings, count_costs, estimate, parse_size
from orpo_mlx.runs import events
from orpo_mlx.scoring.attention import build_attend
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.packed import unflatten
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.training.preparation import adapted
from orpo_mlx.training.train import train

BLOCK = (Linear("model.layers.0.self_attn.q_proj", 8, 8), Linear("model.layers.0.mlp.up", 8, 32))
TINY = ModelShape(
    weight_bytes=1000, vocab=50, hidden=8, heads=2, head_width=8, kv_width=4, float_bytes=4,
    blocks=(BLOCK, BLOCK),
)  # fmt: skip
TOKENS = BatchShape(rows=64, scored=64, cells=80, keys=112, area=3000)


def test_parts_by_hand():
    config = build_config({"rank": 2})
    parts = estimate(TINY, config, TOKENS).parts()
    assert parts["weights"] == 1000
    # Two blocks, rank 2: 2 * (8 + 8) + 2 * (8 + 32) = 112 numbers each; five float32 of each.
    assert parts["adapter"] == 2 * 112 * 4 * 5
    # Per token and block: (8 + 8) + 2 and (8 + 32) + 2 numbers of 4 bytes = 240 bytes.
    assert parts["activations"] == 2 * 64 * 240
    # Scores 2 heads * 3000 * 4, mask 3000, queries 80 * 8 * 4, keys and values 2 * 192 * 4 * 4.
    assert parts["attention"] == 2 * (24000 + 3000 + 2560 + 6144)
    assert parts["head"] == (64 + 64) * 8 * 4
    # Layers: 11 * 64 * 32 * 4 + 3.5 * 24000 = 174112; logits: 7 * 64 * 50 * 4 = 89600.
    assert parts["at_work"] == 174112
    known = 4480 + 30720 + 71408 + 4096 + 174112
    assert parts["margin"] == pytest.approx(0.1 * known + (8 << 20), abs=1)


def test_checkpointing_keeps_only_the_inputs_of_blocks():
    parts = estimate(TINY, build_config({"grad_checkpoint": "on"}), TOKENS).parts()
    assert parts["activations"] == 2 * 64 * 8 * 4
    assert parts["attention"] == 0


def test_recomputing_every_second_block_keeps_the_others():
    costs = count_costs(replace(TINY, blocks=(BLOCK,) * 5), build_config({"rank": 2}), TOKENS)
    parts = costs.with_savings(Savings(recompute_every=2)).parts()
    # Blocks 0, 2 and 4 keep their input of 8 floats a token, 1 and 3 all of 240 bytes (above).
    assert parts["activations"] == 64 * (3 * 8 * 4 + 2 * 240)
    assert parts["attention"] == 2 * (24000 + 3000 + 2560 + 6144)
    # Of 4 blocks the last is kept, and done with before another is computed again.
    costs = replace(costs, blocks=4)
    parts = costs.with_savings(Savings(recompute_every=2)).parts()
    assert parts["activations"] == 64 * (2 * 8 * 4 + 1 * 240)


def test_logits_of_chunks_by_hand():
    costs = replace(count_costs(TINY, build_config({}), TOKENS), layer=0, scored=300)
    at_work = [costs.with_savings(Savings(0, chunk)).at_work for chunk in (512, 256, 100, 16)]
    # Four buffers of 50 floats a position.
    assert at_work == [4 * 300 * 200, 4 * 256 * 200, 4 * 100 * 200, 4 * 16 * 200]


def test_a_head_that_is_trained_itself_keeps_more_logits():
    config = build_config({"target_modules": "q_proj,lm_head"})
    costs = replace(count_costs(TINY, config, TOKENS), layer=0, scored=300)
    assert costs.with_savings(Savings(0, 100)).at_work == 16 * 100 * 200


def test_batch_shape_of_one_pair_by_hand():
    # Prompt 21 - 1 = 20 -> 32 wide, answers 10 and 14 -> 16 wide; 20 + 24 = 44 tokens -> 64.
    shape = WAYS["packed"].batch_shape([Lengths(21, 10, 14)], "response")
    area = 32 * 32 + 2 * 16 * (32 + 16)
    assert shape == BatchShape(64, 64, 32 + 2 * 16, 32 + 2 * 48, area, block=area)
    # Without mask arrays the prompt is as wide as it is.
    shape = WAYS["causal"].batch_shape([Lengths(21, 10, 14)], "response")
    area = 20 * 20 + 2 * 16 * (20 + 16)
    assert shape == BatchShape(64, 64, 20 + 2 * 16, 20 + 2 * 36, area, block=area)
    # Plain: 21 + 14 tokens, less the last one 34 -> 64, two rows.
    assert WAYS["plain"].batch_shape([Lengths(21, 10, 14)], "full") == BatchShape(
        128, 0, 128, 128, 128 * 64, 128
    )


@pytest.mark.parametrize("way", ["packed", "causal"])
def test_attention_is_counted_as_it_is_computed(way: str, monkeypatch: pytest.MonkeyPatch):
    """Long rectangles attend in blocks of queries: at most what is counted, and nearly as much."""
    lengths = [Lengths(701, 300, 90), Lengths(2, 40, 500), Lengths(701, 80, 80)]
    pairs = [TokenPair([1] * p, [2] * c, [3] * r) for p, c, r in lengths]
    computed: list[int] = []

    def attend(q: mx.array, k: mx.array, v: mx.array, **_: Any) -> mx.array:
        computed.append(q.shape[0] * q.shape[2] * k.shape[2])
        return q

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", attend)
    packed = unflatten(Scoring(WAYS[way], "full").build(pairs, range(3)).arrays)
    heads = mx.zeros((1, 1, packed.ids.size, 8))
    build_attend(packed, way == "causal")(heads, heads, heads, 1.0, None, None)
    counted = WAYS[way].batch_shape(lengths, "full")
    assert sum(computed) <= counted.area < 1.15 * sum(computed)
    assert max(computed) <= counted.block < 0.75 * counted.area


@pytest.mark.parametrize("tokens", [31, 32, 33, 34, 65])
def test_plain_rows_are_counted_as_they_are_laid_out(tokens: int):
    pair = TokenPair([1] * 20, [2] * (tokens - 20), [3])
    (inputs, *_) = Scoring(WAYS["plain"], "full").build([pair], [0]).arrays
    counted = WAYS["plain"].batch_shape([Lengths(20, tokens - 20, 1)], "full")
    assert counted.rows == inputs.size


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(fit_grid.Row(hidden=64, layers=2, vocab=500, pairs=3), marks=pytest.mark.slow),
        fit_grid.Row(layers=5, pairs=2, chunk=64, settings=fit_grid.HALF_OF_THEM),
        fit_grid.Row(layers=2, pairs=2, bits=4, settings=(("num_layers", 1),)),
        fit_grid.Row(layers=2, pairs=1, scoring="plain"),
        fit_grid.Row(hidden=64, layers=2, vocab=500, pairs=1, prompt=300, response=20),
        fit_grid.Row(hidden=64, layers=2, vocab=500, pairs=1, prompt=900, scoring="causal"),
    ],
    ids=fit_grid.Row.name,  # a process each; the whole grid is benchmarks/fit_grid.py
)
def test_never_below_what_is_measured(row: fit_grid.Row):
    found = fit_grid.measure_apart(row)
    assert found["measured"] <= found["estimate"] < 3 * found["measured"]


def test_long_head_never_holds_all_logits():
    """24 chunks of logits are 98 MB; six arrays of 4 MB are alive at a time. Without the empty
    operations between chunks it is 86 MB in all, with them 63."""
    row = fit_grid.Row(hidden=32, layers=1, heads=1, kv_heads=1, vocab=4000, pairs=32)
    assert fit_grid.measure_apart(row)["measured"] < 75e6


@pytest.mark.parametrize("scope", ["full", "response"])
@pytest.mark.parametrize("way", ["packed", "plain"])
def test_a_filled_up_batch_is_counted_as_it_is_laid_out(way: str, scope: str):
    pairs = [TokenPair([1] * p, [2] * c, [3] * r) for p, c, r in [(40, 9, 5), (3, 70, 66)]]
    table = build_buckets([pairs, [pairs[0]] * 3], WAYS[way].bucket_cost)
    for batch in (pairs, [pairs[0]] * 3):
        bucket = table.bucket_for(batch)
        assert bucket is not None
        arrays = (
            Scoring(WAYS[way], scope, bucket_table=table).build(batch, range(len(batch))).arrays
        )
        counted = WAYS[way].bucket_shape(bucket, scope)
        assert counted.rows == arrays[0].size
        if way == "packed":
            packed = unflatten(arrays)
            assert counted.scored == packed.targets.size
            assert counted.cells == packed.cells.size


@pytest.mark.parametrize("name", ["rows", "scored", "cells", "keys", "area", "logits", "block"])
def test_grows_with_the_batch(name: str):
    config = build_config({})
    values = [getattr(TOKENS, name) * factor + 1000 * factor for factor in (1, 2, 8)]
    shapes = [BatchShape(**{**vars(TOKENS), name: value}) for value in values]
    totals = [estimate(TINY, config, shape).total for shape in shapes]
    assert totals == sorted(totals)


@pytest.mark.parametrize("name", ["vocab", "heads", "hidden", "kv_width", "weight_bytes"])
def test_grows_with_the_model(name: str):
    config = build_config({})
    sizes = [ModelShape(**{**vars(TINY), name: getattr(TINY, name) * f}) for f in (1, 4, 100)]
    totals = [estimate(size, config, TOKENS).total for size in sizes]
    assert totals == sorted(totals)
    assert totals[0] < totals[-1]


def test_grows_with_the_adapted_blocks():
    totals = [estimate(TINY, build_config({"num_layers": n}), TOKENS).total for n in (1, 2)]
    assert totals[0] < totals[1]
    assert totals[1] == estimate(TINY, build_config({"num_layers": -1}), TOKENS).total


def test_longest_batch_covers_every_batch():
    import random

    draw = random.Random(0)
    pairs = [
        Lengths(draw.randint(2, 300), draw.randint(1, 90), draw.randint(1, 90)) for _ in range(60)
    ]
    for batching in ("tokens", "fixed"):
        config = build_config({"batching": batching, "tokens_per_batch": 900})
        worst = longest_batch(pairs, config, WAYS["packed"])
        for _ in range(200):
            some = sorted(draw.sample(pairs, 4), key=lambda pair: pair.longest)
            while batching == "tokens" and len(some) > 1 and sum(map(sum, some)) > 900:
                some.pop()
            one = WAYS["packed"].batch_shape(some, "full")
            assert one.rows <= worst.rows
            assert one.area <= 1.15 * worst.area
            assert estimate(TINY, config, one).total <= estimate(TINY, config, worst).total


# The model's shape


def test_shape_of_plain_and_quantized(model_folder: Path, quantized_model_folder: Path):
    plain, packed = folder_shape(model_folder), folder_shape(quantized_model_folder)
    sizes = [{(x.name, x.inputs, x.outputs) for b in s.blocks for x in b} for s in (plain, packed)]
    assert sizes[0] == sizes[1]
    assert ("model.layers.1.self_attn.k_proj", 64, 32) in sizes[0]
    assert len(sizes[0]) == 2 * 7
    assert plain.weight_bytes > 4 * packed.weight_bytes
    assert (plain.heads, plain.head_width, plain.kv_width, plain.float_bytes) == (4, 64, 32, 4)


def test_shape_of_experts(moe_folder: Path):
    (first, *_) = folder_shape(moe_folder).blocks
    experts = [x for x in first if x.experts > 1]
    assert {(x.experts, x.per_token) for x in experts} == {(4, 2.0)}


def test_shape_of_a_model_on_the_hub(
    hub_server: Any, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    point_client(hub_server, tmp_path / "cache", monkeypatch)
    hub_server.add_model("who/tiny", model_folder)
    assert read_shape("who/tiny") == folder_shape(model_folder)
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert "config.json" in kept
    assert "model.safetensors" not in kept


def test_no_blocks_is_said():
    config = {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 10}
    with pytest.raises(ModelError, match="no numbered blocks"):
        build_shape(config, {"weight": ("F32", (8, 8))})


# The command and the check


@pytest.mark.parametrize(
    ("text", "size"), [("16GB", 16 * 10**9), ("512 mb", 512 * 10**6), ("1.5G", 15 * 10**8)]
)
def test_sizes(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0GB", "16 apples", "GB"])
def test_bad_sizes(text: str):
    with pytest.raises(ConfigError, match="16GB or 512MB"):
        parse_size(text)


def test_fit_answers_by_exit_code(model_folder: Path, capsys: pytest.CaptureFixture[str]):
    words = ["fit", "--model", str(model_folder)]
    assert command.main([*words, "--memory", "64GB"]) == 0
    assert "fits:" in capsys.readouterr().out
    assert command.main([*words, "--memory", "1kB"]) == 1
    assert "does not fit" in capsys.readouterr().out
    assert command.main([*words, "--memory", "lots"]) == 2
    assert command.main(["fit"]) == 2


def test_fit_suggests_what_fits(
    model_folder: Path, pairs_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    words = ["--model", str(model_folder), "--data", str(pairs_file()), "--json"]
    assert command.main(["fit", *words, "--memory", "64GB"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is True
    assert found["pairs"] == 8
    assert sum(found["parts"].values()) == found["estimated_bytes"]

    words = ["--model", str(model_folder), "--json", "--memory", "80MB"]
    assert command.main(["fit", *words]) == 1
    suggestions = json.loads(capsys.readouterr().out)["suggestions"]
    assert suggestions
    for one in suggestions:
        assert command.main(["fit", *words, *one["flags"].split()]) == 0
        assert json.loads(capsys.readouterr().out)["estimated_bytes"] == one["bytes"]


def _settings(model_folder: Path, data: Path, tmp_path: Path, **more: Any) -> Any:
    own = {"model": str(model_folder), "data": str(data), "steps": 1, "valid_fraction": 0}
    return build_config({**own, "run_dir": str(tmp_path / "run"), **more})


def test_train_refuses_before_the_weights(
    model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr("orpo_mlx.training.memory.available_bytes", lambda: 1_000_000)
    monkeypatch.setattr(adapted, "read_weights", lambda _: pytest.fail("was read"))
    with pytest.raises(ConfigError, match=r"1 MB are there.*weights.*activations") as caught:
        train(_settings(model_folder, pairs_file(), tmp_path))
    assert "--allow-overcommit" in caught.value.what_to_do
    assert not (tmp_path / "run").exists()


def test_train_on_all_the_same(
    model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr("orpo_mlx.training.memory.available_bytes", lambda: 1_000_000)
    config = _settings(model_folder, pairs_file(), tmp_path, allow_overcommit=True)
    result = train(config)
    records = events.read_events(result.run_dir / "events.jsonl")
    started = next(r.event for r in records if isinstance(r.event, events.RunStarted))
    assert started.estimated_peak_bytes > 1_000_000


def test_dry_run_is_checked(
    model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr("orpo_mlx.training.memory.available_bytes", lambda: 1_000_000)
    with pytest.raises(ConfigError):
        dry_run(_settings(model_folder, pairs_file(), tmp_path), build_report("quiet"))


# Recurrent layers


def test_a_recurrent_layer_is_known_by_its_convolution_and_keeps_more():
    """By hand: 10 numbers of 4 bytes for each of 24 channels and each cell, in both blocks."""
    sizes = {"hidden_size": 8, "num_heads": 2, "vocab_size": 16}
    linear = {f"backbone.layers.{i}.mixer.in_proj.weight": ("F32", (8, 8)) for i in (0, 1)}
    convolution = {"backbone.layers.1.mixer.conv1d.weight": ("F32", (24, 4, 1))}
    shapes = [build_shape(sizes, headers) for headers in (linear, {**linear, **convolution})]
    assert [shape.state_width for shape in shapes] == [0, 24]

    tokens = BatchShape(rows=64, cells=96, keys=96, area=96)
    config = build_config({"num_layers": -1})
    without, with_states = (estimate(shape, config, tokens) for shape in shapes)
    assert with_states.activations - without.activations == 2 * 10 * 4 * 24 * 96


def test_attention_counts_in_the_blocks_that_have_it():
    """By hand: of four blocks the second has a convolution alone, the third keys, too."""
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 16}
    names = {0: "self_attn.k_proj", 1: "conv.in_proj", 2: "self_attn.k_proj", 3: "self_attn.k_proj"}
    headers = {f"model.layers.{i}.{name}.weight": ("F32", (8, 8)) for i, name in names.items()}
    plain = build_shape(sizes, headers)
    for index in (1, 2):
        headers[f"model.layers.{index}.conv.conv.weight"] = ("F32", (8, 1, 4))
    hybrid = build_shape(sizes, headers)
    assert hybrid.recurrent == {1}
    assert hybrid.blocks == plain.blocks, "a convolution is no linear layer, what is beside it is"

    def attention(shape: ModelShape, every: int = 0, last: int = -1) -> int:
        tokens = BatchShape(rows=64, cells=96, keys=96, area=9600)
        savings = Savings(every) if every else None
        return estimate(shape, build_config({"num_layers": last}), tokens, True, savings).attention

    assert attention(hybrid) == attention(plain) * 3 // 4
    assert attention(hybrid, last=2) == attention(plain, last=2)
    # Which of the blocks are kept is not known: those with attention, then.
    assert attention(hybrid, every=2) == attention(plain, every=2) > 0
    assert attention(hybrid, every=1) == 0
