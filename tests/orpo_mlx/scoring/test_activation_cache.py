"""Kept outputs of the blocks below the adapter change no gradient, and no bit after a resume."""

import hashlib
import json
import shutil
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import ConfigError
from orpo_mlx.objectives.orpo import Orpo
from orpo_mlx.runs import events
from orpo_mlx.runs.checkpoints import iter_checkpoints
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.scoring import activation_cache
from orpo_mlx.scoring.activation_cache import ActivationCache, DiskStore, MemoryStore, find_cut
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.storage.disk import LITTLE
from orpo_mlx.training.optimizer import build_optimizer
from orpo_mlx.training.step import TrainStep, evaluate
from orpo_mlx.training.train import resume, train

LENGTHS = [(3, 4, 9), (12, 2, 1), (5, 30, 6), (1, 7, 7), (20, 1, 15), (8, 3, 3)]
RNG = np.random.default_rng(3)
PAIRS = [TokenPair(*(RNG.integers(4, 290, size).tolist() for size in sizes)) for sizes in LENGTHS]
NAMES = ("packed", "causal", "shared", "plain")
PLENTY = 1 << 30


def load(folder, num_layers=1, dropout=0.0, target_modules=("all",)):
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    spec = AdapterSpec(
        rank=4, dropout=dropout, num_layers=num_layers, target_modules=target_modules
    )
    attach_adapter(model, spec, seed=1)
    mx.random.seed(7)
    drawn = [
        (name, 0.05 * mx.random.normal(value.shape))
        for name, value in tree_flatten(model.trainable_parameters())
        if name.endswith("lora_b")
    ]
    model.load_weights(drawn, strict=False)
    return model


def with_cut(model, way, store=None, scope="full"):
    scoring = Scoring(WAYS[way], scope)
    cut = replace(scoring, cut=find_cut(model, WAYS[way]))
    return cut, ActivationCache(model, cut, store or MemoryStore(PLENTY))


def gradient(model, scoring, division, feed=None, key=0):
    options = {"feed": feed} if feed else {}
    objective = Orpo(lam=0.5, nll_scope=scoring.nll_scope)
    optimizer = build_optimizer(TrainConfig())
    step = TrainStep(model, optimizer, objective, scoring, compiled=False, **options)
    grads = step.gradient([scoring.build(PAIRS, part) for part in division], mx.random.key(key))
    return {name: np.array(value) for name, value in tree_flatten(grads)}


def distance(one, other):
    assert one.keys() == other.keys()
    return max(
        np.linalg.norm(one[name] - value) / np.linalg.norm(value) for name, value in other.items()
    )


WHOLE, PARTS = [tuple(range(6))], [(5, 2), (0, 3, 1), (4,)]


@pytest.mark.parametrize("scope", ["full", "response"])
@pytest.mark.parametrize("way", NAMES)
def test_kept_outputs_give_the_gradient_of_a_whole_pass(base_folder, way, scope):
    model = load(base_folder)
    wanted = gradient(model, Scoring(WAYS["plain"], scope), WHOLE)
    cut, cache = with_cut(model, way, scope=scope)

    for division in (WHOLE, PARTS):
        assert distance(gradient(model, cut, division, cache.feed), wanted) < 1e-5

    assert (cache.misses, cache.hits) == (6, 6)


def test_the_blocks_below_are_not_computed_again(model_folder, monkeypatch):
    model = load(model_folder)
    cut, cache = with_cut(model, "packed")
    gradient(model, cut, WHOLE, cache.feed)
    wanted = gradient(model, cut, PARTS, cache.feed)
    below = model.layers[0].self_attn.q_proj
    below.weight = below.weight * float("nan")

    found = gradient(model, cut, PARTS, cache.feed)

    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    whole = gradient(model, Scoring(WAYS["packed"], "full"), PARTS)
    assert not all(np.isfinite(value).all() for value in whole.values())


@pytest.mark.parametrize("way", NAMES)
def test_bits_depend_on_the_pair_alone(model_folder, way):
    model = load(model_folder)
    cut, cache = with_cut(model, way)
    gradient(model, cut, WHOLE, cache.feed)
    _, other = with_cut(model, way)
    gradient(model, cut, PARTS[::-1], other.feed)

    for pair in PAIRS:
        assert np.array_equal(np.array(cache.states(pair)), np.array(other.states(pair)))


@pytest.mark.parametrize("targets", [("all",), ("all", "lm_head")], ids=["blocks", "head"])
def test_dropout_above_the_cut_is_as_without_a_cache(model_folder, targets):
    model = load(model_folder, dropout=0.3, target_modules=targets)
    wanted = gradient(model, Scoring(WAYS["packed"], "full"), PARTS, key=5)
    cut, cache = with_cut(model, "packed")

    assert distance(gradient(model, cut, PARTS, cache.feed, key=5), wanted) < 1e-5


def test_evaluation_takes_kept_outputs_too(model_folder):
    model = load(model_folder)
    plain = Scoring(WAYS["packed"], "full")
    cut, cache = with_cut(model, "packed")
    wanted = evaluate(model, [plain.build(PAIRS, range(6))], Orpo(), plain)

    for _ in range(2):
        batches = [cut.lay_out(PAIRS, range(6))]
        found = evaluate(model, batches, Orpo(), cut, feed=cache.feed)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert (cache.misses, cache.hits) == (6, 6)


