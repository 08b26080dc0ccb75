"""Losses against numbers from elsewhere: 60-digit arithmetic, TRL, hand work, invariants."""

import json
import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.objectives.base import PairScores, StepTotals
from orpo_mlx.objectives.numerics import log1mexp, log_odds, masked_sum
from orpo_mlx.objectives.orpo import Orpo, odds_ratio_loss, probability_ratio_loss
from orpo_mlx.scoring.base import Shifted, score_logits
from orpo_mlx.scoring.logprobs import logps_and_slopes, token_logps

DATA = Path(__file__).parents[2] / "data"
VECTORS = json.loads((DATA / "loss_vectors.json").read_text())
ARRAYS = np.load(DATA / "loss_vectors.npz")
EXACT = [case for case in VECTORS["odds_cases"] if case["expected"] is not None]
LOGIT_CASES = [case for case in VECTORS["logit_cases"] if case["name"] != "very_confident"]
GRID = [-(10.0**e) for e in np.linspace(-9, math.log10(500), 60)]
ABSOLUTE = {"bfloat16_logits": 2e-6}


def one(value, dtype=mx.float32):
    return mx.array([value], dtype=dtype)


def value_and_grads(loss, chosen, rejected):
    value, grads = mx.value_and_grad(lambda c, r: loss(c, r).sum(), argnums=(0, 1))(
        chosen, rejected
    )
    return value.item(), grads[0].item(), grads[1].item()


def test_worked_example_half_against_a_fifth():
    # odds 1 against 1/4: the ratio is 4, sigmoid(log 4) is 4/5.
    result = odds_ratio_loss(one(math.log(0.5)), one(math.log(0.2)))

    assert result.loss.item() == pytest.approx(0.22314355, abs=1e-6)
    assert result.log_odds_ratio.item() == pytest.approx(math.log(4), abs=1e-6)


@pytest.mark.parametrize("vocabulary", [300, 32_000, 50_257, 151_936])
def test_log_probs_of_a_large_vocabulary_keep_their_digits(vocabulary):
    """One likely token before many unlikely ones: added up one by one, those would get lost."""
    drawn = np.random.default_rng(1).normal(0, 3, (3, vocabulary)).astype(np.float32)
    drawn[:, 0] = 12.0
    exact = drawn.astype(np.float64)
    exact = exact[:, -1] - np.log(np.exp(exact).sum(axis=1))
    slope = np.exp(drawn.astype(np.float64))
    slope = -slope / slope.sum(axis=1, keepdims=True)
    slope[:, -1] += 1

    targets = mx.array([vocabulary - 1] * 3)
    (found,), (grad,) = mx.vjp(
        lambda logits: token_logps(logits, targets), [mx.array(drawn)], [mx.ones(3)]
    )

    np.testing.assert_allclose(np.array(found), exact, atol=5e-6, rtol=0)
    np.testing.assert_allclose(np.array(grad), slope, atol=2e-6)


def test_worked_example_of_the_probability_ratio():
    # 0.5 / 0.2 = 2.5, sigmoid(log 2.5) = 2.5 / 3.5.
    assert probability_ratio_loss(one(math.log(0.5)), one(math.log(0.2))).item() == pytest.approx(
        0.33647224, abs=1e-6
    )


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case["name"])
def test_odds_ratio_loss_and_both_gradients_equal_60_digit_arithmetic(case):
    expected = case["expected"]
    chosen, rejected = one(case["chosen_logp"]), one(case["rejected_logp"])

    loss, to_chosen, to_rejected = value_and_grads(
        lambda c, r: odds_ratio_loss(c, r).loss, chosen, rejected
    )

    close = {"rel": 3e-6, "abs": 1e-30}
    assert loss == pytest.approx(expected["loss_or"], **close)
    assert to_chosen == pytest.approx(expected["dloss_or_dchosen"], **close)
    assert to_rejected == pytest.approx(expected["dloss_or_drejected"], **close)
    assert odds_ratio_loss(chosen, rejected).log_odds_ratio.item() == pytest.approx(
        expected["log_odds_ratio"], rel=1e-6, abs=2e-6
    )


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case["name"])
def test_probability_ratio_loss_and_gradients_equal_60_digit_arithmetic(case):
    expected = case["expected"]

    loss, to_chosen, to_rejected = value_and_grads(
        probability_ratio_loss, one(case["chosen_logp"]), one(case["rejected_logp"])
    )

    close = {"rel": 3e-6, "abs": 1e-30}
    assert loss == pytest.approx(expected["loss_pr"], **close)
    assert to_chosen == pytest.approx(expected["dloss_pr_dchosen"], **close)
    assert to_rejected == pytest.approx(expected["dloss_pr_drejected"], **close)


