"""A few pairs to look at, token by token: those the adapter has moved most, either way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from orpo_mlx.data.checkup.examples import TokenWriter
from orpo_mlx.data.pipeline import encoder_for
from orpo_mlx.data.types import TokenPair
from orpo_mlx.evaluation.judgement import Judgement
from orpo_mlx.evaluation.subject import Subject
from orpo_mlx.generation.side_by_side import PairScore, SideBySide
from orpo_mlx.text.progress import OnProgress

SHOWN = 8
_MOST_TOKENS = 400


def shown_pairs(done: Judgement, count: int = SHOWN) -> list[int]:
    """Return the positions of pairs to show: half whose margin rose most, half whose fell most."""
    moved = done.tables[done.after].margin
    if done.before != done.after:
        moved = moved - done.tables[done.before].margin
    order = np.argsort(-moved, kind="stable").tolist()
    first = order[: (count + 1) // 2]
    return first + [i for i in order[::-1][: count // 2] if i not in first]


def example_pairs(
    done: Judgement, count: int = SHOWN, on_progress: OnProgress | None = None
) -> list[dict[str, Any]]:
    """Return example pairs as plain values, with the log-prob of each token under both sides.

    The model wears the adapters once more for this.

    Args:
        done: what was judged.
        count: how many at most.
        on_progress: told at the beginning and after each pair; what it raises ends it.

    Returns:
        For each pair: row, margin by side, prompt as text, and for "chosen" and "rejected" a list
        of {"text", "special", side: nats}; at most `_MOST_TOKENS` tokens of each.
    """
    subject = done.subject
    places = shown_pairs(done, count)
    pairs = [_cut(subject.held.pairs[i]) for i in places]
    sides = list(dict.fromkeys((done.before, done.after)))
    scored = _scored(subject, pairs, sides, on_progress)
    writer = TokenWriter(encoder_for(subject.asked.config, subject.loaded.tokenizer))
    found = []
    for number, (place, pair) in enumerate(zip(places, pairs, strict=True)):
        example: dict[str, Any] = {
            "row": pair.source,
            "margin": {side: float(done.tables[side].margin[place]) for side in sides},
            "prompt": "".join(token.text for token in writer.write(pair.prompt)),
        }
        for answer in ("chosen", "rejected"):
            tokens = writer.write(getattr(pair, answer))
            example[answer] = [
                {"text": token.text, "special": token.special}
                | {side: getattr(scored[side][number], answer)[i] for side in sides}
                for i, token in enumerate(tokens)
            ]
        found.append(example)
    return found


def _cut(pair: TokenPair) -> TokenPair:
    """Return a pair without what is not shown; no token before it sees it."""
    cut = {side: list(getattr(pair, side)[:_MOST_TOKENS]) for side in ("chosen", "rejected")}
    return replace(pair, **cut)


def _scored(
    subject: Subject, pairs: list[TokenPair], sides: list[str], on_progress: OnProgress | None
) -> dict[str, list[PairScore]]:
    scored: dict[str, list[PairScore]] = {side: [] for side in sides}
    # As the pairs were scored before, so that it takes no more memory than that did.
    chunk = subject.scoring.chunk if subject.scoring.way.has_chunks else None
    total = len(sides) * len(pairs)

    def tell() -> None:
        if on_progress is not None:
            on_progress(sum(map(len, scored.values())), total, "scoring example pairs", "rows")

    tell()
    for side in sides:
        with subject.wearing(side):
            both = SideBySide(subject.loaded.model, subject.loaded.tokenizer)
            for pair in pairs:
                scored[side].append(both.score(pair, "adapter", chunk))
                tell()
    return scored


def margins(done: Judgement) -> dict[str, list[float]]:
    """Return the margins of all pairs by side, the smallest first."""
    sides = dict.fromkeys((done.before, done.after))
    return {side: np.sort(done.tables[side].margin).tolist() for side in sides}
