"""What each metric is called and how it is written; everything that shows runs asks here.

An event names its metrics; a reader looks each up with `metric`. A new metric is a row in
`METRICS`; even without one it is shown, by its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One number that a step or an evaluation measures.

    Attributes:
        name: as in events.
        title: over charts and in lists.
        format: how a number is written where there is room, such as "+.4f".
        better: which way is better; None where neither is.
        what: what it is, for a line below its title.
        label: in a table of several; "" = the title in lower case.
        short: in a line of several; "" = the label.
        full: for readers who know none of this; "" = the label.
        id: a short name that the user's settings and files may hold; "" = the name.
        is_share: between 0 and 1, written as per cent where there is little room.
        is_charted: has a chart of its own.
        is_drawn_valid: its evaluations are drawn, too.
        is_always_shown: is in each text about a run; others only where they are asked for.
    """

    name: str
    title: str
    format: str = ".4f"
    better: Literal["higher", "lower"] | None = None
    what: str = ""
    label: str = ""
    short: str = ""
    full: str = ""
    id: str = ""
    is_share: bool = False
    is_charted: bool = True
    is_drawn_valid: bool = True
    is_always_shown: bool = True

    def __post_init__(self) -> None:
        label = self.label or self.title.lower()
        own = {"label": label, "short": self.short or label, "full": self.full or label}
        for name, value in (own | {"id": self.id or self.name}).items():
            object.__setattr__(self, name, value)

    def text(self, value: float) -> str:
        """Return a value as in a table; "-" for NaN, what was not measured."""
        if math.isnan(value):
            return "-"
        return format(value, self.format)

    def brief(self, value: float, digits: int = 2) -> str:
        """Return a value where there is little room."""
        if math.isnan(value):
            return "-"
        if self.is_share:
            return f"{value:.0%}"
        return f"{value:{'+' if self.format.startswith('+') else ''}.{digits}f}"


_ORPO = (
    Metric(
        # nll_weight * nll_loss + lam * preference term.
        "loss", "Loss", better="lower",
        what="what is trained on, and the same on held-out pairs",
    ),
    Metric(
        # Mean over pairs; above 0 means the right order. TRL: `log_odds_chosen`.
        "log_odds_ratio", "Log-odds ratio", "+.4f", "higher",
        what="above 0: chosen is likelier", short="log-odds", id="log_odds",
    ),
    Metric(
        # Mean over pairs, nats per response token. TRL: `logps/chosen`.
        "chosen_logps", "Log-prob of chosen", better="higher", label="chosen log-prob",
        short="chosen", id="chosen", is_charted=False, is_drawn_valid=False,
    ),
    Metric(
        # Likewise. TRL: `logps/rejected`.
        "rejected_logps", "Log-prob of rejected", label="rejected log-prob",
        short="rejected", id="rejected", is_charted=False, is_drawn_valid=False,
    ),
    Metric(
        # Share of pairs whose chosen response has the higher log-prob. TRL: `rewards/accuracies`.
        "preference_accuracy", "Accuracy", better="higher",
        what="share of pairs with chosen likelier", short="acc", full="preference accuracy",
        id="accuracy", is_share=True,
    ),
    Metric(
        # Nats per counted token of the chosen side.
        "nll_loss", "NLL", better="lower",
        full="NLL of the chosen side, nats per token", id="nll", is_charted=False,
    ),
    Metric(
        # Nats per token of the chosen responses; where `nll_loss` counts prompts as well.
        "response_nll", "NLL of responses", better="lower", label="response NLL",
        full="NLL of the chosen responses, nats per token", is_charted=False,
    ),
    Metric(
        "prompt_nll", "NLL of prompts", label="prompt NLL",
        full="NLL of the prompts, nats per token", is_charted=False,
    ),
    Metric(
        # -log sigmoid(log-odds ratio), mean over pairs, nats. TRL logs its negative as
        # `log_odds_ratio`.
        "odds_ratio_loss", "Odds-ratio loss", better="lower", id="odds_loss",
        is_charted=False, is_drawn_valid=False,
    ),
    Metric(
        # Mean of chosen minus rejected. TRL: `rewards/margins` is lam times this.
        "logps_margin", "Margin", "+.4f", "higher", what="chosen minus rejected log-prob",
        full="margin of the mean log-probs", id="margin",
    ),
    Metric(
        # Mean over pairs; DPO: beta times the log-ratio to the reference, CPO and SimPO: beta times
        # the log-prob. TRL: `rewards/chosen`. A reward model: what its head says.
        "chosen_rewards", "Reward of chosen", "+.4f", label="chosen reward", short="chosen r",
        full="reward of the chosen side", is_charted=False, is_drawn_valid=False,
    ),
    Metric(
        # Likewise. TRL: `rewards/rejected`.
        "rejected_rewards", "Reward of rejected", "+.4f", label="rejected reward",
        short="rejected r", full="reward of the rejected side", is_charted=False,
        is_drawn_valid=False,
    ),
    Metric(
        # Mean of chosen minus rejected reward. TRL: `rewards/margins`.
        "reward_margin", "Reward margin", "+.4f", "higher", what="chosen minus rejected reward",
        short="margin", full="margin of the rewards",
    ),
    Metric(
        # max(0, mean log-ratio of answers to other prompts), nats per answer. TRL: `kl`.
        "kl", "KL", what="what KTO measures from: other answers, above 0",
        label="KL of KTO", short="KL", full="KL that KTO measures from, nats per answer",
    ),
)  # fmt: skip

TOGETHER = ("chosen_logps", "rejected_logps")
"""Drawn in one pane: whether they part says more than where each one goes."""

METRICS = {row.name: row for row in (replace(row, is_always_shown=False) for row in _ORPO)}
"""The known ones by name; charts come in this order."""


def metric(name: str) -> Metric:
    """Return what is known of a metric: its row, or one made of its name."""
    return METRICS.get(name) or Metric(name, name.replace("_", " ").capitalize())


def shown(names: Iterable[str], usual: Iterable[str] = ()) -> list[Metric]:
    """Return the metrics that a text about a run shows.

    Args:
        names: the run's.
        usual: what the text shows of runs that have it, in its order; then comes what is always
            shown.
    """
    present = dict.fromkeys(names)
    first = [name for name in usual if name in present]
    rest = [name for name in present if name not in first and metric(name).is_always_shown]
    return [metric(name) for name in (*first, *rest)]
