"""When a run fills shapes up, and keeps outputs."""

import pytest

from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import ConfigError
from orpo_mlx.planning.memory import cache_bytes
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.training.speed import plan as step_plan
from orpo_mlx.training.speed.plan import plan_steps

ALIKE = [TokenPair([5] * 9, [6] * 8, [7] * 8)] * 12


@pytest.fixture
def plan(model_folder):
    """Return `plan(way="packed", was_compiled=None, **settings)`."""
    from mlx_lm.utils import load_model

    model, _ = load_model(model_folder)
    attach_adapter(model, AdapterSpec(rank=2, num_layers=1), seed=0)
    model.train()

    def make(way="packed", was_compiled=None, **settings):
        scoring = Scoring(WAYS[way], "full")
        return plan_steps(
            TrainConfig(**settings), model, scoring, ALIKE, ALIKE[:2], 300, was_compiled
        )

    return make


def test_a_compiled_run_is_filled_up_to_its_few_shapes(plan):
    found = plan(compile="on")

    assert found.compiled
    assert 1 <= len(found.train.bucket_table.buckets) <= 10
    assert found.valid.bucket_table is None
    assert found.notes == ()
    assert plan(was_compiled=True) == found


@pytest.mark.parametrize(
    "settings", [{}, {"compile": "off"}, {"compile": "on", "was_compiled": False}]
)
def test_nothing_else_is_compiled_or_filled_up(plan, settings):
    found = plan(**settings)

    assert (found.compiled, found.train.bucket_table) == (False, None)


def test_a_way_that_knows_no_shapes_is_compiled_as_its_batches_come(plan):
    found = plan(way="causal", compile="on")

    assert (found.compiled, found.train.bucket_table) == (True, None)


def test_a_model_that_cannot_be_cut_refuses_the_cache(plan, monkeypatch):
    monkeypatch.setattr(step_plan, "cut_problem", lambda *_: "gradients differ by 0.3")

    with pytest.raises(ConfigError, match=r"cannot be used with this model: gradients differ"):
        plan(compile="off", trunk_cache="memory")


def test_memory_of_the_cache_is_bounded_and_counts_in_memory_only():
    sizes, hidden, four = [10, 20], 64, 4

    assert cache_bytes(TrainConfig(trunk_cache="memory"), sizes, hidden, four) == 30 * 64 * 4
    small = TrainConfig(trunk_cache="memory", trunk_cache_size=1e-6)
    assert cache_bytes(small, sizes, hidden, four) == 1000
    assert cache_bytes(TrainConfig(trunk_cache="disk"), sizes, hidden, four) == 0
    assert cache_bytes(TrainConfig(), sizes, hidden, four) == 0
