"""What a model says of each pair, as columns; NumPy alone, and every measure is made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orpo_mlx.evaluation.interval import Sums, mean_of


@dataclass(frozen=True)
class ScoreTable:
    """N pairs under one model.

    Attributes:
        chosen_sum, rejected_sum: [N] float32 nats over the tokens of each answer.
        chosen_tokens, rejected_tokens: [N] how many these are, end of turn included.
        log_odds_ratio: [N] float32 nats, above 0 when the chosen answer has the higher odds.
        rewards: [N] by name, of an objective that has some.
        rates: whether the sums are a reward model's rewards, one number for each answer.
    """

    chosen_sum: np.ndarray
    rejected_sum: np.ndarray
    chosen_tokens: np.ndarray
    rejected_tokens: np.ndarray
    log_odds_ratio: np.ndarray
    rewards: dict[str, np.ndarray]
    rates: bool = False

    def __len__(self) -> int:
        return len(self.chosen_sum)

    @property
    def chosen_logps(self) -> np.ndarray:
        """[N] mean nats per token of the chosen answer, float32 as in training."""
        return self.chosen_sum / self.chosen_tokens.astype(np.float32)

    @property
    def rejected_logps(self) -> np.ndarray:
        """[N] mean nats per token of the rejected answer, float32 as in training."""
        return self.rejected_sum / self.rejected_tokens.astype(np.float32)

    @property
    def margin(self) -> np.ndarray:
        """[N] chosen less rejected mean log-prob, or reward."""
        if self.rates:
            return self.chosen_sum - self.rejected_sum
        return self.chosen_logps - self.rejected_logps

    @property
    def is_right(self) -> np.ndarray:
        """[N] whether the chosen answer is preferred, by its margin; a tie is not right."""
        return self.margin > 0

    @property
    def ties(self) -> int:
        """Pairs with a margin of 0."""
        return int((self.margin == 0).sum())

    def not_finite(self) -> np.ndarray:
        """Return the positions of pairs with a score that is NaN or infinite."""
        columns = (self.chosen_sum, self.rejected_sum, self.log_odds_ratio, *self.rewards.values())
        return np.flatnonzero(~np.isfinite(np.stack(columns)).all(axis=0))


MEASURES = (
    "preference_accuracy", "log_odds_ratio", "logps_margin", "chosen_logps", "rejected_logps",
    "chosen_nll",
)  # fmt: skip
"""What is measured of every model, in the order of tables."""
SHARES = ("preference_accuracy",)


def measures(table: ScoreTable) -> dict[str, Sums]:
    """Return every measure of a table by its name; rewards come last.

    The first five are means over pairs. `chosen_nll` is nats per token over all tokens of chosen
    answers, as the training's `nll_loss` where only answers count. Of rewards there is no log-prob.
    """
    rewards = {name: mean_of(values) for name, values in table.rewards.items()}
    if table.rates:
        return {"preference_accuracy": mean_of(table.is_right)} | rewards
    found = {
        "preference_accuracy": mean_of(table.is_right),
        "log_odds_ratio": mean_of(table.log_odds_ratio),
        "logps_margin": mean_of(table.margin),
        "chosen_logps": mean_of(table.chosen_logps),
        "rejected_logps": mean_of(table.rejected_logps),
        "chosen_nll": Sums(
            -table.chosen_sum.astype(np.float64), table.chosen_tokens.astype(np.float64)
        ),
    }
    return found | rewards


LIKE = 0.1
"""Answers are of like length if their tokens differ by at most this share of the longer one."""


def of_like_length(table: ScoreTable) -> np.ndarray:
    """Return [N] which pairs have answers of like length; 1 token apart always is."""
    longer = np.maximum(table.chosen_tokens, table.rejected_tokens)
    apart = np.abs(table.chosen_tokens - table.rejected_tokens)
    return apart <= np.maximum(1, LIKE * longer)


def gap_ranges(gaps: np.ndarray, parts: int = 3) -> list[tuple[float, float]]:
    """Divide score gaps into ranges of about as many pairs, from the smallest on.

    Args:
        gaps: [N] chosen less rejected score; NaN where a row has none.
        parts: at most this many ranges; equal gaps stay together.

    Returns:
        (low, high) of each range, both belonging to it.
    """
    known = np.sort(gaps[np.isfinite(gaps)])
    if not len(known):
        return []
    edges = np.unique(np.quantile(known, np.linspace(0, 1, parts + 1)[1:], method="inverted_cdf"))
    ranges, low = [], float(known[0])
    for high in edges.tolist():
        ranges.append((low, high))
        above = known[known > high]
        low = float(above[0]) if len(above) else high
    return ranges
