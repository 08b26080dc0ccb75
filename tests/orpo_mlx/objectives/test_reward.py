"""The reward model's loss against 60-digit values and derivatives, and by hand."""

import json
import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.objectives.base import PairScores, StepTotals
from orpo_mlx.objectives.reward import Reward

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "methods_vectors.json").read_text())
CASES = VECTORS["reward_cases"]


def objective_of(case):
    return Reward(case["center"] or 0.0)


def scored(chosen, rejected, counts):
    return PairScores(chosen, counts, rejected, counts, mx.zeros_like(chosen), counts)


def share(case, chosen, rejected, fill=0):
    """Return (loss, metrics) of a case's pairs; `fill` more stand for nothing."""
    count = len(case["chosen"])
    counts = mx.array([1.0] * count + [0.0] * fill)
    margins = mx.array([*(case["margin"] or [0.0] * count), *[0.0] * fill])
    compared_with = scored(margins, mx.zeros_like(margins), counts) if case["margin"] else None
    totals = StepTotals(mx.array(float(count)), counts.sum(), counts.sum())
    return objective_of(case)(scored(chosen, rejected, counts), compared_with, totals)


@pytest.mark.parametrize("fill", [0, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_values_and_slopes_equal_those_of_sixty_digits(case, fill):
    sides = [mx.array([*case[name], *[0.0] * fill]) for name in ("chosen", "rejected")]
    both = mx.value_and_grad(lambda c, r: share(case, c, r, fill)[0], argnums=(0, 1))
    loss, slopes = both(*sides)
    wanted = case["expected"]
    # What is below the smallest float32 is 0.
    assert loss.item() == pytest.approx(wanted["loss"], rel=3e-6, abs=1e-37)
    for side, slope in zip(("d_chosen", "d_rejected"), slopes, strict=True):
        exact = np.append(wanted[side], [0.0] * fill)
        np.testing.assert_allclose(np.array(slope), exact, rtol=3e-6, atol=1e-37, err_msg=side)


def test_metrics_by_hand():
    case = {"chosen": [1.5, 0.25], "rejected": [0.5, 0.25], "margin": [1.0, 0.0], "center": 0.5}
    _, metrics = share(
        case, mx.array([*case["chosen"], 9.0]), mx.array([*case["rejected"], 0.0]), 1
    )
    named = dict(zip(Reward().metrics, metrics.tolist(), strict=True))
    assert named == pytest.approx({
        # Both pairs are exactly as far apart as they are to be: log 2, and (c + r)^2 / 2.
        "loss": math.log(2) + (2.0**2 + 0.5**2) / 2 / 2,
        "chosen_rewards": 0.875, "rejected_rewards": 0.375,
        # Equal rewards are no success; the margin is that of the rewards, not the data's.
        "preference_accuracy": 0.5, "reward_margin": 0.5,
    })  # fmt: skip


def test_shares_of_micro_batches_add_up_to_the_step():
    case = next(case for case in CASES if case["name"] == "margin_and_center")
    totals = StepTotals(*[mx.array(3.0)] * 3)
    one = mx.ones(1)
    parts = [
        objective_of(case)(
            scored(mx.array([case["chosen"][i]]), mx.array([case["rejected"][i]]), one),
            scored(mx.array([case["margin"][i]]), mx.zeros(1), one), totals,
        )[0].item()
        for i in range(3)
    ]  # fmt: skip
    assert sum(parts) == pytest.approx(case["expected"]["loss"], rel=3e-6)
