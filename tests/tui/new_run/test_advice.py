"""Warnings of the form: each names both settings, and is true of what a training does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orpo_mlx import demo
from orpo_mlx.config import TrainConfig
from tui.new_run.advice import total_steps, warnings
from tui.new_run.draft import Draft
from tui.new_run.presets import PRESETS


def planned(pairs: int = 0, preset: str = "balanced", **own: Any) -> Draft:
    given = {"model": "org/model", "data": "org/pairs", **own}
    draft = Draft({name: str(value) for name, value in given.items()}, preset)
    return draft.with_pairs(pairs)


@pytest.mark.parametrize("pairs", [0, 200, 5000])
@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "demo"])
def test_presets_are_not_doubtful(preset: str, pairs: int):
    assert warnings(planned(pairs, preset)) == []


def test_the_demo_is_not_doubtful():
    draft = Draft().with_model(str(demo.model_path())).with_data(str(demo.train_path()))
    assert warnings(draft.with_pairs(200)) == []
    assert warnings(planned(preset="demo"))[0].names == ("learning_rate",)


@pytest.mark.parametrize(
    ("pairs", "own", "names", "part"),
    [
        (0, {"learning_rate": 6e-4}, ("learning_rate",), "0.0006 is high"),
        (0, {"learning_rate": 1e-7}, ("learning_rate",), "1e-07 is low"),
        (0, {"lam": 0.6}, ("lam",), "out of the usual range: 0.1 to 0.25"),
        (0, {"lam": 0.01}, ("lam",), "out of the usual range"),
        (0, {"lam": 0}, ("lam", "preference"), "not learned from"),
        (0, {"lam": 0.3, "preference": "none"}, ("lam", "preference"), "does nothing"),
        (0, {"steps": 50, "warmup": 50}, ("warmup", "steps"), "the full learning rate"),
        (40, {"warmup": 10}, ("warmup", "epochs"), "epochs: 10): the full"),
        (0, {"warmup": 0.6}, ("warmup",), "more than half"),
        (0, {"steps": 50, "eval_every": 51}, ("eval_every", "steps"), "start and end only"),
        (0, {"valid_fraction": 0, "eval_every": 9},
         ("eval_every", "valid_fraction"), "does nothing"),
        (0, {"valid_fraction": 0.6}, ("valid_fraction",), "more pairs judge"),
        (0, {"steps": 200, "early_stop": 2, "eval_every": 100},
         ("early_stop", "eval_every"), "never stops"),
        (20, {"grad_accumulation_steps": 6},
         ("micro_batch_size", "grad_accumulation_steps"), "more than the 20 training pairs"),
        (20, {"steps": 100}, ("steps",), "pass 20 times"),
        (0, {"batching": "fixed", "tokens_per_batch": 512},
         ("tokens_per_batch", "batching"), "does nothing"),
        (0, {"schedule": "constant", "final_lr_fraction": 0.2},
         ("final_lr_fraction", "schedule"), "does nothing"),
        (0, {"init_adapter": "here", "rank": 4}, ("init_adapter", "rank"), "brings its own"),
    ],
)  # fmt: skip
def test_a_doubt_names_its_settings_and_stops_nothing(
    pairs: int, own: dict[str, Any], names: tuple[str, ...], part: str
):
    draft = planned(pairs, **own)
    assert draft.problems() == []
    found = [one for one in warnings(draft) if part in one.text]
    assert [one.names for one in found] == [names]


@pytest.mark.parametrize(
    ("pairs", "own"),
    [
        (0, {"learning_rate": 5e-4}), (0, {"learning_rate": 1e-6}),
        (0, {"optimizer": "sgd", "learning_rate": 1}), (0, {"lam": 0.05}), (0, {"lam": 0.5}),
        (0, {"steps": 50, "warmup": 49, "eval_every": 50}), (0, {"steps": 201, "early_stop": 2}),
        (0, {"init_adapter": "here"}), (20, {"steps": 50}), (24, {"grad_accumulation_steps": 6}),
    ],
)  # fmt: skip
def test_what_lies_just_inside_is_not_doubtful(pairs: int, own: dict[str, Any]):
    assert warnings(planned(pairs, **own)) == []


def test_nothing_is_doubted_while_something_is_wrong():
    assert warnings(planned(0, lam=9, rank="many")) == []


def test_a_batch_larger_than_the_data_is_refused_as_a_training_refuses_it():
    assert planned(4).problems() == []
    (problem,) = planned(3).problems()
    assert problem.names == ("micro_batch_size",)
    assert problem.text == "--micro-batch-size 4 is more than the 3 training pairs"
    assert planned(3).with_data(str(Path("other"))).pairs == 0


def test_steps_are_counted_as_a_training_counts_them():
    config = TrainConfig(epochs=1.5, micro_batch_size=2, grad_accumulation_steps=2)
    assert total_steps(config, 10) == 5  # 3 steps a pass, one and a half passes
    assert total_steps(config, 0) == 0
    assert total_steps(TrainConfig(steps=7), 0) == total_steps(TrainConfig(steps=7), 10) == 7