@pytest.mark.parametrize("name", ["zero_chosen", "zero_rejected"])
def test_a_log_prob_of_exactly_zero_stays_finite(name):
    case = next(c for c in VECTORS["odds_cases"] if c["name"] == name)

    results = value_and_grads(
        lambda c, r: odds_ratio_loss(c, r).loss,
        one(case["chosen_logp"]),
        one(case["rejected_logp"]),
    )

    assert all(math.isfinite(x) for x in results)


@pytest.mark.parametrize("other", [-1e-9, -0.7, -500.0])
def test_loss_and_gradient_are_finite_from_one_billionth_to_minus_500(other):
    grid = mx.array(GRID)
    fixed = mx.full(grid.shape, other)

    def total(chosen, rejected):
        return odds_ratio_loss(chosen, rejected).loss.sum()

    for pair in ((grid, fixed), (fixed, grid)):
        value, grads = mx.value_and_grad(total, argnums=(0, 1))(*pair)
        assert math.isfinite(value.item())
        assert all(np.isfinite(np.array(g)).all() for g in grads)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32], ids=str)
def test_loss_and_gradient_to_half_precision_logits_are_finite_over_the_same_range(dtype):
    # Two words whose logits differ by g: the log-prob of the first is -log(1 + exp(-g)).
    gaps = -np.log(np.expm1(-np.array(GRID))).clip(-500, 30)
    logits = mx.stack([mx.array(gaps), mx.zeros(len(gaps))], axis=-1).astype(dtype)
    targets = mx.zeros(len(gaps), mx.int32)

    def total(logits):
        logps = token_logps(logits, targets)
        return odds_ratio_loss(logps, logps[::-1]).loss.sum()

    value, grad = mx.value_and_grad(total)(logits)

    assert math.isfinite(value.item())
    assert np.isfinite(np.array(grad.astype(mx.float32))).all()
    assert mx.abs(grad).max().item() > 0.5


def test_half_precision_input_gives_float32_output():
    result = odds_ratio_loss(one(-1.0, mx.bfloat16), one(-2.0, mx.bfloat16))

    assert result.loss.dtype == mx.float32
    assert result.log_odds_ratio.dtype == mx.float32


def test_log1mexp_equals_float64_and_its_gradient_equals_the_closed_form():
    xs = np.array(GRID)
    got = np.array(log1mexp(mx.array(xs, mx.float32)), dtype=np.float64)
    xs32 = np.array(mx.array(xs, mx.float32), dtype=np.float64)

    np.testing.assert_allclose(got, np.log(-np.expm1(xs32)), rtol=3e-6, atol=1e-7)
    grads = np.array(mx.grad(lambda x: log1mexp(x).sum())(mx.array(xs, mx.float32)))
    np.testing.assert_allclose(grads, np.exp(xs32) / np.expm1(xs32), rtol=3e-6, atol=1e-30)


def test_swapping_chosen_and_rejected_negates_the_log_odds_ratio():
    chosen, rejected = mx.array([-0.3, -2.0, -1e-6]), mx.array([-1.4, -0.1, -40.0])

    there = odds_ratio_loss(chosen, rejected).log_odds_ratio
    back = odds_ratio_loss(rejected, chosen).log_odds_ratio

    assert mx.array_equal(there, -back)


