"""Several runs beside each other: lines, values, what differs."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.measured import NAMES

from tui.charts.picture import View
from tui.compare.comparing import (
    ComparedRun,
    compare_csv,
    compare_svg,
    compared_lines,
    curves,
    default_curve,
    result_rows,
    setting_rows,
    value_row,
    where_text,
)
from tui.run.state import STEP_NAMES, RunState

CURVES = curves(NAMES)


@pytest.fixture
def two_runs(make_state, make_eval):
    """A run of 3 steps with evaluations, and one of 2 steps without, other settings."""
    first = make_state(
        {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, make_eval(2, loss=1.5, is_best=True),
        {"step": 3, "loss": 1.0}, make_eval(3, loss=1.75), lr=1e-5, rank=8, run_dir="a",
    )  # fmt: skip
    second = make_state({"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}, lr=1e-4, rank=8,
                        run_dir="b")  # fmt: skip
    return [ComparedRun(Path("first"), "A", first), ComparedRun(Path("second"), "B", second)]


def test_every_run_is_a_line_with_its_letter_and_colour(two_runs):
    lines = compared_lines(two_runs, CURVES["loss"], "step")
    assert [(line.name, line.marker, line.colour) for line in lines] == [
        ("first", "A", 0), ("second", "B", 1),
    ]  # fmt: skip
    assert lines[1].ys.tolist() == [2.5, 2.25]
    evaluated = compared_lines(two_runs, CURVES["valid_loss"], "step")
    assert evaluated[0].xs.tolist() == [2, 3]
    assert len(evaluated[1].xs) == 0


def test_values_are_read_at_the_crosshair_and_the_best_is_known(two_runs):
    loss = CURVES["loss"]
    row = value_row(two_runs, loss, "step", View(cursor=2.2))
    assert (row.texts, row.best) == (("2.000", "2.250"), 0)
    row = value_row(two_runs, loss, "step", View(cursor=1.0))
    assert (row.texts, row.best) == (("3.000", "2.500"), 1)
    assert value_row(two_runs, loss, "step", View()).texts == ("1.000", "2.250")


def test_a_run_that_had_ended_has_no_value_there(two_runs):
    row = value_row(two_runs, CURVES["loss"], "step", View(cursor=30.0))
    assert (row.texts, row.best) == (("-", "-"), None)


def test_a_higher_log_odds_ratio_is_better_and_a_rejected_log_prob_is_neither(two_runs):
    odds = value_row(two_runs, CURVES["log_odds"], "step", View())
    assert odds.best is None  # the same in both
    assert value_row(two_runs, CURVES["rejected"], "step", View()).best is None


HIGHER, LOWER = 0, 1
BETTER = {
    "valid_loss": LOWER, "loss": LOWER, "valid_log_odds": HIGHER, "log_odds": HIGHER,
    "valid_accuracy": HIGHER, "accuracy": HIGHER, "valid_margin": HIGHER, "margin": HIGHER,
    "valid_nll": LOWER, "nll": LOWER, "odds_loss": LOWER, "chosen": HIGHER, "rejected": None,
    "rate": None, "grad": None, "speed": HIGHER, "step_time": LOWER, "memory": None,
}  # fmt: skip


@pytest.mark.parametrize("id", CURVES)
def test_the_better_of_two_values_is_known_for_every_metric(make_state, make_eval, id):
    """The first run's steps are higher in everything, its evaluations lower."""
    runs = []
    for letter, of_steps, of_evals in (("A", 0.75, 0.25), ("B", 0.25, 0.75)):
        values = dict.fromkeys(NAMES, of_evals)
        state = make_state(
            dict.fromkeys([*STEP_NAMES, *NAMES], of_steps) | {"step": 1}, make_eval(1, **values)
        )
        runs.append(ComparedRun(Path(letter), letter, state))
    best = value_row(runs, CURVES[id], "step", View()).best
    if id.startswith("valid"):
        best = 1 - best
    assert best == BETTER[id]


def test_evaluations_and_what_goes_in_steps_are_never_smoothed(two_runs):
    plain = {
        id for id, curve in CURVES.items()
        if not compared_lines(two_runs, curve, "step")[0].may_smooth
    }  # fmt: skip
    assert plain == {"rate", "memory", *(id for id in CURVES if id.startswith("valid_"))}


def test_where_values_are_read_is_said_in_the_units_of_the_axis():
    assert where_text("step", View()) == "newest"
    assert where_text("tokens", View(cursor=12000.4)) == "at tokens 12,000"
    assert where_text("time", View(cursor=90.0)) == "after 1m30"


def test_settings_that_only_name_places_are_left_out(two_runs):
    rows = {row.name: row for row in setting_rows(two_runs)}
    assert rows["lr"].texts == ("1e-05", "0.0001")
    assert [name for name, row in rows.items() if row.differs] == ["lr"]
    assert "run dir" not in rows


