"""What the curves of a run say, as rules from the papers of ORPO, DPO and KTO; pure.

A rule compares the beginning of a run with its newest stretch, each the mean of a tenth of the
points (5 at least), so that one odd step says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tui.run.columns import Floats
from tui.run.state import RunState

LEAST_POINTS = 20
"""Fewer steps than this are no curve."""

CHANGED = 0.1
"""Nats per token; below that a log-prob counts as unchanged for a rule that needs a change."""

FLAT = 0.05
NEAR_CERTAIN = math.log(0.9)
FAR_BELOW = 2.0
LOW_LAMBDA = 0.15
SHIFTED = 1.0
"""Of a reward; less is no drift of their mean."""
FAR_KL = 10.0
"""Nats per answer."""
FAR_FROM_BASE = 0.5
"""Nats per token on what the base itself would say."""


@dataclass(frozen=True)
class Note:
    """One thing the curves say: a line for beside them, and the reason in full."""

    id: str
    line: str
    reason: str


def reading_notes(state: RunState) -> list[Note]:
    """Return the notes that apply now, the most urgent first."""
    return [note for rule in _RULES if (note := rule(state)) is not None]


def _ends(values: Floats) -> tuple[float, float] | None:
    """Return the means of the first and the last tenth, None for too few points."""
    if len(values) < LEAST_POINTS:
        return None
    size = max(5, len(values) // 10)
    return float(values[:size].mean()), float(values[-size:].mean())


def _logps(state: RunState) -> tuple[float, float, float, float] | None:
    """Return ORPO's chosen and rejected at the start, then both now."""
    if "log_odds_ratio" not in state.steps:
        return None
    chosen = _ends(state.steps.column("chosen_logps"))
    rejected = _ends(state.steps.column("rejected_logps"))
    if chosen is None or rejected is None:
        return None
    return chosen[0], rejected[0], chosen[1], rejected[1]


def _overfitting(state: RunState) -> Note | None:
    found = _logps(state)
    if found is None:
        return None
    _, _, chosen, rejected = found
    if chosen > NEAR_CERTAIN * 2 and chosen - rejected > FAR_BELOW:
        return Note(
            "overfitting",
            "chosen is near 0 and rejected far below: the run is overfitting",
            f"The chosen responses have become nearly certain (mean log-prob {chosen:.2f}) while "
            f"the rejected ones are at {rejected:.2f}. The model repeats the pairs rather than "
            "learns from them. Stop, or take an earlier checkpoint, fewer epochs or more pairs.",
        )
    return None


def _both_falling(state: RunState) -> Note | None:
    found = _logps(state)
    if found is None:
        return None
    chosen0, rejected0, chosen, rejected = found
    if chosen < chosen0 - CHANGED and rejected < rejected0 - CHANGED:
        return Note(
            "both-falling",
            f"chosen and rejected both fall: lambda {state.lam:g} is probably too high",
            f"Chosen went from {chosen0:.2f} to {chosen:.2f}, rejected from {rejected0:.2f} to "
            f"{rejected:.2f}. The preference term then wins over the NLL, which should raise "
            "chosen. Try half of lambda, or a lower learning rate.",
        )
    return None


def _moving_away(state: RunState) -> Note | None:
    """Look at an objective with rewards from a reference: its chosen log-prob often falls."""
    if "reward_margin" not in state.steps or "chosen_logps" not in state.steps:
        return None
    chosen, margin = (
        _ends(state.steps.column(name)) for name in ("chosen_rewards", "reward_margin")
    )
    if chosen is None or margin is None:
        return None
    if chosen[1] < chosen[0] - FLAT and margin[1] > margin[0] + FLAT:
        return Note(
            "chosen-falling",
            "chosen falls while the margin grows: common without an NLL term",
            f"The reward margin went from {margin[0]:.2f} to {margin[1]:.2f}: rejected fell faster "
            "than chosen, and nothing in this loss holds chosen up. Fewer steps, a larger beta "
            "(dpo, kto), or --nll-weight above 0 (not kto) keep the preferred answers likely.",
        )
    return None