def test_compiled_loss_equals_plain_loss():
    chosen, rejected = mx.array(GRID), mx.array(GRID[::-1])

    plain = odds_ratio_loss(chosen, rejected).loss
    compiled = mx.compile(lambda c, r: odds_ratio_loss(c, r).loss)(chosen, rejected)

    np.testing.assert_allclose(np.array(compiled), np.array(plain), rtol=1e-6, atol=1e-30)


def test_different_numbers_of_chosen_and_rejected_are_refused():
    with pytest.raises(ValueError, match="same pairs in the same order"):
        odds_ratio_loss(mx.array([-1.0, -2.0]), mx.array([-1.0]))


def test_log_odds_of_a_fair_coin_are_zero():
    assert log_odds(one(math.log(0.5))).item() == pytest.approx(0.0, abs=1e-6)


def test_a_masked_position_contributes_nothing_even_if_it_holds_infinity():
    logps = mx.array([[-1.0, -3.0, -mx.inf]])
    mask = mx.array([[True, True, False]])

    def mean(logps):
        nothing = mx.zeros(1)
        scores = PairScores(masked_sum(logps, mask), mask.sum(axis=-1), *[nothing] * 4)
        assert scores.rejected_logps.item() == 0.0
        return scores.chosen_logps.sum()

    assert mean(logps).item() == -2.0
    assert mx.grad(mean)(logps).tolist() == [[0.5, 0.5, 0.0]]


def shifted_case(case):
    """Build the shifted batch of a case by hand: pad both sides to one width, then shift."""
    arrays = {}
    width = max(case["shapes"]["chosen"][1], case["shapes"]["rejected"][1])
    for side in ("chosen", "rejected"):
        have = case["shapes"][side][1]
        pad = ((0, 0), (0, width - have))
        arrays[side] = {
            key: np.pad(np.array(case[side][key]), pad)
            for key in ("input_ids", "attention_mask", "response_mask")
        }
        logits = ARRAYS[f"{case['name']}/{side}_logits"]
        arrays[side]["logits"] = np.pad(logits, (*pad, (0, 0)))
    return arrays


def scores_of(chosen_logits, rejected_logits, arrays, scope):
    both = {k: np.concatenate([arrays[s][k] for s in ("chosen", "rejected")])
            for k in ("input_ids", "response_mask")}  # fmt: skip
    counted = "attention_mask" if scope == "full" else "response_mask"
    shifted = Shifted(
        inputs=mx.array(both["input_ids"][:, :-1]),
        targets=mx.array(both["input_ids"][:, 1:]),
        response_mask=mx.array(both["response_mask"][:, 1:].astype(bool)),
        nll_mask=mx.array(arrays["chosen"][counted][:, 1:].astype(bool)),
    )
    logits = mx.concatenate([chosen_logits, rejected_logits])[:, :-1]
    return score_logits(logits, shifted)


def totals_of(scores):
    pairs = mx.array(float(scores.chosen_logps.size))
    counts = (scores.nll_tokens, scores.chosen_count)
    return StepTotals(pairs, *(count.sum().astype(mx.float32) for count in counts))


FORMS = [("full", "token"), ("full", "pair"), ("response", "token"), ("response", "pair")]
KEYS = {"token": "token_mean", "pair": "seq_mean"}


