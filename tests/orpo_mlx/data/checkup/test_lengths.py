"""Percentiles, histograms, limits and length bias, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from orpo_mlx.data.checkup.lengths import LengthTable, usual_limits


def table(*rows: tuple[int, int, int]) -> LengthTable:
    found = LengthTable()
    for row in rows:
        found.add(*row)
    return found


def test_percentiles_are_lengths_that_occur() -> None:
    lengths = table(*[(i, 1, 2) for i in range(1, 101)]).summary()
    assert lengths is not None
    prompt = lengths["prompt"]
    found = {name: prompt[name] for name in ("p5", "p50", "p90", "p95", "p99", "max")}
    assert found == {"p5": 5, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    assert prompt["mean"] == 50.5
    assert lengths["total"]["max"] == 102  # 100 and the longer answer


def test_a_histogram_holds_every_pair_once_even_far_away_ones() -> None:
    lengths = table(*[(10 + i % 50, 3, 3) for i in range(500)], (90_000, 3, 3)).summary()
    assert lengths is not None
    histogram = lengths["prompt"]["histogram"]
    assert sum(histogram["counts"]) == 501
    assert histogram["counts"][-1] == 1
    assert histogram["edges"][0] <= 10
    assert histogram["edges"][-1] == 90_001
    assert len(histogram["counts"]) <= 16
    assert histogram["edges"] == sorted(set(histogram["edges"]))


@pytest.mark.parametrize("length", [1, 7, 128])
def test_pairs_of_one_length_have_a_histogram(length: int) -> None:
    lengths = table((length, length, length)).summary()
    assert lengths is not None
    assert sum(lengths["chosen"]["histogram"]["counts"]) == 1


def test_a_limit_cuts_prompts_and_drops_answers_that_leave_no_room() -> None:
    #            total 30       total 60, cut at 50   answer fills 50   answer of 49 leaves one
    rows = table((10, 20, 5), (40, 5, 20), (5, 50, 1), (30, 49, 2))
    assert rows.under_limits([50, 100]) == [
        {"max_seq_length": 50, "cut": 2, "dropped": 1},
        {"max_seq_length": 100, "cut": 0, "dropped": 0},
    ]


def test_a_rule_of_length_alone_is_judged_with_ties_as_coins() -> None:
    bias = table((1, 9, 3), (1, 8, 4), (1, 5, 5), (1, 2, 4)).bias()
    assert bias is not None
    assert (bias.chosen_longer, bias.equal) == (0.5, 0.25)
    assert bias.accuracy == 0.625  # 2 right, half of the tie, of 4
    assert bias.factor == 1.5  # median of 3, 2, 1, 0.5
    shorter = table((1, 3, 9), (1, 4, 8), (1, 5, 5), (1, 4, 2)).bias()
    assert shorter is not None
    assert shorter.accuracy == 0.625


def test_without_pairs_there_is_nothing_to_say() -> None:
    assert table().summary() is None
    assert table().bias() is None


def test_the_limits_shown_hold_the_one_in_use_and_reach_past_the_longest_pair() -> None:
    assert usual_limits(900, 1000) == [128, 256, 512, 1000, 1024]
    assert usual_limits(50, 64) == [64]
