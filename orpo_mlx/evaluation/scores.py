"""Every pair scored under one model, on the path that the training's own evaluation takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import NotFiniteError
from orpo_mlx.evaluation.score_table import ScoreTable
from orpo_mlx.objectives.base import Objective, PairScores, ReferenceScores, StepTotals
from orpo_mlx.objectives.orpo import odds_ratio_loss
from orpo_mlx.scoring.base import MicroBatch, Scoring, iter_scores

_COLUMNS = (
    "chosen_sum", "rejected_sum", "chosen_count", "rejected_count", "log_odds_ratio"
)  # fmt: skip


def score_pairs(
    model: Any,
    batches: Sequence[MicroBatch],
    scoring: Scoring,
    objective: Objective,
    reference: ScoreTable | None = None,
    between: Callable[[int], None] | None = None,
) -> ScoreTable:
    """Score pairs.

    Args:
        model: mlx-lm's, with or without an adapter.
        batches: laid out by `scoring`; together they hold each pair once.
        scoring: how pairs become log-probs, or rewards.
        objective: of the run; its metrics that are rewards are measured, too.
        reference: the same pairs under what rewards are measured from; None: this is it.
        between: called with the pairs done so far.

    Returns:
        The table in the order of the pairs.
    """
    count = sum(batch.pairs for batch in batches)
    columns = {name: np.zeros(count, np.float32) for name in _COLUMNS}
    rewards = {name: np.zeros(count, np.float32) for name in reward_names(objective)}
    done = 0
    for batch, scores in iter_scores(model, batches, scoring):
        places = np.array(batch.indices)
        found = {**scores._asdict(), "log_odds_ratio": mx.zeros_like(scores.chosen_sum)}
        if not scoring.rates:
            odds = odds_ratio_loss(scores.chosen_logps, scores.rejected_logps)
            found["log_odds_ratio"] = odds.log_odds_ratio
        for name, column in columns.items():
            column[places] = np.array(found[name].astype(mx.float32))
        sums = (reference.chosen_sum, reference.rejected_sum) if reference else (
            columns["chosen_sum"], columns["rejected_sum"])  # fmt: skip
        for i, place in enumerate(batch.indices if rewards else ()):
            known = ReferenceScores(*(mx.array(column[place : place + 1]) for column in sums))
            for name, value in _rewards(objective, _one(scores, i), known).items():
                rewards[name][place] = value
        done += batch.pairs
        if between is not None:
            between(done)
    return ScoreTable(
        columns["chosen_sum"], columns["rejected_sum"], columns["chosen_count"].astype(int),
        columns["rejected_count"].astype(int), columns["log_odds_ratio"], rewards,
        scoring.rates,
    )  # fmt: skip


def reward_names(objective: Objective) -> list[str]:
    """Return the metrics of an objective that are rewards; ORPO has none."""
    return [name for name in objective.metrics if "reward" in name]


def _one(scores: PairScores, index: int) -> PairScores:
    return PairScores(*(column[index : index + 1] for column in scores))


def _rewards(objective: Objective, scores: PairScores, known: ReferenceScores) -> dict[str, float]:
    """Return the rewards of a single pair: its share of a step that has no other."""
    counts = (scores.nll_tokens, scores.chosen_count)
    totals = StepTotals(mx.array(1.0), *(count.sum().astype(mx.float32) for count in counts))
    _, metrics = objective(scores, known if objective.needs_reference else None, totals)
    values: list[float] = metrics.tolist()  # type: ignore[assignment]
    named = dict(zip(objective.metrics, values, strict=True))
    return {name: named[name] for name in reward_names(objective)}


def require_finite(table: ScoreTable, pairs: Sequence[TokenPair], side: str) -> None:
    """Refuse scores that are no numbers; nothing computed from them means anything.

    Raises:
        NotFiniteError: naming the rows.
    """
    bad = table.not_finite()
    if not len(bad):
        return
    rows = ", ".join(pairs[int(i)].source for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
    raise NotFiniteError(
        f"{side}: the scores of {len(bad)} of {len(table)} pairs are NaN or infinite ({rows})",
        "Look at these rows; if there is nothing wrong with them, the weights are broken: "
        "`orpo-mlx verify` looks at the model, an earlier checkpoint may be sound.",
    )
