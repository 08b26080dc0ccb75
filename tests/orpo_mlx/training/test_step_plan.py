"""When a run compiles its step, fills shapes up, and keeps outputs."""

import numpy as np
import pytest

from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import ConfigError
from orpo_mlx.planning.memory import cache_bytes
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.training import step_plan
from orpo_mlx.training.step_plan import plan_steps

ALIKE = [TokenPair([5] * 9, [6] * 8, [7] * 8)] * 12
RNG = np.random.default_rng(0)
SIZES = np.exp(5.5 + 0.7 * RNG.standard_normal((400, 3))).astype(int) + 1
MIXED = [TokenPair([5] * p, [6] * c, [7] * r) for p, c, r in SIZES.tolist()]


@pytest.fixture
def plan(model_folder, monkeypatch):
    """Return `plan(pairs, problem=None, way="packed", **settings)` as on a GPU."""
    from mlx_lm.utils import load_model

    model, _ = load_model(model_folder)
    attach_adapter(model, AdapterSpec(rank=2, num_layers=1), seed=0)
    model.train()

    def make(pairs, problem=None, way="packed", **settings):
        config = TrainConfig(**settings)
        monkeypatch.setattr(step_plan, "wants_compile", lambda *_: config.compile != "off")
        monkeypatch.setattr(step_plan, "compile_problem", lambda *_: problem)
        return plan_steps(
            config, model, Scoring(WAYS[way], "full"), pairs, pairs[:2], total_steps=300
        )

    return make


def test_pairs_of_one_length_are_compiled_and_filled_up_to_their_few_shapes(plan):
    found = plan(ALIKE)

    assert found.compiled
    assert 1 <= len(found.train.bucket_table.buckets) <= 10
    assert found.valid.bucket_table is None
    assert found.notes == ()


def test_pairs_of_very_different_lengths_are_not_compiled_unless_asked(plan):
    found = plan(MIXED)

    assert (found.compiled, found.train.bucket_table) == (False, None)
    assert "% of work" in found.notes[0]
    assert plan(MIXED, compile="on").compiled


def test_a_compiled_step_with_another_gradient_is_not_used(plan):
    found = plan(ALIKE, problem="gradients differ by 0.3")

    assert (found.compiled, found.train.bucket_table) == (False, None)
    assert found.notes == ("the step is not compiled: gradients differ by 0.3",)


def test_a_model_that_cannot_be_cut_refuses_the_cache(plan, monkeypatch):
    monkeypatch.setattr(step_plan, "cut_problem", lambda *_: "gradients differ by 0.3")

    with pytest.raises(ConfigError, match=r"cannot be used with this model: gradients differ"):
        plan(ALIKE, compile="off", trunk_cache="memory")


def test_memory_of_the_cache_is_bounded_and_counts_in_memory_only():
    sizes, hidden, four = [10, 20], 64, 4

    assert cache_bytes(TrainConfig(trunk_cache="memory"), sizes, hidden, four) == 30 * 64 * 4
    small = TrainConfig(trunk_cache="memory", trunk_cache_size=1e-6)
    assert cache_bytes(small, sizes, hidden, four) == 1000
    assert cache_bytes(TrainConfig(trunk_cache="disk"), sizes, hidden, four) == 0
    assert cache_bytes(TrainConfig(), sizes, hidden, four) == 0
