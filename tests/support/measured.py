"""What a step of ORPO measures, for events made by hand."""

from __future__ import annotations

NAMES = (
    "loss", "nll_loss", "odds_ratio_loss", "log_odds_ratio", "chosen_logps", "rejected_logps",
    "preference_accuracy", "logps_margin",
)  # fmt: skip


def measured(*values: float) -> dict[str, float]:
    """Name eight values in their usual order; one alone stands for all."""
    return dict(zip(NAMES, values * 8 if len(values) == 1 else values, strict=True))
