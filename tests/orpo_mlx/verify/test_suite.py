"""`orpo-mlx verify`: what is right passes, and what is broken fails where it should."""

import json
import tempfile
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.__main__ import main
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.buckets import BucketTable
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models import patches, recompute
from orpo_mlx.objectives import orpo
from orpo_mlx.objectives.base import StepTotals
from orpo_mlx.scoring import activation_cache, base, fork, head, packed, plain
from orpo_mlx.training import start, step
from orpo_mlx.verify import gradients, reference, suite

PAIRS = "3"


def to_bfloat16(folder):
    file = folder / "model.safetensors"
    weights = {name: value.astype(mx.bfloat16) for name, value in mx.load(str(file)).items()}
    mx.eval(weights)
    mx.save_safetensors(str(file), weights, metadata={"format": "mlx"})
    return folder


GEMMA2 = {
    "model_type": "gemma2", "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    "query_pre_attn_scalar": 16, "sliding_window": 8, "head_dim": 16,
}  # fmt: skip


@pytest.fixture(
    params=[
        "4-bit",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("float32", "bfloat16", "gemma2")),
    ]
)
def kind(request):
    return request.param


@pytest.fixture
def some_model(
    kind, model_folder, quantized_model_folder, copy_folder, make_model_folder, tmp_path
):
    if kind == "bfloat16":
        return to_bfloat16(copy_folder(model_folder))
    if kind == "gemma2":
        return make_model_folder(tmp_path / "gemma2", **GEMMA2)
    return model_folder if kind == "float32" else quantized_model_folder


@pytest.fixture
def quick(monkeypatch):
    """Leave out what takes most of the time: compiling, and the trainings."""
    monkeypatch.setattr(gradients, "can_compile", lambda: False)
    monkeypatch.setattr(suite, "check_trainings", lambda *_: iter(()))


def results(capsys, *words):
    """Run the command; returns its exit code and its checks by name."""
    code = main(["verify", "--json", "--pairs", PAIRS, *map(str, words)])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, {check["name"]: check for check in json.loads(captured.out)}


def failed(checks):
    return [name for name, check in checks.items() if not check["passed"]]


def test_it_passes_on_tiny_models_of_every_kind_and_leaves_nothing_behind(
    kind, some_model, pairs_file, has_compiler, tmp_path, monkeypatch, capsys
):
    if kind != "float32":  # compiling takes long
        monkeypatch.setattr(gradients, "can_compile", lambda: False)
    if kind in ("bfloat16", "gemma2"):
        monkeypatch.setattr(suite, "check_trainings", lambda *_: iter(()))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    code, checks = results(capsys, "--model", some_model, "--data", pairs_file())

    assert (code, failed(checks)) == (0, [])
    for way in ("plain", "packed"):
        name = f"compiled step ({way}): gradient"
        assert (name in checks) == (has_compiler and kind == "float32")
    assert "trunk cache read back from disk (plain): gradient" in checks
    assert ("shapes to compile a step for (packed)" in checks) == (kind != "gemma2")
    for name in (
        "a second training gives the same bytes",
        "an interrupted and resumed training gives the same bytes",
        "trunk cache: interrupted on disk equals whole in memory",
    ):
        assert (name in checks) == (kind in ("float32", "4-bit"))
    if kind == "gemma2":
        assert "does not fit this model" in checks["packed scoring"]["note"]
        assert "shared scoring: gradient, used in training" in checks
    else:
        assert "packed scoring: gradient, used in training" in checks
    assert checks["fork scoring: gradient"]["limit"] == (0.1 if kind == "bfloat16" else 1e-5)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not (tmp_path / "orpo_mlx_home").exists()