def test_results_name_the_best_evaluation_with_its_step(two_runs):
    rows = {row.name: row for row in result_rows(two_runs)}
    assert rows["best validation"].texts == ("1.5000 @2", "-")
    assert rows["steps"].texts == ("3/100", "2/100")
    assert rows["  log-odds, acc"].texts == ("+0.20, 50%", "-")


def test_curves_come_with_the_charted_ones_first_as_they_always_did():
    assert list(CURVES) == list(BETTER)
    assert [CURVES[id].title for id in ("loss", "valid_nll", "valid_log_odds")] == [
        "Training loss", "Validation NLL", "Validation log-odds ratio",
    ]  # fmt: skip


def test_the_training_loss_comes_first_where_nothing_was_evaluated(two_runs):
    assert default_curve(two_runs).id == "valid_loss"
    assert default_curve(two_runs[1:]).id == "loss"


def test_losses_of_different_objectives_rank_nobody(make_state, make_eval):
    runs = []
    for letter, objective in zip("AB", ("orpo", "dpo"), strict=True):
        state = make_state({"step": 1}, make_eval(1, loss=len(runs) + 1.0), make_eval(2, loss=3.0))
        started = replace(state.started, objective=objective)
        state.started = started
        runs.append(ComparedRun(Path(objective), letter, state))
    assert default_curve(runs).id == default_curve(runs[::-1]).id == "valid_accuracy"
    assert default_curve(runs[:1]).id == "valid_loss"
    first, *others = result_rows(runs)
    assert (first.name, first.texts) == ("objective", ("orpo", "dpo"))
    assert {row.name: row.best for row in others}["best validation"] is None
    assert value_row(runs, CURVES["valid_loss"], "step", View(cursor=1.0)).best is None
    same = [runs[0], replace(runs[0], letter="B", path=Path("b"))]
    assert result_rows(same)[0].name == "status"


def test_accuracies_by_rewards_and_by_log_probs_rank_nobody(make_state):
    runs = []
    for letter, objective in zip("AB", ("orpo", "dpo"), strict=True):
        better = 0.1 * len(runs)
        step = {"step": 1, "preference_accuracy": 0.5 + better, "tokens_per_second": 7.0 + better}
        state = make_state(step)
        state.started = replace(state.started, objective=objective)
        state.metrics += ("chosen_rewards", "rejected_rewards") if objective == "dpo" else ()
        runs.append(ComparedRun(Path(objective), letter, state))

    def best(of, curve: str) -> int | None:
        return value_row(of, CURVES[curve], "step", View(cursor=1.0)).best

    assert best(runs, "accuracy") is None
    assert best(runs, "speed") == 1
    for run in runs:
        run.state.metrics = runs[1].state.metrics
        run.state.started = runs[1].state.started
    assert best(runs, "accuracy") == 1


@pytest.mark.parametrize(
    ("setting", "best"), [({"lam": 0.5}, None), ({"nll_scope": "full"}, None), ({"rank": 4}, 0)]
)
def test_a_loss_with_another_weight_in_it_ranks_nobody(make_state, make_eval, setting, best):
    runs = []
    for letter, own in zip("AB", ({}, setting), strict=True):
        evals = make_eval(1, loss=len(runs) + 1.0, is_best=True), make_eval(2, loss=3.0)
        runs.append(ComparedRun(Path(letter), letter, make_state({"step": 1}, *evals, **own)))
    found = {row.name: row.best for row in result_rows(runs)}
    assert found["best validation"] == best
    assert value_row(runs, CURVES["valid_loss"], "step", View(cursor=1.0)).best == best
    assert default_curve(runs).id == ("valid_accuracy" if best is None else "valid_loss")


def test_a_run_that_has_not_begun_differs_from_none(two_runs):
    waiting = ComparedRun(Path("c"), "C", RunState())
    assert default_curve([*two_runs, waiting]).id == "valid_loss"
    assert value_row([*two_runs, waiting], CURVES["loss"], "step", View(cursor=1.0)).best == 1


def test_the_numbers_and_the_picture_can_be_kept(two_runs):
    rows = list(csv.DictReader(io.StringIO(compare_csv(two_runs, CURVES["loss"]))))
    assert [(row["run"], row["step"], row["loss"]) for row in rows][2:4] == [
        ("first", "3.0", "1.0"), ("second", "1.0", "2.5"),
    ]  # fmt: skip
    svg = compare_svg(two_runs, CURVES["loss"], "step", 0.0)
    root = ElementTree.fromstring(svg)
    assert len(root.findall(".//{*}polyline")) == 2
    assert "B second" in svg
