"""Base and adapters on the same pairs: the tables, and the measures with their intervals.

`judge_subject` is the whole computation of `orpo-mlx evaluate` but drift; `as_json` is what it
prints, and the only form in which reports and pages read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orpo_mlx.data.accounting import account_json
from orpo_mlx.evaluation.held_out import config_of_pairs
from orpo_mlx.evaluation.interval import DRAWS, LEVEL, Resampling
from orpo_mlx.evaluation.score_table import (
    LIKE,
    SHARES,
    ScoreTable,
    gap_ranges,
    measures,
    of_like_length,
)
from orpo_mlx.evaluation.scores import require_finite, score_pairs
from orpo_mlx.evaluation.subject import START, Subject
from orpo_mlx.evaluation.verdict import AccuracyVerdict, judge, judge_rating, percent
from orpo_mlx.objectives import build_objective
from orpo_mlx.scoring.batches import valid_parts
from orpo_mlx.text.progress import OnProgress

METHOD = {
    "interval": "percentile bootstrap over groups of like prompts; difference taken per draw; "
    "Wilson's over groups for shares, and differences of shares, that are the same in all draws",
    "level": LEVEL,
    "draws": DRAWS,
    "verdict": "interval of the difference leaves out 0 and sign test over changed groups p < 0.05",
    "smallest_change": "2.8 standard errors of the difference (four of five evaluations would show "
    "it), at least 6 groups of all",
    "like_length": f"tokens of both answers differ by at most {LIKE:.0%} of the longer one",
}
"""How it is computed, in words, as part of the result."""


@dataclass(frozen=True)
class Judgement:
    """What came out.

    Attributes:
        tables: by side: "base", "other", "adapter"; those there are, in this order.
        before, after: the sides that are compared; the same if there is only one.
        verdict: of their preference accuracy; None with one side.
    """

    subject: Subject
    tables: dict[str, ScoreTable]
    before: str
    after: str
    verdict: AccuracyVerdict | None


WhileWorn = Callable[[str], None]
"""Called with a side while the model is that side, once its pairs are scored."""


def judge_subject(
    subject: Subject, on_progress: OnProgress | None = None, while_worn: WhileWorn | None = None
) -> Judgement:
    """Score all pairs as each side.

    Args:
        subject: the model, its adapters and pairs.
        on_progress: told of the pairs, from the first of each side on.
        while_worn: for whatever else needs the model as a side.

    Raises:
        NotFiniteError: a score is no number.
    """
    config, pairs = subject.asked.config, subject.held.pairs
    config = config_of_pairs(config)  # KTO's rewards are DPO's
    scoring, goal = subject.scoring, build_objective(config.objective, config.model_dump())
    parts = valid_parts(config, scoring, pairs)
    batches = [scoring.lay_out(pairs, part) for part in parts]
    # A reward model's base has no head that could rate anything.
    sides = [*([] if scoring.rates else ["base"]), *subject.sides]
    asked = [*([START] if subject.start else []), *sides]
    tables: dict[str, ScoreTable] = {}
    for side in asked:

        def tell(done: int, label: str = f"scoring pairs, {side}") -> None:
            if on_progress is not None:
                on_progress(done, len(pairs), label, "rows")

        tell(0)
        reference = tables.get(asked[0])
        with subject.wearing(side):
            tables[side] = score_pairs(
                subject.loaded.model, batches, scoring, goal, reference, tell
            )
            require_finite(tables[side], pairs, side)
            if while_worn is not None and side != START:
                while_worn(side)
    tables.pop(START, None)
    before = "other" if "other" in tables else sides[0]
    verdict = _verdict(subject, tables[before], tables[sides[-1]]) if len(sides) > 1 else None
    return Judgement(subject, tables, before, sides[-1], verdict)


def _verdict(subject: Subject, before: ScoreTable, after: ScoreTable) -> AccuracyVerdict:
    held = subject.held
    draws = Resampling(held.groups, subject.asked.seed)
    name = "preference_accuracy"
    difference, error = draws.difference(
        measures(before)[name], measures(after)[name], is_share=True
    )
    sides, noun, than = subject.sides, held.noun, "before"
    if "other" in sides:
        than = sides["other"].name
        noun = f"{noun} ({than} -> {sides['adapter'].name})"
    return judge(before.is_right, after.is_right, held.groups, difference, error, noun, than)


# As JSON


@dataclass(frozen=True)
class SideComparison:
    """Tables of the same pairs, and how they are compared.

    Attributes:
        tables: by side.
        before, after: the sides whose difference is taken; equal: none.
        groups: [N] which pairs have like prompts.
        seed: of the draws.
    """

    tables: Mapping[str, ScoreTable]
    before: str
    after: str
    groups: np.ndarray
    seed: int

    def measured(self, chosen: np.ndarray | None = None) -> dict[str, dict[str, Any]]:
        """Return each measure as {side: {value, low, high}, "difference": {...}}.

        Args:
            chosen: [N] bool, to look at some pairs only; at least one.
        """
        kept = np.ones(len(self.groups), bool) if chosen is None else chosen
        draws = Resampling(self.groups[kept], self.seed)
        found = {
            side: {name: sums.where(kept) for name, sums in measures(table).items()}
            for side, table in self.tables.items()
        }
        result: dict[str, dict[str, Any]] = {}
        for name in found[self.after]:
            row = {
                side: draws.interval(sums[name], name in SHARES).as_dict()
                for side, sums in found.items()
                if name in sums
            }
            if self.before != self.after and name in found[self.before]:
                apart, _ = draws.difference(
                    found[self.before][name], found[self.after][name], name in SHARES
                )
                row["difference"] = apart.as_dict()
            result[name] = row
        return result

    def accuracy(self, chosen: np.ndarray) -> dict[str, Any]:
        """Return preference accuracy among some pairs; {} if there are none."""
        return self.measured(chosen)["preference_accuracy"] if chosen.any() else {}


def as_json(done: Judgement, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return everything but drift as plain values, in the order it is printed."""
    subject, held, asked = done.subject, done.subject.held, done.subject.asked
    comparison = SideComparison(done.tables, done.before, done.after, held.groups, asked.seed)
    return {
        "model": subject.folder.name,
        "data": str(asked.config.data),
        "sides": {
            **({} if subject.scoring.rates else {"base": subject.folder.name}),
            **{side: place.name for side, place in subject.sides.items()},
        },
        "compared": [done.before, done.after] if done.before != done.after else [done.after],
        "metrics": comparison.measured(),
        "like_length": _like_length(comparison),
        "score_gaps": _score_gaps(comparison, held.gaps),
        "drift": None,
        "verdict": _said(done),
        "counts": _counts(done),
        "seed": asked.seed,
        "method": {**METHOD, "scoring": str(subject.scoring.way)},
        "notes": list(subject.notes),
        "versions": dict(versions),
    }


