"""Settings of evaluations and sampled answers."""

from __future__ import annotations

from functools import partial
from typing import Literal

from orpo_mlx.settings.declaration import declare
from orpo_mlx.settings.values import SettingsGroup

setting = partial(declare, "evaluation")

_SAMPLING = "training waits while answers are written"


class EvaluationSettings(SettingsGroup):
    """How often the adapter is judged, and by what."""

    eval_every: int = setting(
        0,
        "Evaluate every N steps besides the start and the end; 0 = only there.",
        unit="steps",
        speed="lower is slower: training waits for each evaluation",
        quality="lower finds a better step for keep_best and early_stop",
        usual="5 to 20 evaluations in a run",
        ge=0,
    )
    eval_pairs: int = setting(
        200,
        "Most validation pairs used in an evaluation; 0 = all.",
        unit="pairs",
        speed="higher makes each evaluation longer",
        quality="higher judges more surely",
        usual="100 to 500",
        ge=0,
    )
    best_metric: Literal[
        "loss", "nll_loss", "odds_ratio_loss", "preference_accuracy", "logps_margin"
    ] = setting(
        "loss",
        "Validation metric that decides which checkpoint is best.",
        quality="a margin may still grow while answers get worse; loss weighs both",
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
    sample_every: int = setting(
        0,
        "Answer held-out prompts every N steps besides the start and the end; 0 = only there.",
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