@pytest.mark.parametrize("preference", ["odds_ratio", "probability_ratio"])
@pytest.mark.parametrize(("scope", "reduction"), FORMS)
@pytest.mark.parametrize("case", LOGIT_CASES, ids=lambda case: case["name"])
def test_totals_and_logit_gradients_equal_the_reference(case, scope, reduction, preference):
    arrays = shifted_case(case)
    dtype = mx.bfloat16 if case["dtype"] == "bfloat16" else mx.float32
    logits = [mx.array(arrays[side]["logits"]).astype(dtype) for side in ("chosen", "rejected")]
    objective = Orpo(lam=0.25, nll_scope=scope, nll_reduction=reduction, preference=preference)

    def total(chosen, rejected):
        scores = scores_of(chosen, rejected, arrays, scope)
        return objective(scores, None, totals_of(scores))[0]

    value, grads = mx.value_and_grad(total, argnums=(0, 1))(*logits)

    form = f"{scope}_{KEYS[reduction]}"
    short = "or" if preference == "odds_ratio" else "pr"
    totals = case["expected"]["total_orpo" if short == "or" else "total_pr"]
    assert value.item() == pytest.approx(totals[form]["0.25"], rel=2e-6, abs=2e-6)
    for side, grad in zip(("chosen", "rejected"), grads, strict=True):
        want = 0.25 * ARRAYS[f"{case['name']}/dloss_{short}_mean_d{side}_logits"]
        if side == "chosen":
            want = want + ARRAYS[f"{case['name']}/dnll_{form}_dchosen_logits"]
        got = np.array(grad.astype(mx.float32))[:, : want.shape[1]]
        # A bfloat16 input has a bfloat16 gradient: 8 bits of it are there to compare.
        close = (
            {"rtol": 1e-2, "atol": 1e-4} if dtype == mx.bfloat16 else {"atol": 1e-6, "rtol": 1e-4}
        )
        np.testing.assert_allclose(got, want, **close)


@pytest.mark.parametrize("case", LOGIT_CASES, ids=lambda case: case["name"])
def test_each_metric_of_a_batch_equals_the_reference(case):
    arrays = shifted_case(case)
    logits = [mx.array(arrays[side]["logits"]) for side in ("chosen", "rejected")]
    scores = scores_of(*logits, arrays, "full")
    expected = case["expected"]

    objective = Orpo(lam=0.1, nll_scope="full")
    _, metrics = objective(scores, None, totals_of(scores))

    got = dict(zip(objective.metrics, metrics.tolist(), strict=True))
    chosen, rejected = expected["chosen"]["avg_logp"], expected["rejected"]["avg_logp"]
    close = {"rel": 3e-6, "abs": 2e-6}
    assert scores.chosen_logps.tolist() == pytest.approx(chosen, **close)
    assert scores.rejected_logps.tolist() == pytest.approx(rejected, **close)
    assert got["loss"] == pytest.approx(expected["total_orpo"]["full_token_mean"]["0.1"], **close)
    assert got["nll_loss"] == pytest.approx(expected["nll"]["full_token_mean"], **close)
    assert got["response_nll"] == pytest.approx(expected["nll"]["response_token_mean"], **close)
    tokens = {
        key: arrays["chosen"][key][:, 1:].sum() for key in ("attention_mask", "response_mask")
    }
    whole, own = tokens["attention_mask"], tokens["response_mask"]
    parts = own * got["response_nll"] + (whole - own) * got["prompt_nll"]
    assert parts / whole == pytest.approx(got["nll_loss"], **close)
    assert got["odds_ratio_loss"] == pytest.approx(expected["loss_or_mean"], **close)
    assert got["log_odds_ratio"] == pytest.approx(np.mean(expected["log_odds_ratio"]), **close)
    assert got["logps_margin"] == pytest.approx(np.mean(chosen) - np.mean(rejected), **close)
    wins = np.mean(np.array(chosen) > np.array(rejected))
    if case["name"] != "equal_pair":
        assert got["preference_accuracy"] == pytest.approx(wins)


def test_very_confident_logits_stay_finite():
    case = next(c for c in VECTORS["logit_cases"] if c["name"] == "very_confident")
    arrays = shifted_case(case)
    logits = [mx.array(arrays[side]["logits"]) for side in ("chosen", "rejected")]

    def total(chosen, rejected):
        scores = scores_of(chosen, rejected, arrays, "full")
        return Orpo(lam=1.0)(scores, None, totals_of(scores))[0]

    value, grads = mx.value_and_grad(total, argnums=(0, 1))(*logits)

    assert math.isfinite(value.item())
    assert all(np.isfinite(np.array(grad)).all() for grad in grads)