def _said(done: Judgement) -> dict[str, Any]:
    if done.verdict is not None:
        return asdict(done.verdict)
    table, held = done.tables[done.after], done.subject.held
    found = Resampling(held.groups, done.subject.asked.seed).interval(
        measures(table)["preference_accuracy"], is_share=True
    )
    if table.rates:
        return asdict(judge_rating(table.is_right, held.groups, found, held.noun))
    value, low, high = (
        percent(share, len(table)) for share in (found.value, found.low, found.high)
    )
    text = (
        f"prefers the chosen answer in {value} of {len(table):,} {held.noun}, interval {low} to "
        f"{high}"
    )
    return {"text": text}


def _like_length(comparison: SideComparison) -> dict[str, Any]:
    """Return the accuracy where length tells nothing, and what length alone would tell."""
    table = comparison.tables[comparison.after]
    like = of_like_length(table)
    return {
        "pairs": int(like.sum()),
        **comparison.accuracy(like),
        "longer_is_chosen": float((table.chosen_tokens > table.rejected_tokens).mean()),
    }


def _score_gaps(comparison: SideComparison, gaps: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for low, high in gap_ranges(gaps):
        chosen = (gaps >= low) & (gaps <= high)
        size = {"low": low, "high": high, "pairs": int(chosen.sum())}
        rows.append(size | comparison.accuracy(chosen))
    return rows


def _counts(done: Judgement) -> dict[str, Any]:
    held, table = done.subject.held, done.tables[done.after]
    return {
        "pairs": len(table),
        "groups": len(set(held.groups.tolist())),
        "available": held.available,
        "held_out": held.is_held_out,
        "chosen_tokens": int(table.chosen_tokens.sum()),
        "rejected_tokens": int(table.rejected_tokens.sum()),
        "ties": {side: table.ties for side, table in done.tables.items()},
        "rows": account_json(held.account),
        "max_seq_length": done.subject.asked.config.max_seq_length,
    }


def per_pair_rows(done: Judgement) -> list[dict[str, Any]]:
    """Return a row for each pair: enough to compute every number of the result again."""
    held = done.subject.held
    rows = []
    for i, pair in enumerate(held.pairs):
        table = done.tables[done.after]
        row: dict[str, Any] = {
            "pair": i,
            "row": pair.source,
            "group": int(held.groups[i]),
            "chosen_tokens": int(table.chosen_tokens[i]),
            "rejected_tokens": int(table.rejected_tokens[i]),
            "score_gap": float(held.gaps[i]) if np.isfinite(held.gaps[i]) else None,
        }
        for side, own in done.tables.items():
            row[side] = {name: float(values[i]) for name, values in own.rewards.items()}
            if not own.rates:
                row[side] |= {
                    "chosen_logp_sum": float(own.chosen_sum[i]),
                    "rejected_logp_sum": float(own.rejected_sum[i]),
                    "log_odds_ratio": float(own.log_odds_ratio[i]),
                }
        rows.append(row)
    return rows
