"""Rewards of an objective that has some, and the model after it has worn an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from orpo_mlx.config import TrainConfig
from orpo_mlx.evaluation import judgement
from orpo_mlx.evaluation.judgement import as_json, judge_subject
from orpo_mlx.evaluation.subject import AdapterPlace, Asked, Subject, open_subject
from orpo_mlx.objectives.base import PairScores, StepTotals


@dataclass(frozen=True)
class Rewarding:
    """Half the gain of chosen over the reference, a mean over the pairs of a step."""

    name: ClassVar[str] = "rewarding"
    metrics: ClassVar[tuple[str, ...]] = ("loss", "chosen_rewards")
    needs_reference: ClassVar[bool] = True

    def __call__(
        self, scores: PairScores, reference: PairScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        assert reference is not None
        gain = 0.5 * (scores.chosen_sum - reference.chosen_sum).sum() / totals.pairs
        return gain, mx.stack([mx.array(0.0), gain])


def subject_of(trained: Any) -> Subject:
    config = TrainConfig(model=str(trained.model), data=str(trained.valid), micro_batch_size=4)
    place = AdapterPlace("mine", trained.orpo.adapter_folder)
    return open_subject(Asked(config, place, has_own_data=True))


def test_rewards_are_measured_where_the_objective_has_some(trained, monkeypatch):
    monkeypatch.setattr(judgement, "build_objective", lambda *_: Rewarding())
    done = judge_subject(subject_of(trained))
    base, adapter = done.tables["base"], done.tables["adapter"]
    wanted = 0.5 * (adapter.chosen_sum - base.chosen_sum)
    assert adapter.rewards["chosen_rewards"] == pytest.approx(wanted, abs=1e-5)
    assert np.ptp(wanted) > 0.1
    row = as_json(done, {})["metrics"]["chosen_rewards"]
    assert row["base"] == {"value": 0, "low": 0, "high": 0}
    assert row["difference"]["value"] == pytest.approx(wanted.mean(), abs=1e-5)


def test_orpo_has_no_rewards(trained):
    found = as_json(judge_subject(subject_of(trained)), {})
    assert not any("reward" in name for name in found["metrics"])


def test_the_base_is_the_base_again_after_it_has_worn_an_adapter(trained):
    subject = subject_of(trained)
    model, ids = subject.loaded.model, mx.array([[5, 9, 200, 31]])
    names = [name for name, _ in tree_flatten(model.parameters())]
    before = np.array(model(ids))
    with subject.wearing("adapter"):
        assert np.abs(np.array(model(ids)) - before).max() > 1e-3
    assert np.array_equal(np.array(model(ids)), before)
    assert [name for name, _ in tree_flatten(model.parameters())] == names
