"""Settings of evaluations and sampled answers."""

from __future__ import annotations

from functools import partial

from orpo_mlx.config.declaration import declare
from orpo_mlx.config.values import SettingsGroup

setting = partial(declare, "evaluation")

DRIFT_TOKENS = 32
"""Of the longest answer that drift is measured on, in training and afterwards: only then can the
numbers be compared."""
_SAMPLING = "training waits while answers are written"


class EvaluationSettings(SettingsGroup):
    """How often the adapter is judged, and by what."""

    eval_every: int | None = setting(
        None,
        "Evaluate every N steps besides the start and the end; 0 = only there. Not set: ten times, "
        "or as often as a quarter of the training time allows.",
        unit="steps",
        speed="lower is slower: training waits for each evaluation",
        quality="lower finds a better step for keep_best and early_stop",
        usual="5 to 20 evaluations in a run",
        ge=0,
    )
    eval_pairs: int = setting(
        200,
        "Most validation pairs used in an evaluation, drawn by seed; 0 = all.",
        unit="pairs",
        speed="higher makes each evaluation longer",
        quality="higher judges more surely",
        usual="100 to 500",
        ge=0,
    )
    best_metric: str = setting(
        "auto",
        "Validation metric that decides which checkpoint is best; auto: loss, and response_nll "
        "where the NLL counts prompts, too.",
        quality="a margin may still grow while answers get worse; loss weighs both",
        known=(
            "auto",
            "loss",
            "nll_loss",
            "response_nll",
            "odds_ratio_loss",
            "preference_accuracy",
            "logps_margin",
            "reward_margin",
        ),
    )
    evaluate: bool = setting(
        True,
        "At the end compare base and adapter on the held-out pairs, with intervals and a report, "
        "as `orpo-mlx evaluate` does; at most about a minute.",
        speed="off ends the run a quarter of its time earlier, at most a minute",
        may_change=True,
    )
    keep_best: bool = setting(
        False,
        "Make the adapter from the best evaluation the result, not the last one.",
        quality="on, what is learned by heart at the end is undone",
        disk="one more checkpoint",
    )
    early_stop: int = setting(
        0,
        "Stop after N evaluations in a row without improvement; 0 = never.",
        unit="evaluations",
        speed="above 0 ends a run that no longer improves",
        quality="above 0 learns less by heart; a low value may stop too soon",
        usual="3 to 5, with keep_best",
        ge=0,
    )
    drift_every: int | None = setting(
        None,
        "Measure drift every N steps and at the end: KL per token from the base on its answers to "
        "neutral prompts; 0 = never. Not set: at evaluations, if cheap.",
        unit="steps",
        speed="lower is slower: both sides read twelve answers each time",
        quality="shows when the model forgets other things",
        ge=0,
        may_change=True,
    )
    stop_drift: float = setting(
        0.0,
        "Stop when drift is above this many nats per token; 0 = never. Measured at evaluations "
        "unless drift_every says otherwise.",
        unit="nats",
        speed="above 0 ends a run that has moved far",
        quality="above 0 keeps more of the base and may end before the pairs are learned",
        usual="0.1 to 0.5",
        ge=0,
    )
    sample_every: int | None = setting(
        None,
        "Answer held-out prompts every N steps besides the start and the end; 0 = only there. "
        "Not set: at each evaluation.",
        unit="steps",
        speed=f"lower is slower: {_SAMPLING}",
        ge=0,
        may_change=True,
    )
    sample_prompts: int = setting(
        3,
        "How many held-out prompts are answered; 0 = none.",
        speed=f"higher is slower: {_SAMPLING}",
        ge=0,
        le=64,
        may_change=True,
    )
    sample_tokens: int = setting(
        64,
        "Longest sampled answer.",
        unit="tokens",
        speed=f"higher is slower: {_SAMPLING}",
        ge=1,
        le=8192,
        may_change=True,
    )