def test_it_passes_on_the_demo_and_prints_a_line_for_each_check(quick, monkeypatch, capsys):
    for name in ("_check_composition", "_check_savings", "_check_activation_cache"):
        monkeypatch.setattr(gradients, name, lambda _: iter(()))
    assert main(["verify", "--demo", "--pairs", "1"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"all {len(lines) - 1} checks passed"
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert max(map(len, lines)) <= 80


def test_a_mapping_of_columns_holds_for_the_rows_and_not_for_the_short_runs(
    model_folder, pairs_file, capsys
):
    columns = ["prompt=prompt", "chosen=rejected", "rejected=chosen"]
    code, checks = results(
        capsys, "--model", model_folder, "--data", pairs_file(), "--map", *columns,
        "--layout", "single-turn",
    )  # fmt: skip

    assert (code, failed(checks)) == (0, [])


def test_it_passes_on_a_reward_model_with_margins(
    monkeypatch, model_folder, pairs_file, tmp_path, capsys
):
    monkeypatch.setattr(gradients, "can_compile", lambda: False)
    for name in ("_check_composition", "_check_savings", "_check_activation_cache"):
        monkeypatch.setattr(gradients, name, lambda _: iter(()))
    file = tmp_path / "reward.toml"
    file.write_text('objective = "reward"\nuse_margin = true\ncenter = 0.1\n')
    words = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No.", "margin": i}
             for i in range(4)]  # fmt: skip
    code, checks = results(
        capsys, "--model", model_folder, "--data", pairs_file(words), "--config", file
    )

    assert (code, failed(checks)) == (0, [])
    assert {"rewards of each pair", "fork scoring: rewards"} <= checks.keys()
    assert "an interrupted and resumed training gives the same bytes" in checks


def test_it_passes_on_answers_with_labels(monkeypatch, model_folder, pairs_file, tmp_path, capsys):
    monkeypatch.setattr(gradients, "can_compile", lambda: False)
    for name in ("_check_savings", "_check_activation_cache"):
        monkeypatch.setattr(gradients, name, lambda _: iter(()))
    file = tmp_path / "kto.toml"
    file.write_text('objective = "kto"\nundesirable_weight = 1.5\n')
    words = [{"prompt": f"What is {i}?", "completion": f"It is {i}.", "label": i % 2 == 0}
             for i in range(4)]  # fmt: skip
    code, checks = results(
        capsys, "--model", model_folder, "--data", pairs_file(words), "--config", file
    )

    assert (code, failed(checks)) == (0, [])
    assert {"loss of all pairs", "micro-batches, two uneven parts (packed): gradient"} <= set(
        checks
    )
    assert "an interrupted and resumed training gives the same bytes" in checks


# What is broken on purpose must not pass


def odds_without_their_complement(monkeypatch):
    monkeypatch.setattr(orpo, "log_odds", lambda logps: logps)


def loss_that_is_no_number(monkeypatch):
    monkeypatch.setattr(orpo, "log_odds", lambda logps: logps * float("nan"))


def mask_that_is_not_shifted(monkeypatch):
    right = plain.shift_batch

    def shift(batch, nll_scope):
        return right(batch, nll_scope)._replace(response_mask=batch.response_mask[:, :-1])

    monkeypatch.setattr(plain, "shift_batch", shift)


def mask_that_misses_the_last_token(monkeypatch):
    right = plain.shift_batch

    def shift(batch, nll_scope):
        shifted = right(batch, nll_scope)
        mask = shifted.response_mask.copy()
        mask[:, :-1] &= shifted.response_mask[:, 1:]
        return shifted._replace(response_mask=mask)

    monkeypatch.setattr(plain, "shift_batch", shift)


def answers_at_the_wrong_place(monkeypatch):
    right = packed.packed_cache

    def cache(model, positions, attend, mixer):
        return right(model, mx.arange(positions.size), attend, mixer)

    monkeypatch.setattr(packed, "packed_cache", cache)


def fork_that_shares_its_cache(monkeypatch):
    monkeypatch.setattr(fork, "fork_cache", lambda cache: cache)


def head_that_forgets_its_gradient(monkeypatch):
    right = head._with_unit_gradients

    def logps(model, hidden, targets, bounds):
        parts = mx.split(hidden, bounds)
        cut = [*parts[:-1], mx.stop_gradient(parts[-1])]
        return right(model, mx.concatenate(cut), targets, bounds)

    monkeypatch.setattr(head, "_with_unit_gradients", logps)


def checkpoint_that_recomputes_something_else(monkeypatch):
    right = recompute._checkpointed

    def wrapped(forward):
        return right(lambda layer, *args, **kwargs: 1.01 * forward(layer, *args, **kwargs))

    monkeypatch.setattr(recompute, "_checkpointed", wrapped)


def micro_batches_that_count_alike(monkeypatch):
    def totals(batches):
        return StepTotals(
            mx.array(float(len(batches) * batches[0].pairs)),
            mx.array(float(sum(batch.nll_tokens for batch in batches))),
            mx.array(float(sum(batch.response_tokens for batch in batches))),
        )

    monkeypatch.setattr(step, "step_totals", totals)


def adapter_that_does_nothing(monkeypatch):
    monkeypatch.setattr(gradients, "fill_adapter", lambda model: None)


def filling_that_counts(monkeypatch):
    for module in (orpo, base):
        monkeypatch.setattr(module, "masked_sum", lambda values, mask: values.sum(axis=-1))


def outputs_of_another_pair(monkeypatch):
    monkeypatch.setattr(
        activation_cache.ActivationCache, "_key", lambda self, pair: str(len(pair.prompt))
    )


def outputs_in_another_order(monkeypatch):
    right = patches.caught_below

    @contextmanager
    def caught_below(model, cut):
        with right(model, cut) as caught:
            yield caught
        caught.reverse()

    monkeypatch.setattr(activation_cache, "caught_below", caught_below)


def files_that_lose_bits(monkeypatch):
    right = activation_cache._packed
    monkeypatch.setattr(
        activation_cache, "_packed",
        lambda states, key: right(states.astype(mx.bfloat16).astype(states.dtype), key),
    )  # fmt: skip


def buckets_without_an_end(monkeypatch):
    monkeypatch.setattr(BucketTable, "bucket_for", lambda self, pairs: None)
    monkeypatch.setattr(suite, "MAX_BUCKETS", 0)


BREAKAGES = {
    odds_without_their_complement: "loss at log-probs from -0.0001 to -100",
    loss_that_is_no_number: "loss of all pairs",
    mask_that_is_not_shifted: "response tokens are scored, all of them and no others",
    mask_that_misses_the_last_token: "response tokens are scored, all of them and no others",
    answers_at_the_wrong_place: "packed scoring: gradient",
    fork_that_shares_its_cache: "fork scoring: gradient",
    head_that_forgets_its_gradient: "head in chunks of 7",
    checkpoint_that_recomputes_something_else: "gradient checkpointing (plain): gradient",
    micro_batches_that_count_alike: "micro-batches, two uneven parts (packed): gradient",
    filling_that_counts: "batches filled up to one shape (packed): gradient",
    outputs_of_another_pair: "trunk cache in memory (packed): gradient",
    outputs_in_another_order: "trunk cache on disk (shared): gradient",
    files_that_lose_bits: "trunk cache read back from disk (plain): gradient",
    buckets_without_an_end: "shapes to compile a step for (packed)",
    adapter_that_does_nothing: "every adapter parameter gets a gradient",
}


KINDS = {
    "_check_composition": ("micro-batches",),
    "_check_savings": ("chunks", "checkpointing", "filled up"),
    "_check_activation_cache": ("trunk cache",),
}
"""Checks that may be left out, and words of what they find."""


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_a_broken_computation_fails(breakage, quick, model_folder, pairs_file, monkeypatch, capsys):
    # What another kind of check would find takes the most time.
    for kind, words in KINDS.items():
        if not any(word in BREAKAGES[breakage] for word in words):
            monkeypatch.setattr(gradients, kind, lambda _: iter(()))
    breakage(monkeypatch)

    code, checks = results(capsys, "--model", model_folder, "--data", pairs_file())

    assert code == 1
    assert BREAKAGES[breakage] in failed(checks)


def resume_without_the_optimizer(monkeypatch):
    monkeypatch.setattr(start, "load_optimizer", lambda *_: None)


def dropout_that_nobody_can_repeat(monkeypatch):
    drawn = iter(range(99))
    monkeypatch.setattr(step, "step_key", lambda *_: mx.random.key(next(drawn)))


def outputs_that_depend_on_the_batch(monkeypatch):
    """Each output of a process is a little different, and only what is kept stays as it was."""
    right, made = activation_cache.ActivationCache._computed, []

    def computed(self, pair):
        made.append(pair)
        return right(self, pair) * (1 + 1e-4 * len(made))

    monkeypatch.setattr(activation_cache.ActivationCache, "_computed", computed)


def training_that_fails(monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("orpo_mlx.training.train._loop", fail)


TRAINING_BREAKAGES = {
    resume_without_the_optimizer: [
        "an interrupted and resumed training gives the same bytes",
        "trunk cache: interrupted on disk equals whole in memory",
    ],
    outputs_that_depend_on_the_batch: ["trunk cache: interrupted on disk equals whole in memory"],
    dropout_that_nobody_can_repeat: [
        "a second training gives the same bytes",
        "an interrupted and resumed training gives the same bytes",
        "trunk cache: interrupted on disk equals whole in memory",
    ],
    training_that_fails: ["a training of 4 steps"],
}


@pytest.mark.parametrize(
    "breakage",
    [
        pytest.param(
            breakage,
            marks=[] if breakage is resume_without_the_optimizer else [pytest.mark.slow],
            id=breakage.__name__,
        )
        for breakage in TRAINING_BREAKAGES
    ],
)
def test_a_broken_training_fails(breakage, model_folder, pairs_file, monkeypatch, capsys):
    monkeypatch.setattr(suite, "check_numbers", lambda _: iter(()))
    breakage(monkeypatch)

    code, checks = results(capsys, "--model", model_folder, "--data", pairs_file())

    assert (code, failed(checks)) == (1, TRAINING_BREAKAGES[breakage])


def test_responses_without_an_end_are_told(quick, model_folder, pairs_file, capsys):
    rows = [{"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9, 2], "rejected_ids": [10, 11]}]

    assert main(["verify", "--model", str(model_folder), "--data", str(pairs_file(rows))]) == 1

    out = capsys.readouterr().out.splitlines()
    (place,) = [i for i, line in enumerate(out) if line.strip() == "responses without (at most 0)"]
    assert out[place - 1].split()[0] == "FAILED"
    assert out[place - 1].endswith("1.0e+00")
    assert "checks failed" in out[-2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--model and --data: needed"),
        (["--model", "m", "--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--demo", "--pairs", "0"], "--pairs: 0 is not a whole number"),
        (["--demo", "--pears", "3"], "did you mean --pairs?"),
    ],
)
def test_bad_input_is_refused_with_2(words, said, capsys):
    assert main(["verify", *words]) == 2
    assert said in capsys.readouterr().err


def test_pairs_are_the_shortest_within_the_budget(monkeypatch):
    pairs = [TokenPair([1] * size, [2], [3]) for size in (50, 3, 20, 4)]

    assert [len(p.prompt) for p in suite.shortest(pairs, 3)] == [3, 4, 20]
    monkeypatch.setattr(suite, "TOKEN_BUDGET", 20)
    assert [len(p.prompt) for p in suite.shortest(pairs, 3)] == [3, 4]
    monkeypatch.setattr(suite, "TOKEN_BUDGET", 1)
    assert [len(p.prompt) for p in suite.shortest(pairs, 3)] == [3]


def test_the_second_computation_by_hand():
    """One pair: p chosen = 0.5 and p rejected = 0.2 per token give an odds ratio of 4."""
    scores = np.log([[0.5], [0.2], [1 / 0.5**3], [np.e**3]])
    config = TrainConfig(lam=1.0)

    # NLL log 2 per token of three, and -log(4 / 5) for the odds.
    found = reference.reference_loss(np.vstack([scores, [[1], [1]]]), np.zeros((2, 1)), config)
    assert found == pytest.approx(0.693147 + 0.223144, rel=1e-5)