# What cannot be kept


def test_it_is_refused_where_nothing_below_stays_the_same(model_folder):
    from mlx_lm.tuner.lora import LoRAEmbedding

    embedded = load(model_folder)
    embedded.model.embed_tokens = LoRAEmbedding.from_base(embedded.model.embed_tokens)
    random = load(model_folder)
    random.layers[0].extra = nn.Dropout(0.1)
    cases = {
        "begins at the first block": (load(model_folder, num_layers=-1), "packed"),
        "the embedding is adapted": (embedded, "plain"),
        "dropout below": (random, "packed"),
        "fork scoring": (load(model_folder), "fork"),
    }
    for said, (model, way) in cases.items():
        with pytest.raises(ConfigError, match=said) as refused:
            find_cut(model, WAYS[way])
        assert "--trunk-cache off" in refused.value.what_to_do


def test_an_adapted_head_alone_leaves_all_blocks_below(model_folder):
    model = load(model_folder, target_modules=("lm_head",), dropout=0.0)
    wanted = gradient(model, Scoring(WAYS["plain"], "full"), WHOLE)
    cut, cache = with_cut(model, "packed")

    assert cut.cut == 2
    assert distance(gradient(model, cut, WHOLE, cache.feed), wanted) < 1e-5


# Stores


def some_states(seed, dtype=mx.float32):
    return mx.random.normal((5, 8), key=mx.random.key(seed)).astype(dtype)


@pytest.fixture(params=["memory", "disk"])
def make_store(request, tmp_path):
    return lambda limit: (
        MemoryStore(limit) if request.param == "memory" else DiskStore(tmp_path / "trunk", limit)
    )


def test_a_full_store_adds_nothing_and_says_so_once(make_store, model_folder):
    model = load(model_folder)
    one = MemoryStore(PLENTY)
    with_cut(model, "packed", one)[1].states(PAIRS[0])
    store = make_store(3 * one.bytes)
    cut, cache = with_cut(model, "packed", store)
    wanted = gradient(model, *[Scoring(WAYS["packed"], "full"), PARTS])

    for _ in range(2):
        assert distance(gradient(model, cut, PARTS, cache.feed), wanted) < 1e-5

    assert 0 < store.bytes <= 3 * one.bytes
    assert store.is_full
    assert 0 < cache.hits < 6
    (problem,) = cache.take_problems()
    assert "keeps no more: it is full" in problem
    assert cache.take_problems() == []


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_files_hold_every_bit_for_a_later_process(tmp_path, dtype):
    states = some_states(0, dtype)
    DiskStore(tmp_path, PLENTY).put("key", states)

    found = DiskStore(tmp_path, PLENTY).get("key")

    assert found.dtype == dtype
    assert mx.array_equal(found, states).item()


def damaged(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-9])


def of_another_pair(path):
    other = path.with_name("other.safetensors")
    shutil.copy(other, path)


def something_else(path):
    path.write_bytes(b"{}")


@pytest.mark.parametrize("harm", [damaged, cut_short, of_another_pair, something_else])
def test_a_damaged_file_is_told_and_replaced(tmp_path, harm):
    store = DiskStore(tmp_path, PLENTY)
    store.put("key", some_states(0))
    store.put("other", some_states(1))
    harm(tmp_path / "key.safetensors")

    assert store.get("key") is None
    assert "key.safetensors of the trunk cache is not used" in store.problems[0]
    store.put("key", some_states(0))
    assert mx.array_equal(store.get("key"), some_states(0)).item()