def _uncentred(state: RunState) -> Note | None:
    """Look at a reward model, which has rewards and no log-probs: only differences are trained."""
    if "reward_margin" not in state.steps or "chosen_logps" in state.steps:
        return None
    chosen, rejected, margin = (
        _ends(state.steps.column(name))
        for name in ("chosen_rewards", "rejected_rewards", "reward_margin")
    )
    if chosen is None or rejected is None or margin is None:
        return None
    before, now = ((a + b) / 2 for a, b in zip(chosen, rejected, strict=True))
    if abs(now - before) < max(SHIFTED, abs(margin[1])):
        return None
    return Note(
        "uncentred",
        f"the mean reward has gone from {before:.1f} to {now:.1f}, further than the two sides part",
        "Only the difference of two rewards is trained, so their mean is free to go anywhere. "
        "Rewards of one prompt can still be compared; where those of different prompts are to be, "
        "train with --center 0.01.",
    )


def _leaving(state: RunState) -> Note | None:
    """Look at KTO's KL: how much likelier answers became, whatever they answer."""
    kl = _ends(state.steps.column("kl")) if "kl" in state.steps else None
    if kl is None or kl[1] < kl[0] + FAR_KL:
        return None
    return Note(
        "kl-climbing",
        f"KTO's KL climbs to {kl[1]:.0f}: answers gain whatever is asked",
        f"The KL is the mean log-ratio of answers to other prompts, and went from {kl[0]:.1f} to "
        f"{kl[1]:.1f} nats an answer. Good answers are measured from it, so they gain less and "
        "less, and the policy leaves its reference. A larger beta or a lower learning rate hold "
        "it.",
    )


def _validation_rising(state: RunState) -> Note | None:
    losses = state.evals.column("loss")
    if len(losses) < 3 or state.best is None:
        return None
    best = state.best.value("loss")
    if losses[-1] > losses[-2] > best and losses[-1] > 1.02 * best:
        return Note(
            "validation-rising",
            f"validation loss rises since step {state.best.step}: the best adapter is behind you",
            f"It was {best:.4f} at step {state.best.step} and is {losses[-1]:.4f} now. "
            "With keep_best the result is the adapter of that step; more steps on these pairs do "
            "not help.",
        )
    return None


def _amplified(state: RunState) -> Note | None:
    found = _logps(state)
    if found is None or not found[2] > NEAR_CERTAIN:
        return None
    factor = 1 / -math.expm1(found[2])
    return Note(
        "amplified",
        f"P(chosen) is above 0.9: gradients of the preference term are {factor:.0f} times larger",
        "The gradient of the log-odds carries a factor 1 / (1 - P). Near certainty it grows "
        "without limit, and single steps can do damage. Watch the gradient norm; lower the "
        "learning rate or stop here.",
    )


def _rejected_flat(state: RunState) -> Note | None:
    found = _logps(state)
    if found is None or state.lam > LOW_LAMBDA:
        return None
    chosen0, rejected0, chosen, rejected = found
    if abs(rejected - rejected0) < FLAT and chosen > chosen0 + CHANGED:
        return Note(
            "rejected-flat",
            f"rejected stays flat: normal at lambda {state.lam:g}",
            "With a small lambda the NLL raises chosen, and the preference term only keeps "
            "rejected from rising with it. What counts is the log-odds ratio between the two. A "
            "larger lambda would push rejected down.",
        )
    return None


def _accuracy_at_start(state: RunState) -> Note | None:
    steps, values = state.evals.column("step"), state.evals.column("preference_accuracy")
    if "log_odds_ratio" not in state.evals:
        return None  # against a reference all pairs are tied at first
    if not len(values) or steps[0] != 0 or abs(values[0] - 0.5) < 0.05:
        return None
    if state.total_steps and state.step > 0.25 * state.total_steps:
        return None
    return Note(
        "accuracy-at-start",
        f"accuracy begins at {values[0]:.0%}, not 50 %: the base model already has a leaning",
        "Accuracy asks which response has the higher mean log-prob per token. Before any training "
        "the base model prefers the more common wording or the easier length, right or not. The "
        "change from here is what was learned.",
    )


def _drifting(state: RunState) -> Note | None:
    drift = state.drift.last("kl_per_token")
    if not drift > FAR_FROM_BASE:
        return None
    return Note(
        "drifting",
        f"drift is {drift:.2f}: the model answers neutral prompts otherwise than its base",
        "Drift is the KL divergence from the base per token of what the base itself answers to "
        "prompts that have nothing to do with the pairs. A little is style; this much may be "
        "forgetting. Look at the answers (orpo-mlx evaluate), or take a lower learning rate, "
        "fewer steps, or --stop-drift.",
    )


_RULES: tuple[Callable[[RunState], Note | None], ...] = (
    _overfitting,
    _both_falling,
    _validation_rising,
    _amplified,
    _rejected_flat,
    _moving_away,
    _uncentred,
    _leaving,
    _drifting,
    _accuracy_at_start,
)
