"""KTO against 60-digit values and derivatives, and by hand."""

import json
import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.objectives import build_objective
from orpo_mlx.objectives.base import PairScores, ReferenceScores, StepTotals

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "methods_vectors.json").read_text())
CASES = VECTORS["kto_cases"]


def column(values, fill=0):
    return mx.array(np.pad(np.asarray(values, np.float32), (0, fill)))


def objective_of(case, kind):
    names = ("beta", "desirable_weight", "undesirable_weight")
    return build_objective("kto", {"kto_loss": kind, **{name: case[name] for name in names}})


def batch_of(case, fill=0):
    """Return (policy, KL answers, reference, tokens); `fill` rows stand for nothing."""
    policy, other = (column(case[name], fill) for name in ("policy", "policy_kl"))
    reference = ReferenceScores(
        column(case["ref"], fill), column(case["ref_kl"], fill), column(case["label"], fill) > 0
    )
    return policy, other, reference, column([1] * len(case["label"]), fill)


def totals_of(case, kl=None):
    rows, good = float(len(case["label"])), float(sum(case["label"]))
    return StepTotals(*(mx.array(x) for x in (rows, rows, rows, good)), kl)


def computed(objective, case, fill=0):
    """Return (loss, its slopes to the log-probs and to those of the KL answers, metrics)."""
    policy, other, reference, tokens = batch_of(case, fill)

    def call(policy, other):
        scores = PairScores(policy, tokens, other, tokens, -policy, tokens)
        return objective(scores, reference, totals_of(case))

    both = mx.value_and_grad(lambda p, o: call(p, o)[0], argnums=(0, 1))
    loss, slopes = both(policy, other)
    named = dict(zip(objective.metrics, np.array(call(policy, other)[1]).tolist(), strict=True))
    return loss.item(), [np.array(slope) for slope in slopes], named


@pytest.mark.parametrize("fill", [0, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_values_and_slopes_equal_those_of_sixty_digits(case, fill):
    for kind, wanted in case["expected"].items():
        loss, (slope, of_kl), named = computed(objective_of(case, kind), case, fill)
        assert loss == pytest.approx(wanted["loss"], rel=3e-6, abs=1e-30), kind
        assert named["loss"] == loss
        exact = np.append(wanted["d_policy"], [0.0] * fill)
        np.testing.assert_allclose(slope, exact, rtol=3e-6, atol=1e-30, err_msg=kind)
        # The KL has no gradient.
        assert not of_kl.any()
        if kind == "kto":
            assert named["kl"] == pytest.approx(case["kl"], rel=3e-6)
        else:
            assert "kl" not in named


def test_each_answer_alone_has_its_own_term():
    for case in CASES:
        for kind, wanted in case["expected"].items():
            objective = objective_of(case, kind)
            kl = mx.array(case["kl_unclamped"], mx.float32)
            for i, term in enumerate(wanted["per_example"]):
                own = {k: v[i : i + 1] if isinstance(v, list) else v for k, v in case.items()}
                policy, other, reference, tokens = batch_of(own)
                scores = PairScores(policy, tokens, other, tokens, -policy, tokens)
                loss = objective(scores, reference, totals_of(own, kl))[0].item()
                assert loss == pytest.approx(term, rel=3e-6, abs=1e-30), (case["name"], kind)


def test_metrics_by_hand():
    case = {
        "label": [1, 0, 1], "policy": [-2.0, -6.0, -4.0], "ref": [-3.0, -4.0, -4.0],
        "policy_kl": [-5.0, -5.0, -5.0], "ref_kl": [-8.0, -6.0, -3.0], "beta": 0.5,
        "desirable_weight": 1.0, "undesirable_weight": 2.0,
    }  # fmt: skip
    # The mean of 3, 1 and -2 is 2/3: the clamp is on the mean, not on each.
    kl, half = 2 / 3, 0.5
    terms = [1 / (1 + math.exp(half * (x - kl))) for x in (1, 0)]
    terms.append(2 / (1 + math.exp(half * (kl + 2))))
    assert computed(objective_of(case, "kto"), case)[2] == pytest.approx({
        "loss": sum(terms) / 3, "chosen_logps": -3, "rejected_logps": -6,
        "chosen_rewards": 0.25, "rejected_rewards": -1, "reward_margin": 1.25, "kl": kl,
    })  # fmt: skip


def test_means_of_a_label_that_no_answer_has_are_not_measured():
    case = {**CASES[0], "label": [1, 1, 1, 1]}
    _, _, named = computed(objective_of(case, "kto"), case, fill=1)
    absent = {name for name, value in named.items() if math.isnan(value)}
    assert absent == {"rejected_logps", "rejected_rewards", "reward_margin"}


def test_shares_of_micro_batches_add_up_to_the_step():
    case = CASES[0]
    objective = objective_of(case, "kto")
    whole = computed(objective, case)[2]
    parts, shares = [], []
    for i in range(4):
        own = {k: v[i : i + 1] if isinstance(v, list) else v for k, v in case.items()}
        policy, other, reference, tokens = batch_of(own)
        scores = PairScores(policy, tokens, other, tokens, -policy, tokens)
        shares.append(objective.kl_share(scores, reference, totals_of(case)))
        parts.append((scores, reference))
    totals = totals_of(case, mx.stack(shares).sum())
    found = sum(np.array(objective(*part, totals)[1]) for part in parts)
    assert dict(zip(objective.metrics, found, strict=True)) == pytest.approx(whole, rel=1e-6)


def test_without_labels_or_reference_it_is_refused():
    one = mx.ones(1)
    for reference in (None, ReferenceScores(one, one)):
        with pytest.raises(ValueError, match="labels"):
            build_objective("kto", {})(PairScores(*[one] * 6), reference, StepTotals(*[one] * 3))
