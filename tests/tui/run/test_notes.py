"""Each rule speaks for curves it is about, and is silent for those beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orpo_mlx.runs.events import DriftMeasured, StepCompleted
from tui.run.notes import reading_notes
from tui.run.state import RunState


def curve(make_state, chosen, rejected, steps=100, **config):
    """A run whose log-probs go straight from one value to another."""
    a, b = np.linspace(*chosen, steps), np.linspace(*rejected, steps)
    rows = [
        {"step": i + 1, "chosen_logps": float(a[i]), "rejected_logps": float(b[i])}
        for i in range(steps)
    ]
    return make_state(*rows, total=200, **config)


def ids(state):
    return [note.id for note in reading_notes(state)]


@pytest.mark.parametrize(
    ("chosen", "rejected", "lam", "expected"),
    [
        ((-1.2, -0.8), (-1.4, -1.39), 0.1, ["rejected-flat"]),
        ((-1.2, -0.8), (-1.4, -1.39), 0.5, []),
        ((-1.2, -0.8), (-1.4, -1.8), 0.1, []),
        ((-1.2, -1.6), (-1.4, -2.4), 0.5, ["both-falling"]),
        ((-1.2, -1.15), (-1.4, -2.4), 0.5, []),
        ((-1.2, -0.02), (-1.4, -4.0), 0.1, ["overfitting", "amplified"]),
        ((-1.2, -0.15), (-1.4, -4.0), 0.1, ["overfitting"]),
        ((-1.2, -0.02), (-1.4, -1.2), 0.1, ["amplified"]),
        ((-1.2, -0.5), (-1.4, -4.0), 0.1, []),
    ],
)
def test_log_probs(make_state, chosen, rejected, lam, expected):
    assert ids(curve(make_state, chosen, rejected, lam=lam)) == expected


def test_too_few_steps_say_nothing(make_state):
    assert ids(curve(make_state, (-1.2, -0.01), (-1.4, -9.0), steps=19)) == []


def test_accuracy_at_the_start_is_explained_while_the_run_is_young(make_state, make_eval):
    early = make_state(make_eval(0, preference_accuracy=0.7), {"step": 10})
    assert ids(early) == ["accuracy-at-start"]
    assert "70%" in reading_notes(early)[0].line
    late = make_state(make_eval(0, preference_accuracy=0.7), {"step": 90})
    assert ids(late) == []
    even = make_state(make_eval(0, preference_accuracy=0.52), {"step": 10})
    assert ids(even) == []


def test_rising_validation_names_the_best_step(make_state, make_eval):
    losses = {10: 1.0, 20: 0.8, 30: 0.85, 40: 0.9}
    evals = [make_eval(s, loss=v, is_best=s <= 20) for s, v in losses.items()]
    notes = reading_notes(make_state({"step": 40}, *evals))
    assert [note.id for note in notes] == ["validation-rising"]
    assert "step 20" in notes[0].line
    assert ids(make_state({"step": 40}, *evals[:3])) == []


def test_the_factor_of_amplified_gradients_is_one_over_one_minus_p(make_state):
    # exp(-0.05) = 0.9512: 1 / (1 - 0.9512) is 20.5.
    notes = reading_notes(curve(make_state, (-0.05, -0.05), (-1.0, -1.0)))
    assert "21 times" in notes[0].line


@pytest.mark.parametrize(("last", "expected"), [(14.0, ["kl-climbing"]), (8.0, [])])
def test_a_climbing_kl_of_kto_is_a_note(make_state, last, expected):
    kls = [1.0] * 10 + [last] * 10
    steps = [StepCompleted({"loss": 0.5, "kl": kl}, i) for i, kl in enumerate(kls, start=1)]
    (started, *_), state = make_state.records(), RunState()
    state.apply(started._replace(event=replace(started.event, metrics=["loss", "kl"])))
    for record in make_state.records(*steps)[1:]:
        state.apply(record)
    assert ids(state) == expected


@pytest.mark.parametrize(("kl", "expected"), [(0.6, ["drifting"]), (0.4, [])])
def test_much_drift_is_a_note(make_state, kl, expected):
    drift = DriftMeasured(2, kl, 0.1, 1.0, prompts=12, seconds=1.0)
    assert ids(make_state({"step": 1}, {"step": 2}, drift)) == expected


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ((0.0, -6.0), (0.0, -7.0), ["uncentred"]),
        ((0.0, 4.0), (0.0, 2.0), ["uncentred"]),
        # Rejected falls alone, or both move by less than 1.
        ((0.0, 0.1), (0.0, -3.0), []),
        ((0.0, -0.6), (0.0, -0.7), []),
    ],
)
def test_a_mean_reward_that_moves_further_than_the_sides_part(
    make_state, chosen, rejected, expected
):
    rows = [
        StepCompleted(
            {"loss": 0.6, "chosen_rewards": c, "rejected_rewards": r, "reward_margin": c - r},
            step=i + 1, epoch=0.1, learning_rate=1e-4, grad_norm=1.0, pairs=1, tokens=1,
            pairs_per_second=1.0, tokens_per_second=1.0, step_seconds=1.0, active_memory_bytes=1,
            peak_memory_bytes=1,
        )
        for i, (c, r) in enumerate(
            zip(np.linspace(*chosen, 60), np.linspace(*rejected, 60), strict=True)
        )
    ]  # fmt: skip
    first, *others = make_state.records(*rows)
    measured = list(rows[0].metrics)
    started = replace(first.event, objective="reward", metrics=measured)
    state = RunState().apply_all([first._replace(event=started), *others])
    assert ids(state) == expected
