"""Verdicts are mapped back to sides, and counted; the numbers by hand."""

from __future__ import annotations

import pytest

from orpo_mlx.judging.by_person import Sitting
from orpo_mlx.judging.ledger import PERSON, Ask
from orpo_mlx.judging.tally import as_json, outcome, tally_of, tally_text, verdict_of


@pytest.mark.parametrize(
    ("after_first", "says", "wanted"),
    [
        (True, "first", "win"), (True, "second", "loss"), (False, "first", "loss"),
        (False, "second", "win"), (True, "tie", "tie"), (False, "skip", "skipped"),
    ],
)  # fmt: skip
def test_a_persons_verdict_is_of_the_side_that_was_shown_there(
    make_contest, after_first, says, wanted
):
    duel = make_contest().duels[int(after_first)]
    shown = duel.shown(duel.after_first)
    assert shown.index(f"tuned {duel.place}") == (0 if after_first else 1)
    assert outcome(duel, {Ask(PERSON, duel.place, after_first): says}, PERSON) == wanted


@pytest.mark.parametrize(
    ("before_first", "after_first", "wanted"),
    [
        ("second", "first", "win"), ("first", "second", "loss"), ("tie", "tie", "tie"),
        ("first", "first", "tie"), ("second", "second", "tie"), ("tie", "first", "tie"),
        ("none", "first", "dropped"), ("second", "none", "dropped"), ("second", None, "left"),
        (None, None, "left"), ("none", None, "dropped"),
    ],
)  # fmt: skip
def test_a_model_has_to_say_the_same_in_both_orders(
    make_contest, before_first, after_first, wanted
):
    duel = make_contest().duels[0]
    says = {False: before_first, True: after_first}
    verdicts = {Ask("m", 0, order): said for order, said in says.items() if said}
    assert outcome(duel, verdicts, "m") == wanted
    assert outcome(duel, verdicts, "another") == "left"


def test_the_win_rate_counts_ties_half_with_wilsons_interval(make_contest):
    contest = make_contest(12, same=(11,))
    sitting = Sitting(contest)
    # Later answer first at odd places: of ten, seven wins, one tie, one loss, one skipped.
    for duel, wanted in zip(contest.duels, ["win"] * 7 + ["tie", "loss", "skip"], strict=False):
        win = "first" if duel.after_first else "second"
        loss = "second" if duel.after_first else "first"
        sitting.take(duel, {"win": win, "loss": loss}.get(wanted, wanted))
    tally = sitting.tally
    assert (tally.wins, tally.ties, tally.losses) == (7, 2, 1)
    assert (tally.identical, tally.skipped, tally.left, tally.longer_won) == (1, 1, 1, 7)
    assert sitting.current == contest.duels[10]
    assert sitting.total == 11
    rate = tally.win_rate
    assert rate is not None
    # 8 of 10 by Wilson 1927: (0.8 + z2/20 +- z sqrt(0.16/10 + z2/400)) / (1 + z2/10).
    assert (rate.value, rate.low, rate.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert tally_text(tally) == "1 prompt left · 80 % won, interval 49 to 94"
    assert verdict_of(contest, tally) == (
        "no difference could be shown: answers of run-a won 80 % of 10 comparisons with the base "
        "model, ties counted half: interval 49 to 94 %"
    )
    found = as_json(contest, PERSON, "a person")
    assert found["lengths"] == {
        "base": {"tokens": 3.0, "cut": 0}, "adapter": {"tokens": 5.0, "cut": 12}
    }  # fmt: skip
    assert found["counts"]["judged"] == 10
    assert found["win_rate"]["value"] == 0.8


def test_ten_of_ten_is_better_and_none_of_ten_is_worse(make_contest):
    contest = make_contest(10)
    assert tally_of(contest, PERSON).win_rate is None
    assert verdict_of(contest, tally_of(contest, PERSON)) == "nothing is judged yet"
    for name, orders in (("good", ("second", "first")), ("bad", ("first", "second"))):
        for duel in contest.duels:
            for ask, says in zip(duel.ask_model(name), orders, strict=True):
                contest.ledger.keep_verdict(ask, says)
    assert verdict_of(contest, tally_of(contest, "good")).startswith(
        "better: answers of run-a won 100 %"
    )
    assert verdict_of(contest, tally_of(contest, "bad")).startswith(
        "worse: answers of run-a won 0 %"
    )
