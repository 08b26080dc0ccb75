"""When a run compiles its step: what steps took decides it, once, and nothing of them is kept."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.config import TrainConfig, build_config
from orpo_mlx.data.batching.buckets import Usual, bucket_of
from orpo_mlx.data.types import TokenPair
from orpo_mlx.distributed.peers import Peers
from orpo_mlx.planning.memory import NOTHING, Savings
from orpo_mlx.planning.plan import Plan
from orpo_mlx.runs.checkpoints import FoundCheckpoint
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.batches import buckets_of_run, iter_parts
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.training import prepare as planning
from orpo_mlx.training.memory import MemoryNeeds
from orpo_mlx.training.preparation.adapted import digest_of_adapter
from orpo_mlx.training.speed import trial
from orpo_mlx.training.speed.plan import StepPlan
from orpo_mlx.training.speed.trial import Candidate, may_pay

ALIKE = [TokenPair([5] * 9, [6] * 8, [7] * 8)] * 12
RNG = np.random.default_rng(0)
SIZES = np.exp(2.5 + 0.7 * RNG.standard_normal((400, 3))).astype(int) + 1
MIXED = [TokenPair([5] * p, [6] * c, [7] * r) for p, c, r in SIZES.tolist()]
TIGHT = Scoring(WAYS["packed"], "response")


class PlayedSteps:
    """Stands for steps and for the clock: each takes as long as is said, the first one longer."""

    def __init__(self, plain: float, compiled: float, compiling: float) -> None:
        self.now = 0.0
        self.seconds = {False: [plain], True: [compiled + compiling, compiled]}
        self.taken: list[bool] = []

    def __call__(self) -> float:
        return self.now

    def build(self, *_: object, compiled: bool):
        steps = list(self.seconds[compiled])

        class Step:
            def gradient(step, batches, key):
                self.taken.append(compiled)
                self.now += steps.pop(0) if len(steps) > 1 else steps[0]

        return Step()


@pytest.fixture
def played(model_folder, monkeypatch):
    """Return `played(pairs, plain, compiled, compiling, problem, steps, **settings)`."""
    from mlx_lm.utils import load_model

    model, _ = load_model(model_folder)
    attach_adapter(model, AdapterSpec(rank=2, num_layers=1), seed=0)
    model.train()

    def play(pairs, plain, compiled, compiling=0.0, problem=None, steps=6000, **settings):
        clock = PlayedSteps(plain, compiled, compiling)
        monkeypatch.setattr(trial, "TrainStep", clock.build)
        monkeypatch.setattr(trial, "compile_problem", lambda *_: problem)
        config = TrainConfig(**settings)
        candidate = Candidate(
            config, model, MemoryNeeds(config, None, [], [], 1 << 40), Plan(Savings(), NOTHING),
            StepPlan(TIGHT, TIGHT, False), pairs, steps,
        )  # fmt: skip
        return candidate.tried(clock)[1], clock

    return play


def test_a_step_that_takes_less_time_compiled_is_compiled(played):
    """6000 passes of one shape: 6000 s as it is, 4800 s and 4 s for the shape compiled."""
    speed, clock = played(ALIKE, plain=1.0, compiled=0.8, compiling=4.0)

    assert clock.taken == [False] * 3 + [True] * 3
    assert speed.compiled
    assert len(speed.train.bucket_table.buckets) == 1
    assert speed.valid.bucket_table is None
    assert speed.notes == ()
    (fact,) = speed.facts
    assert "the step is compiled: tried, one took 800 ms compiled, 1.0 s as it is" in fact
    assert "4.0 s to compile once for each of 1 shape; " in fact
    assert "1 h 20 min for the run instead of 1 h 40 min" in fact
    assert "--compile on or off settles it" in fact


@pytest.mark.parametrize(
    ("compiled", "compiling", "pays"),
    [(0.949, 0.0, True), (0.951, 0.0, False), (0.9, 29.0, True), (0.9, 31.0, False)],
)
def test_a_run_must_gain_a_twentieth_when_all_shapes_are_paid_for(
    played, monkeypatch, compiled, compiling, pays
):
    """10 shapes: of 6000 s at least 300 must be gained. The usual batch stands for all alike."""
    monkeypatch.setattr(trial, "buckets_of_run", ten_shapes)

    speed, _ = played(ALIKE, 1.0, compiled, compiling)

    assert (speed.compiled, speed.train.bucket_table is not None) == (pays, pays)
    assert len(speed.facts) == 1


def ten_shapes(config, scoring, pairs, steps):
    table = buckets_of_run(config, scoring, pairs, steps)
    return replace(table, buckets=table.buckets * 10)


@pytest.mark.parametrize(
    ("mean", "mean_filled", "compiled", "pays"), [(1.0, 1.2, 0.9, False), (1.2, 1.0, 1.0, True)]
)
def test_the_run_is_foretold_from_the_mean_of_its_batches(
    played, monkeypatch, mean, mean_filled, compiled, pays
):
    def unusual(*known):
        return replace(buckets_of_run(*known), usual=Usual(3, mean, mean_filled))

    monkeypatch.setattr(trial, "buckets_of_run", unusual)

    assert played(MIXED, 1.0, compiled)[0].compiled == pays


def test_the_usual_batch_stands_for_the_mean_of_all():
    table = buckets_of_run(TrainConfig(), TIGHT, MIXED, 300)
    parts = list(iter_parts(TrainConfig(), TIGHT, MIXED, 300))
    cost = TIGHT.way.bucket_cost
    batches = [[MIXED[i] for i in part] for part in parts]
    own = [cost(bucket_of(batch)) for batch in batches]

    assert table.batches == len(batches) == 300
    usual = own[table.usual.place]
    assert table.usual.mean == pytest.approx(np.mean(own) / usual)
    assert 0.8 < table.usual.mean < 1.25
    assert 0.8 < table.usual.mean_filled < 1.25
    filled = cost(table.bucket_for(batches[table.usual.place])) * table.usual.mean_filled
    assert filled / np.mean(own) - 1 == pytest.approx(table.filling, rel=0.2)


def test_nothing_is_compiled_where_trying_would_take_too_long(played):
    slow, after_slow = played(ALIKE, plain=40.0, compiled=1.0)
    quick, after_quick = played(ALIKE, plain=0.001, compiled=0.0001)

    # One step took more than half the time there is; three took more than a fiftieth of the run.
    assert (slow.compiled, after_slow.taken) == (False, [False])
    assert (quick.compiled, after_quick.taken) == (False, [False] * 3)
    assert slow.notes + slow.facts + quick.notes + quick.facts == ()


@pytest.mark.parametrize(("steps", "tried"), [(299, False), (301, True)])
def test_a_step_that_is_one_forward_pass_counts_once(played, steps, tried):
    """By tokens eight pairs are one pass: 299 steps of eight are no longer than of one."""
    by_tokens = {"batching": "tokens", "grad_accumulation_steps": 8, "micro_batch_size": 1}
    _, clock = played(
        [TokenPair([5] * 9, [6] * 8, [7] * 8)] * 80, 4.0, 2.0, steps=steps, **by_tokens
    )

    assert bool(clock.taken) == tried


def test_compiling_that_takes_too_long_ends_the_trial(played):
    speed, clock = played(ALIKE, plain=1.0, compiled=0.5, compiling=58.0)

    assert not speed.compiled
    assert clock.taken == [False] * 3 + [True]
    assert "takes too long here" in speed.notes[0]


def test_a_compiled_step_with_another_gradient_is_not_used(played):
    speed, clock = played(ALIKE, 1.0, 0.5, problem="gradients differ by 0.3")

    assert (speed.compiled, speed.train.bucket_table) == (False, None)
    assert speed.notes == ("the step is not compiled: gradients differ by 0.3",)
    assert True not in clock.taken


def test_a_trial_that_fails_leaves_the_run_as_it_was(played, monkeypatch):
    def fail(self, *_, **__):
        raise RuntimeError("[metal] out of memory")

    monkeypatch.setattr(Candidate, "_timed", fail)
    speed, _ = played(ALIKE, 1.0, 0.5)

    assert not speed.compiled
    assert "not compiled: trying it failed: RuntimeError: [metal] out of" in speed.notes[0]


@pytest.mark.parametrize(
    ("settings", "way", "steps", "wanted"),
    [
        ({}, "packed", 300, True),
        ({}, "packed", 299, False),
        ({"grad_accumulation_steps": 4}, "packed", 75, True),
        ({"compile": "on"}, "packed", 300, False),
        ({"compile": "off"}, "packed", 300, False),
        ({}, "causal", 300, False),
    ],
)
def test_only_a_long_run_that_may_be_compiled_is_tried(monkeypatch, settings, way, steps, wanted):
    monkeypatch.setattr(trial, "can_compile", lambda: True)
    config = TrainConfig(**settings)

    assert may_pay(config, Scoring(WAYS[way], "response"), steps) == wanted


def test_without_a_compiler_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(trial.shutil, "which", lambda name: None)

    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    assert may_pay(TrainConfig(), TIGHT, 6000) == on_gpu


# A run


@pytest.fixture
def settings(
    model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path
) -> Callable[..., TrainConfig]:
    data = str(pairs_file())

    def build(**more: Any) -> TrainConfig:
        own = {"model": str(model_folder), "data": data, "steps": 6000, "valid_fraction": 0}
        return build_config({**own, "run_dir": str(tmp_path / "run"), **more})

    return build


@pytest.mark.parametrize("seconds", [0.5, 2.0], ids=["faster", "slower"])
def test_a_run_keeps_what_was_decided_before_it(settings, monkeypatch, seconds):
    """A resumed run does what its checkpoint says, another process what process 0 says."""
    clock = PlayedSteps(1.0, seconds, 0.0)
    monkeypatch.setattr(trial, "TrainStep", clock.build)
    monkeypatch.setattr(trial, "compile_problem", lambda *_: None)
    monkeypatch.setattr(trial, "can_compile", lambda: True)
    phases = []

    first = planning.prepare(settings(), lambda *told: phases.append(told[2]), clock=clock)
    tried = len(clock.taken)
    for place, decided in ((4, FoundCheckpoint(Path(), first.identity, ())), (5, told_by(first))):
        with monkeypatch.context() as patch:
            patch.setattr(planning, "plan_together", with_argument(place, decided))
            after = planning.prepare(settings(), clock=clock)
        assert after.speed.compiled == first.speed.compiled
        assert after.speed.train.bucket_table == first.speed.train.bucket_table
        assert (len(clock.taken), after.speed.facts) == (tried, ())

    assert "trying a compiled step" in phases
    assert first.identity["compiled"] == first.speed.compiled == (seconds < 1)
    assert len(first.speed.facts) == 1


def test_a_checkpoint_that_does_not_say_is_not_decided_by_a_clock(settings, monkeypatch):
    """A run made before checkpoints recorded it goes on as it is set, whatever would be faster."""
    clock = PlayedSteps(1.0, 0.5, 0.0)
    monkeypatch.setattr(trial, "TrainStep", clock.build)
    monkeypatch.setattr(trial, "can_compile", lambda: True)
    manifest = {"scoring": "packed"}
    again = with_argument(4, FoundCheckpoint(Path(), manifest, ()))
    monkeypatch.setattr(planning, "plan_together", again)

    assert not planning.prepare(settings(), clock=clock).speed.compiled
    assert clock.taken == []


def with_argument(place: int, value: Any) -> Callable[..., Any]:
    """Return what plans a run, with another argument at that place."""
    plan_together = planning.plan_together

    def plan(*known: Any) -> Any:
        return plan_together(*known[:place], value, *known[place + 1 :])

    return plan


def told_by(first: planning.Prepared) -> Peers:
    """Return the peers of a process that is told what process 0 has decided."""

    class Told(Peers):
        is_lead = False

        def share(self, value: Any) -> Any:
            return first.identity

    return Told()


@pytest.mark.slow
def test_trying_changes_nothing_and_needs_no_more_memory_than_the_run(settings, has_compiler):
    """Real steps by a clock of which each look takes a second: none is faster than another."""
    if not has_compiler:
        pytest.skip("mx.compile needs a C++ compiler on a CPU")
    config, ticks, before = settings(dropout=0.1), itertools.count(0.0), mx.get_active_memory()
    untried = planning.prepare(config.model_copy(update={"compile": "off"}))
    expected, size = digest_of_adapter(untried.model), untried.plan.estimate.total
    del untried

    tried = planning.prepare(config, clock=lambda: next(ticks))

    assert "one took 1.0 s compiled, 1.0 s as it is" in tried.speed.facts[0]
    assert not tried.speed.compiled
    assert digest_of_adapter(tried.model) == expected
    assert not tried.model.training
    assert mx.get_peak_memory() - before < size == tried.plan.estimate.total
