"""What must not matter to a step, and what must: division, padding, order, masks, dropout."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.buckets import build_buckets
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.recompute import checkpoint_layers, recomputing
from orpo_mlx.objectives.orpo import Orpo
from orpo_mlx.scoring.base import Scoring, nll_tokens
from orpo_mlx.scoring.batches import step_parts
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.training.optimizer import build_optimizer, learning_rate_at, warmup_steps
from orpo_mlx.training.step import TrainStep, evaluate, step_key

LENGTHS = [(3, 4, 9), (12, 2, 1), (5, 30, 6), (1, 7, 7), (20, 1, 15), (8, 3, 3), (2, 2, 2)]
LENGTHS.append((6, 5, 11))


def random_pairs():
    rng = np.random.default_rng(3)
    return [
        TokenPair(*(rng.integers(4, 290, size).tolist() for size in sizes)) for sizes in LENGTHS
    ]


PAIRS = random_pairs()


def load(folder, dropout=0.0, seed=1):
    """The tiny model with an adapter whose B is not zero, so that A has a gradient too."""
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    attach_adapter(model, AdapterSpec(rank=4, scale=2.0, dropout=dropout), seed=seed)
    mx.random.seed(7)
    drawn = [
        (name, 0.05 * mx.random.normal(value.shape))
        for name, value in tree_flatten(model.trainable_parameters())
        if name.endswith("lora_b")
    ]
    model.load_weights(drawn, strict=False)
    return model


@pytest.fixture(params=["float32", "4-bit"])
def model(request, model_folder, quantized_model_folder):
    return load(model_folder if request.param == "float32" else quantized_model_folder)


NAMES = ["packed", "causal", "shared", "fork", "plain"]
PLAIN = Scoring(WAYS["plain"], "full")


@pytest.fixture(params=NAMES)
def way(request):
    return request.param


def make_step(model, objective=None, way="plain", **options):
    objective = objective or Orpo()
    scoring = Scoring(WAYS[way], objective.nll_scope)
    optimizer = build_optimizer(TrainConfig())
    return TrainStep(model, optimizer, objective, scoring, compiled=False, **options)


def gradient_of(model, divisions, objective=None, key=0, way="plain"):
    step = make_step(model, objective, way)
    batches = [step.scoring.build(PAIRS, indices) for indices in divisions]
    grads = step.gradient(batches, mx.random.key(key))
    return {name: np.array(value) for name, value in tree_flatten(grads)}


def assert_same_gradient(one, other, rtol):
    assert one.keys() == other.keys()
    for name, value in one.items():
        distance = np.linalg.norm(value - other[name]) / np.linalg.norm(value)
        assert distance < rtol, (name, distance)


OBJECTIVES = [
    Orpo(lam=0.5),
    Orpo(lam=0.5, nll_scope="full"),
    Orpo(lam=0.5, nll_reduction="pair"),
    Orpo(lam=0.5, nll_weight=0.0),
    Orpo(lam=0.5, preference="probability_ratio"),
    Orpo(preference="none"),
]


# All a way of scoring knows of an objective is its scope, which the first two differ in.
EACH_WAY = [("packed", objective) for objective in OBJECTIVES]
EACH_WAY += [
    (way, objective) for way in ("plain", "shared", "fork") for objective in OBJECTIVES[:2]
]


@pytest.mark.parametrize(("way", "objective"), EACH_WAY, ids=str)
def test_neither_division_nor_way_of_scoring_changes_the_gradient(model, way, objective):
    whole = gradient_of(model, [tuple(range(8))], objective)

    for division in (
        [tuple(range(8))],
        [(i,) for i in range(8)],
        [(5, 2), (0, 7, 1, 3), (6, 4)],
    ):
        assert_same_gradient(whole, gradient_of(model, division, objective, way=way), 1e-5)


DIVIDED = [
    ({"batching": "tokens", "tokens_per_batch": 90}, 2),
    ({"batching": "fixed", "micro_batch_size": 4}, 2),
    ({"batching": "fixed", "micro_batch_size": 4}, 3),
]


@pytest.mark.parametrize(("sizes", "parts"), DIVIDED, ids=str)
def test_divided_micro_batches_are_smaller_and_give_the_same_gradient(model_folder, sizes, parts):
    model, scoring = load(model_folder), Scoring(WAYS["packed"], "response")
    config = TrainConfig(**{"micro_batch_size": 8, "order": "file", **sizes})
    divided = config.model_copy(update={"micro_batch_parts": parts})

    whole, pieces = (step_parts(one, scoring, PAIRS, 1) for one in (config, divided))

    assert sorted(sum(pieces, ())) == sorted(sum(whole, ()))  # the pairs of the step stay
    assert len(pieces) > len(whole)
    by_number = sizes["batching"] == "fixed"
    largest = [
        max(len(part) if by_number else scoring.cost([PAIRS[i] for i in part]) for part in found)
        for found in (whole, pieces)
    ]
    spare = 0 if by_number else max(scoring.cost([pair]) for pair in PAIRS) // parts
    assert largest[1] <= min(-(-largest[0] // parts) + spare, largest[0] - 1)
    one, other = (gradient_of(model, found, way="packed") for found in (whole, pieces))
    assert_same_gradient(one, other, 1e-5)


@pytest.mark.parametrize(("way", "objective"), EACH_WAY, ids=str)
def test_neither_division_nor_way_of_scoring_changes_the_metrics(model, way, objective):
    def metrics(way, division):
        scoring = Scoring(WAYS[way], objective.nll_scope)
        batches = [scoring.build(PAIRS, part) for part in division]
        return evaluate(model, batches, objective, scoring)

    whole = metrics("plain", [tuple(range(8))])

    np.testing.assert_allclose(metrics(way, [tuple(range(8))]), whole, rtol=2e-5)
    np.testing.assert_allclose(metrics(way, [(i,) for i in range(8)]), whole, rtol=2e-5)


def test_every_adapter_parameter_gets_a_gradient(model):
    gradient = gradient_of(model, [(0, 1, 2, 3)])

    assert len(gradient) == 2 * 7 * 2  # A and B of seven layers in two blocks
    assert all(np.abs(value).max() > 0 for value in gradient.values())


def test_frozen_weights_and_their_values_stay_as_they_are(model):
    frozen = {
        name: np.array(value.astype(mx.float32))
        for name, value in tree_flatten(model.parameters())
        if "lora" not in name
    }

    make_step(model)([PLAIN.build(PAIRS, (0, 1))], mx.random.key(0), 1e-2)

    for name, value in tree_flatten(model.parameters()):
        if "lora" not in name:
            assert np.array_equal(np.array(value.astype(mx.float32)), frozen[name]), name


def scores(model, indices, way):
    scoring = Scoring(WAYS[way], "full")
    result = scoring.score(model, scoring.build(PAIRS, indices).arrays)
    return np.stack([np.array(part, dtype=np.float64) for part in result], axis=1)


def test_padding_composition_and_order_do_not_change_a_pairs_numbers(model, way):
    alone = np.concatenate([scores(model, (i,), "plain") for i in range(8)])

    together = scores(model, tuple(range(8)), way)
    backwards = scores(model, tuple(reversed(range(8))), way)[::-1]
    few = scores(model, (6, 1, 3), way)

    np.testing.assert_allclose(together, alone, rtol=2e-5)
    np.testing.assert_allclose(backwards, alone, rtol=2e-5)
    np.testing.assert_allclose(few, alone[[6, 1, 3]], rtol=2e-5)


def test_swapping_the_responses_swaps_the_log_probs_and_negates_the_ratio(model):
    swapped = [TokenPair(p.prompt, p.rejected, p.chosen) for p in PAIRS]

    there = evaluate(model, [PLAIN.build(PAIRS, range(8))], Orpo(), PLAIN)
    back = evaluate(model, [PLAIN.build(swapped, range(8))], Orpo(), PLAIN)

    there, back = (dict(zip(Orpo().metrics, m, strict=True)) for m in (there, back))
    assert there["log_odds_ratio"] == pytest.approx(-back["log_odds_ratio"], rel=1e-5)
    assert there["chosen_logps"] == pytest.approx(back["rejected_logps"], rel=1e-5)


class TableModel:
    """A model whose logits are a table the test can differentiate: [2B, T, V], no weights."""

    def __init__(self, table):
        self.table = table

    def __call__(self, inputs):
        return self.table[:, : inputs.shape[1]]


def test_exactly_the_tokens_that_count_are_scored():
    # Prompt 1 2, chosen 5 6 9 (9 ends the turn), rejected 7 9; T is padded to 8.
    pair = TokenPair([1, 2], [5, 6, 9], [7, 9])
    table = mx.random.normal((2, 32, 12), key=mx.random.key(1))

    def touched(which, scope):
        scoring = Scoring(WAYS["plain"], scope)
        arrays = scoring.build([pair], [0]).arrays

        def value(table):
            return getattr(scoring.score(TableModel(table), arrays), which).sum()

        grad = np.abs(np.array(mx.grad(value)(table))).sum(-1)
        return [np.flatnonzero(row).tolist() for row in grad]

    # The logits at t predict position t + 1: 5 6 9 stand at 2 3 4, so logits 1 2 3 count.
    assert touched("chosen_logps", "full") == [[1, 2, 3], []]
    assert touched("rejected_logps", "full") == [[], [1, 2]]
    assert touched("nll_sum", "full") == [[0, 1, 2, 3], []]
    assert touched("nll_sum", "response") == [[1, 2, 3], []]
    assert nll_tokens(pair, "full") == 4
    assert nll_tokens(pair, "response") == 3


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("way", ["packed", "plain"])
def test_gradient_checkpointing_changes_no_gradient(model_folder, dropout, way):
    division = [(0, 1, 2), (3, 4)]
    plain = gradient_of(load(model_folder, dropout), division, key=5, way=way)
    model = load(model_folder, dropout)
    checkpoint_layers(model.layers)

    recomputed = gradient_of(model, division, key=5, way=way)

    assert_same_gradient(plain, recomputed, 1e-6)


@pytest.fixture(scope="module")
def deep_folder(make_model_folder, tmp_path_factory):
    """Five blocks, so that every second one is not every one."""
    return make_model_folder(tmp_path_factory.mktemp("deep") / "model", num_hidden_layers=5)


@pytest.mark.parametrize("every", [1, 2, 3, 9])
@pytest.mark.parametrize("way", ["packed", "plain"])
def test_recomputing_some_blocks_changes_no_gradient(deep_folder, way, every):
    division = [(0, 1, 2), (3, 4)]
    model = load(deep_folder, dropout=0.2)
    kept = gradient_of(model, division, key=5, way=way)

    with recomputing(model.layers, every):
        recomputed = gradient_of(model, division, key=5, way=way)
    afterwards = gradient_of(model, division, key=5, way=way)

    assert_same_gradient(kept, recomputed, 1e-6)
    assert all(np.array_equal(kept[name], afterwards[name]) for name in kept)


@pytest.mark.parametrize(
    ("num_layers", "every", "recomputed"),
    [(5, 1, [0, 1, 2, 3, 4]), (5, 2, [0, 2, 4]), (3, 1, [2, 3, 4]), (3, 2, [2, 4]), (2, 9, [3])],
)
def test_only_blocks_with_a_backward_pass_are_recomputed(
    deep_folder, num_layers, every, recomputed
):
    from mlx_lm.utils import load_model

    model, _ = load_model(deep_folder)
    attach_adapter(model, AdapterSpec(rank=4, num_layers=num_layers), seed=1)
    model.train()
    calls = [0] * 5
    original = type(model.layers[0]).__call__

    def counted(layer, *args, **kwargs):
        calls[[id(one) for one in model.layers].index(id(layer))] += 1
        return original(layer, *args, **kwargs)

    for layer in model.layers:
        layer.__class__ = type("Counted", (type(layer),), {"__call__": counted})
    checkpoint_layers(model.layers, every)
    gradient_of(model, [(0, 1)], way="packed")

    assert [i for i in range(5) if calls[i] > min(calls)] == recomputed or (
        recomputed == list(range(5)) and min(calls) > 1
    )


def test_gradient_checkpointing_leaves_other_models_alone(model_folder):
    one, other = load(model_folder), load(model_folder)

    checkpoint_layers(one.layers)

    assert type(other.layers[0]) is not type(one.layers[0])
    assert type(other.layers[0]).__call__ is not type(one.layers[0]).__call__


def test_dropout_follows_from_the_key_alone(model_folder):
    model = load(model_folder, dropout=0.5)

    first = gradient_of(model, [(0, 1)], key=1)
    mx.random.seed(99)
    again = gradient_of(model, [(0, 1)], key=1)
    other = gradient_of(model, [(0, 1)], key=2)

    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_evaluation_ignores_dropout_and_leaves_training_mode_on(model_folder):
    with_dropout, without = load(model_folder, dropout=0.5), load(model_folder)
    batches = [PLAIN.build(PAIRS, range(8))]
    with_dropout.train()

    assert np.array_equal(
        evaluate(with_dropout, batches, Orpo(), PLAIN),
        evaluate(without, batches, Orpo(), PLAIN),
    )
    assert with_dropout.training


def test_clipping_scales_the_update_and_reports_the_norm_before_it(model_folder):
    batches = [PLAIN.build(PAIRS, (0, 1))]
    config = TrainConfig(optimizer="sgd")

    def moved(max_norm):
        model = load(model_folder)
        before = {n: np.array(v) for n, v in tree_flatten(model.trainable_parameters())}
        step = TrainStep(model, build_optimizer(config), Orpo(), PLAIN, max_norm, compiled=False)
        norm = step(batches, mx.random.key(0), 1.0).grad_norm
        after = dict(tree_flatten(model.trainable_parameters()))
        change = sum(float(((np.array(after[n]) - before[n]) ** 2).sum()) for n in before)
        return norm, change**0.5

    free_norm, free_change = moved(0.0)
    norm, change = moved(free_norm / 10)

    # Plain SGD with rate 1 moves by the gradient itself.
    assert free_change == pytest.approx(free_norm, rel=1e-4)
    assert norm == pytest.approx(free_norm, rel=1e-6)
    assert change == pytest.approx(free_norm / 10, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "sgd"])
def test_every_optimizer_lowers_the_loss_of_a_batch_it_sees_again(model_folder, optimizer):
    rate = {"adamw": 5e-3, "lion": 1e-3, "sgd": 0.3}[optimizer]
    model = load(model_folder)
    config = TrainConfig(optimizer=optimizer, weight_decay=0.01)
    step = TrainStep(model, build_optimizer(config), Orpo(), PLAIN, 1.0, compiled=False)
    batches = [PLAIN.build(PAIRS, range(8))]

    losses = [step(batches, step_key(0, i), rate).metrics[0] for i in range(6)]

    assert losses[-1] < losses[0] - 0.01


@pytest.mark.parametrize("way", ["packed", pytest.param("plain", marks=pytest.mark.slow)])
def test_compiled_step_equals_plain_step(model_folder, has_compiler, way):
    if not has_compiler:
        pytest.skip("mx.compile needs a C++ compiler on a CPU")
    scoring = Scoring(WAYS[way], "full")
    batches = [scoring.build(PAIRS, (0, 1, 2)), scoring.build(PAIRS, (3, 4))]
    adapters = []
    for compiled in (False, True):
        model = load(model_folder, dropout=0.2)
        step = TrainStep(
            model, build_optimizer(TrainConfig()), Orpo(), scoring, 1.0, compiled=compiled
        )
        for i in range(3):
            step(batches, step_key(0, i), 1e-3)
        adapters.append({n: np.array(v) for n, v in tree_flatten(model.trainable_parameters())})

    for name, value in adapters[0].items():
        np.testing.assert_allclose(adapters[1][name], value, atol=2e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain step", "compiled"])
@pytest.mark.parametrize("objective", OBJECTIVES[:3], ids=str)
@pytest.mark.parametrize("way", ["packed", "plain"])
def test_filling_up_to_few_shapes_changes_no_gradient(
    model_folder, way, objective, compiled, has_compiler
):
    if compiled and not (has_compiler and objective == OBJECTIVES[0]):
        pytest.skip("compiling takes long, and needs a C++ compiler on a CPU")
    model = load(model_folder)
    divisions = [[(5, 2), (0, 7, 1, 3), (6, 4)], [(4,), (1, 2, 3)]]
    buckets = build_buckets([[TokenPair([1] * 21, [2] * 30, [3] * 30)] * 5], WAYS[way].bucket_cost)
    tight = Scoring(WAYS[way], objective.nll_scope)
    few = Scoring(WAYS[way], objective.nll_scope, bucket_table=buckets)
    step = TrainStep(model, build_optimizer(TrainConfig()), objective, few, compiled=compiled)

    for division in divisions:
        wanted = gradient_of(model, division, objective, way=way)
        batches = [few.build(PAIRS, part) for part in division]
        grads = step.gradient(batches, mx.random.key(0))
        assert_same_gradient(
            wanted, {name: np.array(value) for name, value in tree_flatten(grads)}, 1e-5
        )
        tight_batches = [tight.build(PAIRS, part) for part in division]
        metrics = [
            taken(given, mx.random.key(0), 0.0).metrics
            for taken, given in ((step, batches), (make_step(model, objective, way), tight_batches))
        ]
        np.testing.assert_allclose(*metrics, rtol=2e-5)

    assert len(step.shapes) == 1


def test_learning_rate_by_hand():
    config = TrainConfig(
        learning_rate=1.0, schedule="linear", warmup=2, final_lr_fraction=0.2, steps=10
    )

    rates = [learning_rate_at(step, 10, config) for step in range(1, 11)]

    assert rates == pytest.approx([0.5, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])


def test_cosine_is_half_way_down_in_the_middle_and_ends_at_its_fraction():
    config = TrainConfig(learning_rate=2.0, schedule="cosine", warmup=0, final_lr_fraction=0.1)

    assert learning_rate_at(1, 101, config) == 2.0
    assert learning_rate_at(51, 101, config) == pytest.approx(2 * 0.55)
    assert learning_rate_at(101, 101, config) == pytest.approx(0.2)
    assert learning_rate_at(1, 1, config) == 2.0


def test_warm_up_below_one_is_a_share_and_above_a_number_of_steps():
    assert warmup_steps(TrainConfig(warmup=0.05), 200) == 10
    assert warmup_steps(TrainConfig(warmup=7), 200) == 7
    assert learning_rate_at(1, 200, TrainConfig(learning_rate=1.0, warmup=0)) > 0.99


def test_adamw_is_bias_corrected_and_decays_nothing_by_default():
    # With bias correction the first update of Adam is the learning rate, whatever the gradient.
    optimizer = build_optimizer(TrainConfig())
    optimizer.learning_rate = mx.array(0.1)

    moved = optimizer.apply_gradients({"w": mx.array([0.003, -20.0])}, {"w": mx.array([1.0, 1.0])})

    np.testing.assert_allclose(np.array(moved["w"]), [0.9, 1.1], rtol=1e-4)