def test_a_disk_that_is_full_ends_the_adding_and_not_the_run(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(activation_cache, "write_unsynced", fail)
    store = DiskStore(tmp_path / "trunk", PLENTY)
    store.put("key", some_states(0))

    assert store.get("key") is None
    assert store.is_full
    (problem,) = store.problems
    assert "No space left" in problem


def test_room_is_left_on_the_disk_for_checkpoints(tmp_path, monkeypatch):
    free = {"bytes": 10**12}
    monkeypatch.setattr(activation_cache, "free_bytes", lambda _: free["bytes"])
    store = DiskStore(tmp_path / "trunk", PLENTY)
    store.put("early", some_states(0))
    free["bytes"] = LITTLE
    store.put("late", some_states(1))

    assert store.get("early") is not None
    assert store.get("late") is None
    (problem,) = store.problems
    assert "nearly full" in problem
    assert "--trunk-cache-size" not in problem


# Runs

STEPS = 6


def settings(model, data, run_dir, **changes):
    return TrainConfig(
        **{
            "model": str(model), "data": str(data), "run_dir": str(run_dir), "steps": STEPS,
            "micro_batch_size": 3, "rank": 2, "num_layers": 1, "learning_rate": 2e-3,
            "dropout": 0.2, "valid_fraction": 0.2, "eval_every": 4, "report_every": 2,
            "save_every": 1, "keep_checkpoints": 99, "sample_prompts": 0, "trunk_cache": "memory",
            **changes,
        }
    )  # fmt: skip


def digest(folder):
    return hashlib.sha256((folder / "adapters.safetensors").read_bytes()).hexdigest()


def told(run_dir, kind):
    found = [record.event for record in events.read_events(run_dir / "events.jsonl")]
    return [event for event in found if isinstance(event, kind)]


def cut_back(run_dir, step):
    """Leave the run as a kill after this step's checkpoint does."""
    shutil.rmtree(run_dir / "adapter", ignore_errors=True)
    for checkpoint in iter_checkpoints(run_dir / "checkpoints"):
        if int(checkpoint.name) > step:
            shutil.rmtree(checkpoint)
    lines = (run_dir / "events.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line).get("step", 0) <= step]
    (run_dir / "events.jsonl").write_text("".join(x for x in kept if "RunFinished" not in x))


def test_a_resumed_run_equals_an_uninterrupted_one(quantized_model_folder, pairs_file, tmp_path):
    data, cases = pairs_file(10), {
        "memory": {}, "disk": {"trunk_cache": "disk"}, "full": {"trunk_cache_size": 1e-5},
    }  # fmt: skip
    for name, changes in cases.items():
        run_dir = tmp_path / name
        train(settings(quantized_model_folder, data, run_dir, **changes))
        whole = digest(run_dir / "adapter")
        # In the second epoch, where an uninterrupted run finds everything kept.
        cut_back(run_dir, 4)

        assert resume(RunDirectory(run_dir)).reason == "completed"
        assert digest(run_dir / "adapter") == whole
        starts = told(run_dir, events.RunStarted)
        assert [start.resumed_from_step for start in starts] == [0, 4]
        assert starts[0].trunk_blocks == 1


def test_memory_disk_and_a_full_cache_give_the_same_bytes(model_folder, pairs_file, tmp_path):
    data, kept = pairs_file(10), tmp_path / "kept"
    runs = {
        "memory": {}, "disk": {"trunk_cache": "disk"}, "full": {"trunk_cache_size": 1e-5},
        "own folder": {"trunk_cache": "disk", "trunk_cache_dir": str(kept)},
        "again": {"trunk_cache": "disk", "trunk_cache_dir": str(kept)},
    }  # fmt: skip
    for name, changes in runs.items():
        train(settings(model_folder, data, tmp_path / name, save_every=0, **changes))

    assert len({digest(tmp_path / name / "adapter") for name in runs}) == 1
    ends = {name: told(tmp_path / name, events.RunFinished)[0] for name in runs}
    # 8 pairs for training, twice; 2 for validation, seen at steps 0, 4 and 6.
    assert [ends["memory"].trunk_misses, ends["memory"].trunk_hits] == [10, 8 + 4]
    assert ends["again"].trunk_misses == 0
    assert ends["full"].trunk_misses > 10
    assert ends["full"].trunk_bytes <= 10_000
    assert ends["memory"].trunk_bytes > 10_000
    notes = [note.text for note in told(tmp_path / "full", events.NoteLogged)]
    assert sum("--trunk-cache-size allows more" in note for note in notes) == 1
    assert not (tmp_path / "disk" / "trunk").exists()
    assert len(list(kept.iterdir())) == 10


def test_a_stopped_run_leaves_its_files_for_the_resume(model_folder, pairs_file, tmp_path):
    config = settings(model_folder, pairs_file(10), tmp_path / "run", trunk_cache="disk")
    (tmp_path / "stops").mkdir()

    class Stops:
        def handle(self, event, line=""):
            from orpo_mlx.runs.control import send_request

            if isinstance(event, events.StepCompleted) and event.step == 4:
                send_request(RunDirectory(tmp_path / "run"), "stop")

        def catch_up(self, past):
            pass

        def progress(self, *_):
            pass

        def close(self):
            pass

    assert train(config, report=Stops()).reason == "stopped"
    assert len(list((tmp_path / "run" / "trunk").iterdir())) == 10

    resume(RunDirectory(tmp_path / "run"))

    assert told(tmp_path / "run", events.RunFinished)[-1].trunk_misses == 0
    assert not (tmp_path / "run" / "trunk").exists()


def test_one_pass_over_the_data_is_told(model_folder, pairs_file, tmp_path):
    for name, valid, said in (
        ("one", 0.2, "serves evaluations only"), ("none", 0.0, "is not used"),
    ):  # fmt: skip
        config = settings(
            model_folder, pairs_file(10), tmp_path / name, steps=2, valid_fraction=valid
        )
        train(config)
        assert said in " ".join(n.text for n in told(tmp_path / name, events.NoteLogged))
        end = told(tmp_path / name, events.RunFinished)[0]
        assert (end.trunk_misses, end.trunk_hits) == ((2, 2) if valid else (0, 0))


def test_a_refusal_leaves_no_folder(model_folder, pairs_file, tmp_path):
    config = settings(model_folder, pairs_file(10), tmp_path / "run", num_layers=2)

    with pytest.raises(ConfigError, match="begins at the first block"):
        train(config)
    assert not (tmp_path / "run").exists()
