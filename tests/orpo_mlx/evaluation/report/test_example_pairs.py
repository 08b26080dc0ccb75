"""The example pairs of a page: scored as the others were, and no more of them than is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orpo_mlx.evaluation.judgement import judge_subject
from orpo_mlx.evaluation.report import examples
from orpo_mlx.evaluation.report.examples import example_pairs, shown_pairs
from orpo_mlx.evaluation.subject import Asked, adapter_of, open_subject
from orpo_mlx.generation.side_by_side import SideBySide
from orpo_mlx.scoring.plain import Plain


@pytest.fixture(scope="module")
def done(trained) -> Any:
    """The judgement of the ORPO run of `trained`."""
    run = trained.orpo
    return judge_subject(open_subject(Asked(run.read_config(), adapter_of(run))))


@pytest.fixture
def scored(monkeypatch) -> list[tuple[int, int | None]]:
    """For each example pair that is scored, its longer answer and the chunk."""
    seen, score = [], SideBySide.score

    def noted(both: SideBySide, pair: Any, side: Any, chunk: int | None = None) -> Any:
        seen.append((max(len(pair.chosen), len(pair.rejected)), chunk))
        return score(both, pair, side, chunk)

    monkeypatch.setattr(SideBySide, "score", noted)
    return seen


def test_tokens_add_up_to_what_the_pairs_scored(done, scored):
    assert done.subject.scoring.way.has_chunks
    for place, example in zip(shown_pairs(done, 4), example_pairs(done, 4), strict=True):
        for side in ("base", "adapter"):
            table = done.tables[side]
            for answer, sums in (("chosen", table.chosen_sum), ("rejected", table.rejected_sum)):
                logps = [token[side] for token in example[answer]]
                assert sum(logps) == pytest.approx(sums[place], rel=1e-6, abs=1e-5)
    assert {chunk for _, chunk in scored} == {done.subject.scoring.chunk}


def test_what_is_not_shown_is_not_scored(done, scored, monkeypatch):
    whole = example_pairs(done, 4)
    scored.clear()
    monkeypatch.setattr(examples, "_MOST_TOKENS", 3)
    for cut, example in zip(example_pairs(done, 4), whole, strict=True):
        for side in ("base", "adapter"):
            kept = [token[side] for token in example["chosen"][:3]]
            assert np.array([token[side] for token in cut["chosen"]]) == pytest.approx(kept, 1e-6)
    assert {longest for longest, _ in scored} == {3}


def test_a_way_without_chunks_makes_the_logits_of_a_row(done, scored):
    subject = replace(done.subject, scoring=replace(done.subject.scoring, way=Plain()))
    example_pairs(replace(done, subject=subject), 2)
    assert {chunk for _, chunk in scored} == {None}