def example_scores(rows):
    chosen, rejected, nll_sum, nll_tokens = (mx.array(column) for column in zip(*rows, strict=True))
    one = mx.ones_like(nll_tokens)
    return PairScores(chosen, one, rejected, one, nll_sum, nll_tokens)


def test_shares_of_micro_batches_add_up_to_the_step():
    rows = [(-0.5, -1.5, 10.0, 20), (-2.0, -1.0, 3.0, 2), (-0.1, -4.0, 7.0, 70)]
    totals = StepTotals(mx.array(3.0), mx.array(92.0), mx.array(3.0))

    for reduction in ("token", "pair"):
        objective = Orpo(lam=0.5, nll_scope="full", nll_reduction=reduction)
        whole, metrics = objective(example_scores(rows), None, totals)
        parts = [objective(example_scores(part), None, totals) for part in (rows[:1], rows[1:])]
        assert sum(p[0].item() for p in parts) == pytest.approx(whole.item(), rel=1e-6)
        np.testing.assert_allclose(sum(np.array(p[1]) for p in parts), np.array(metrics), rtol=1e-6)


def test_reductions_by_hand():
    # NLL over tokens: (10 + 3) / 22; over pairs: (10/20 + 3/2) / 2.
    rows = [(-0.5, -1.5, 10.0, 20), (-2.0, -1.0, 3.0, 2)]
    totals = StepTotals(mx.array(2.0), mx.array(22.0), mx.array(2.0))

    token = Orpo(preference="none")(example_scores(rows), None, totals)[0]
    pair = Orpo(preference="none", nll_reduction="pair")(example_scores(rows), None, totals)[0]

    assert token.item() == pytest.approx(13 / 22)
    assert pair.item() == pytest.approx(1.0)


def test_nll_weight_zero_leaves_the_preference_term_alone():
    rows = [(math.log(0.5), math.log(0.2), 10.0, 20)]
    totals = StepTotals(mx.array(1.0), mx.array(20.0), mx.array(1.0))

    loss, _ = Orpo(lam=2.0, nll_weight=0.0)(example_scores(rows), None, totals)

    assert loss.item() == pytest.approx(2 * 0.22314355, abs=1e-6)


def test_log_softmax_is_taken_in_float32_for_half_precision_logits():
    logits = np.linspace(-4, 4, 7 * 33).reshape(7, 33)
    half = mx.array(logits).astype(mx.bfloat16)
    exact = np.array(half.astype(mx.float32), dtype=np.float64)
    targets = np.arange(7) * 4
    want = exact[np.arange(7), targets] - np.log(np.exp(exact).sum(-1))

    got = token_logps(half, mx.array(targets))

    assert got.dtype == mx.float32
    np.testing.assert_allclose(np.array(got), want, rtol=2e-6)


@pytest.mark.parametrize("size", [50, 1000, 1031])
def test_log_probs_and_their_slopes_equal_a_softmax_in_double_precision(size: int):
    draw = np.random.default_rng(size)
    logits = draw.normal(0, 5, (6, size)).astype(np.float32)
    targets = np.array([0, size - 1, 7, 7, 20, int(logits[5].argmax())])
    logits[5, targets[5]] = 40.0  # a token that is certain: its slope is nearly 0
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shares = powers / powers.sum(axis=-1, keepdims=True)
    expected = np.eye(size)[targets] - shares
    logps, slopes = logps_and_slopes(mx.array(logits), mx.array(targets))
    rows = np.arange(6)
    np.testing.assert_allclose(np.array(logps), np.log(shares[rows, targets]), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.array(slopes), expected, rtol=1e-5, atol=1e-7)
