"""Settings of what is minimised."""

from __future__ import annotations

from functools import partial
from typing import Literal

from orpo_mlx.settings.declaration import declare
from orpo_mlx.settings.values import SettingsGroup

setting = partial(declare, "objective")


class ObjectiveSettings(SettingsGroup):
    """The loss: nll_weight * NLL + lam * preference term."""

    lam: float = setting(
        0.1,
        "Weight of the preference term (lambda in the paper, beta in TRL); not a temperature.",
        quality="higher parts chosen and rejected faster and can hurt fluency",
        usual="0.1 to 0.25 as in the paper; up to 0.5 below about 1B parameters",
        ge=0,
    )
    nll_scope: Literal["full", "response"] = setting(
        "full",
        "Tokens of the chosen side in the NLL: prompt + response (as TRL), or the response only.",
        memory="'response' needs less on long prompts",
        speed="'response' is faster on long prompts",
        quality="'full' also learns to write prompts, 'response' only answers",
    )
    nll_reduction: Literal["token", "pair"] = setting(
        "token",
        "NLL as a mean over all counted tokens of the step, or over pairs of per-pair means.",
        quality="with 'token' long answers weigh more, with 'pair' all pairs weigh the same",
    )
    nll_weight: float = setting(
        1.0,
        "Weight of the NLL (the usual language-model loss, on the chosen side); 0 trains on the "
        "preference term alone.",
        quality="lower holds the model less to the chosen texts",
        usual="1, as in the paper",
        ge=0,
    )
    preference: Literal["odds_ratio", "probability_ratio", "none"] = setting(
        "odds_ratio",
        "Preference term: ORPO's odds ratio, the paper's probability-ratio ablation, "
        "or none (plain SFT on the chosen side).",
        quality="probability_ratio pushes rejected answers away harder; none ignores them",
        usual="odds_ratio",
    )
