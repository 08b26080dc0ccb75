"""The other objectives against 60-digit values and derivatives, and TRL's batches."""

import json
import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.objectives import build_objective
from orpo_mlx.objectives.base import PairScores, StepTotals

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "methods_vectors.json").read_text())
CASES = [*VECTORS["pair_cases"], *VECTORS["pair_batches"]]


def settings_of(kind, case):
    """Return (objective, settings) for a loss as the vectors name it."""
    beta, eps = {"beta": case["beta"]}, {"label_smoothing": case["label_smoothing"]}
    nll = {"nll_weight": case.get("alpha", 0.0)}
    return {
        "sigmoid": ("dpo", beta),
        "cdpo": ("dpo", {**beta, **eps}),
        "robust": ("dpo", {**beta, **eps, "dpo_loss": "robust"}),
        "hinge": ("dpo", {**beta, "dpo_loss": "hinge"}),
        "ipo": ("dpo", {**beta, "dpo_loss": "ipo"}),
        "ipo_sum": ("dpo", {**beta, "dpo_loss": "ipo", "ipo_length": "summed"}),
        "apo_zero": ("dpo", {**beta, "dpo_loss": "apo_zero"}),
        "apo_down": ("dpo", {**beta, "dpo_loss": "apo_down"}),
        "cpo": ("cpo", {**beta, "nll_weight": 0.0}),
        "simpo": ("simpo", {"beta": case["simpo_beta"], "gamma": case["simpo_gamma"]}),
        "nll_token_mean": ("sft", {}),
        "nll_seq_mean": ("sft", {"nll_reduction": "pair"}),
        "rpo": ("dpo", {**beta, **nll}),
        "rpo_seq_mean": ("dpo", {**beta, **nll, "nll_reduction": "pair"}),
        "cpo_with_nll": ("cpo", {**beta, **nll}),
    }[kind]


def column(case, name):
    return mx.array(np.atleast_1d(case[name]).astype(np.float32))


def computed(objective, case, fill=0):
    """Return (loss, slopes to the summed log-probs, metrics); `fill` pairs stand for nothing."""

    def filled(array):
        return mx.concatenate([array, mx.zeros(fill, array.dtype)])

    counts = [filled(column(case, f"{side}_tokens")) for side in ("chosen", "rejected")]
    none = mx.zeros_like(counts[0])
    of_reference = [filled(column(case, f"ref_{side}")) for side in ("chosen", "rejected")]
    reference = PairScores(of_reference[0], counts[0], of_reference[1], counts[1], none, counts[0])
    totals = StepTotals(
        mx.array(float(len(np.atleast_1d(case["policy_chosen"])))), counts[0].sum(), counts[0].sum()
    )

    def loss_of(chosen, rejected):
        nll = mx.where(counts[0] > 0, -chosen, 0.0)
        scores = PairScores(chosen, counts[0], rejected, counts[1], nll, counts[0])
        return objective(scores, reference, totals)

    both = mx.value_and_grad(lambda c, r: loss_of(c, r)[0], argnums=(0, 1))
    policy = [filled(column(case, f"policy_{side}")) for side in ("chosen", "rejected")]
    loss, slopes = both(*policy)
    return loss.item(), [np.array(slope) for slope in slopes], np.array(loss_of(*policy)[1])


@pytest.mark.parametrize("fill", [0, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_values_and_slopes_equal_those_of_sixty_digits(case, fill):
    for kind, wanted in case["expected"].items():
        name, settings = settings_of(kind, case)
        objective = build_objective(name, settings)
        loss, slopes, metrics = computed(objective, case, fill)
        assert loss == pytest.approx(wanted["loss"], rel=3e-6, abs=3e-6), kind
        assert metrics[0] == pytest.approx(loss, rel=1e-6), kind
        for side, slope in zip(("d_chosen", "d_rejected"), slopes, strict=True):
            if case["name"] == "hinge_exactly_at_the_kink" and kind == "hinge":
                assert abs(slope[0]) <= case["beta"]
                continue
            exact = np.append(np.atleast_1d(wanted[side]), [0.0] * fill)
            np.testing.assert_allclose(slope, exact, rtol=3e-6, atol=3e-7, err_msg=f"{kind} {side}")


def test_metrics_by_hand():
    case = {
        "policy_chosen": [-2.0, -6.0], "policy_rejected": [-5.0, -4.0],
        "ref_chosen": [-3.0, -6.0], "ref_rejected": [-4.0, -4.0],
        "chosen_tokens": [2, 3], "rejected_tokens": [5, 4],
    }  # fmt: skip
    objective = build_objective("dpo", {"beta": 0.5})
    _, _, metrics = computed(objective, case)
    named = dict(zip(objective.metrics, metrics, strict=True))
    loss = (math.log1p(math.exp(-1)) + math.log(2)) / 2
    assert named == pytest.approx({
        "loss": loss, "nll_loss": 8 / 5, "chosen_logps": -4, "rejected_logps": -4.5,
        "chosen_rewards": 0.25, "rejected_rewards": -0.25,
        # Equal rewards are no success.
        "preference_accuracy": 0.5, "reward_margin": 0.5,
    })  # fmt: skip
    objective = build_objective("simpo", {})
    _, _, metrics = computed(objective, case)
    named = dict(zip(objective.metrics, metrics, strict=True))
    assert named["chosen_logps"] == pytest.approx((-1 - 2) / 2)
    assert named["chosen_rewards"] == pytest.approx(2 * (-1 - 2) / 2)
    assert (objective.beta, objective.gamma, objective.nll_weight) == (2.0, 0.5, 0.0)


def test_shares_of_micro_batches_add_up_to_the_step():
    case = VECTORS["pair_batches"][1]
    columns = [name for name in case if isinstance(case[name], list)]
    for kind in case["expected"]:
        objective = build_objective(*settings_of(kind, case))
        tokens = float(np.sum(case["chosen_tokens"]))
        totals = StepTotals(
            *(mx.array(x) for x in (float(len(case["ref_chosen"])), tokens, tokens))
        )
        parts = []
        for i in range(len(case["ref_chosen"])):
            one = {name: column({**case, name: case[name][i]}, name) for name in columns}
            counts = one["chosen_tokens"], one["rejected_tokens"]
            scores = PairScores(one["policy_chosen"], counts[0], one["policy_rejected"], counts[1],
                                -one["policy_chosen"], counts[0])  # fmt: skip
            reference = scores._replace(
                chosen_sum=one["ref_chosen"], rejected_sum=one["ref_rejected"]
            )
            parts.append(np.array(objective(scores, reference, totals)[1]))
        assert sum(parts)[0] == pytest.approx(case["expected"][kind]["loss"], rel=3e-6)


def test_dpo_without_its_reference_is_refused():
    one = mx.ones(1)
    with pytest.raises(ValueError, match="reference"):
        build_objective("dpo", {})(PairScores(*[one] * 6), None, StepTotals(*[one] * 3))
