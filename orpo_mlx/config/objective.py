"""Settings of what is minimised."""

from __future__ import annotations

from functools import partial
from typing import Literal

from orpo_mlx.config.declaration import declare
from orpo_mlx.config.values import SettingsGroup

setting = partial(declare, "objective")


OWN_SETTINGS = {
    "orpo": ("lam", "preference", "nll_scope", "nll_reduction", "nll_weight"),
    "sft": ("nll_scope", "nll_reduction"),
    "dpo": (
        "dpo_loss", "beta", "label_smoothing", "ipo_length", "reference", "nll_reduction",
        "nll_weight", "nll_scope",
    ),
    "cpo": ("beta", "nll_reduction", "nll_weight", "nll_scope"),
    "simpo": ("beta", "gamma", "nll_reduction", "nll_weight", "nll_scope"),
    "reward": ("use_margin", "center"),
    "kto": ("kto_loss", "beta", "desirable_weight", "undesirable_weight", "reference", "unpair"),
}  # fmt: skip
"""Settings of what is minimised that an objective has; those of others do nothing there."""

OF_ANSWERS = ("sample_every", "sample_prompts", "sample_tokens", "drift_every", "stop_drift")
"""Settings that do nothing with a reward model, which writes none."""


RATES = {
    "orpo": 5e-5, "sft": 1e-4, "dpo": 1e-5, "cpo": 1e-5, "simpo": 1e-5, "kto": 1e-5, "reward": 1e-4,
}  # fmt: skip
"""Learning rates of adapters where none is set: about ten times those of TRL 1.16, which are for
whole models; ORPO's is that of this project's first release."""


def foreign_settings(objective: str) -> set[str]:
    """Return the settings that only other objectives have; none of one that is not known."""
    own = OWN_SETTINGS.get(objective)
    every = {name for names in OWN_SETTINGS.values() for name in names}
    if objective == "reward":
        every.update(OF_ANSWERS)
    return set() if own is None else every.difference(own)


class ObjectiveSettings(SettingsGroup):
    """The loss: of ORPO, nll_weight * NLL + lam * preference term; docs/objectives.md has all."""

    objective: str = setting(
        "orpo",
        "What is trained on: orpo, sft (the chosen side alone), dpo, cpo or simpo; kto for answers "
        "that carry a label each; reward for a model that rates answers.",
        speed="dpo and kto score all rows once more, before the first step",
        quality="decides what is learned from a pair",
        known=tuple(OWN_SETTINGS),
    )
    lam: float = setting(
        0.1,
        "Weight of the preference term (lambda in the paper, beta in TRL); not a temperature.",
        quality="higher parts chosen and rejected faster and can hurt fluency",
        usual="0.1 to 0.25 as in the paper; up to 0.5 below about 1B parameters",
        ge=0,
    )
    nll_scope: Literal["full", "response"] = setting(
        "response",
        "Tokens of the chosen side in the NLL: the response (the paper's formula), or prompt + "
        "response (TRL, the authors' code).",
        memory="'response' needs less on long prompts",
        speed="'response' is faster on long prompts",
        quality="'full' also learns to write prompts, 'response' only answers",
    )
    nll_reduction: Literal["token", "pair"] = setting(
        "token",
        "NLL as a mean over all counted tokens of the step, or over pairs of per-pair means.",
        quality="with 'token' long answers weigh more, with 'pair' all pairs weigh the same",
    )
    nll_weight: float | None = setting(
        None,
        "Weight of the NLL (the usual language-model loss, on the chosen side); 0 trains on the "
        "preference term alone. Not set: 1 for orpo and cpo, 0 for dpo and simpo.",
        quality="lower holds the model less to the chosen texts",
        usual="1, as in the papers of ORPO, CPO and RPO (dpo with NLL)",
        ge=0,
    )
    preference: Literal["odds_ratio", "probability_ratio", "none"] = setting(
        "odds_ratio",
        "Preference term: ORPO's odds ratio, the paper's probability-ratio ablation, "
        "or none (plain SFT on the chosen side).",
        quality="probability_ratio pushes rejected answers away harder; none ignores them",
        usual="odds_ratio",
    )
    dpo_loss: Literal["sigmoid", "ipo", "hinge", "robust", "apo_zero", "apo_down"] = setting(
        "sigmoid",
        "Form of DPO: sigmoid (the paper's), ipo (a margin is wanted, not more), hinge, robust "
        "(unbiased under wrong labels), apo_zero and apo_down (answers better, worse than the "
        "model's own).",
        quality="ipo and robust bear wrong labels better",
        usual="sigmoid",
    )
    beta: float | None = setting(
        None,
        "How strongly log-probs make rewards (dpo, cpo, simpo, kto); with ipo it sets the margin, "
        "1 / (2 beta). Not set: 0.1, and 2 for simpo.",
        quality="higher holds the model closer to its reference",
        usual="0.01 to 0.5; 2 to 10 for simpo",
        gt=0,
    )
    gamma: float = setting(
        0.5,
        "Margin that simpo wants between the rewards.",
        quality="higher parts chosen and rejected further",
        usual="0.3 to 1.6",
        ge=0,
    )
    label_smoothing: float = setting(
        0.0,
        "Share of labels taken as wrong: with dpo's sigmoid (1 - eps) s(z) + eps s(-z), the "
        "conservative DPO, and with its robust form.",
        quality="above 0 keeps margins finite where labels are noisy",
        usual="0 to 0.2",
        ge=0,
        lt=0.5,
    )
    ipo_length: Literal["averaged", "summed"] = setting(
        "averaged",
        "Log-ratios of ipo: means over tokens (TRL), or sums (the paper).",
        quality="'summed' asks long answers for less per token",
    )
    reference: Literal["base", "start"] = setting(
        "base",
        "What dpo and kto compare with: the model with the adapter off, or the adapter of "
        "--init-adapter as it was at the start.",
        quality="'start' measures from what an earlier run has learned",
    )
    use_margin: bool = setting(
        False,
        "Ask of a reward model that rewards differ by each pair's margin: column margin, else "
        "the difference of the score columns.",
        quality="pairs that differ a lot are parted further",
    )
    center: float = setting(
        0.0,
        "Weight of (chosen + rejected reward)^2, which holds a reward model's rewards around 0.",
        quality="above 0 rewards of different prompts can be compared",
        usual="0, or 0.01",
        ge=0,
    )
    kto_loss: Literal["kto", "apo_zero_unpaired"] = setting(
        "kto",
        "Form of KTO: kto (the paper's, measured from a KL), or apo_zero_unpaired (measured from "
        "the reference itself).",
        memory="apo_zero_unpaired needs less: no answers to other prompts",
        speed="apo_zero_unpaired is faster, for the same reason",
        usual="kto",
    )
    desirable_weight: float = setting(
        1.0,
        "Weight of kto's answers that are labelled as good.",
        quality="weight times number of the good should be 1 to 4/3 of that of the bad",
        ge=0,
    )
    undesirable_weight: float = setting(
        1.0,
        "Weight of kto's answers that are labelled as bad.",
        quality="above desirable_weight where bad answers are rare",
        ge=0,
    )
    unpair: bool = setting(
        False,
        "Take each pair as two answers, a good and a bad one (kto).",
        quality="pairs say more as pairs: dpo or orpo",
    )
