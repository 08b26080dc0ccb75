"""The estimate in words."""

from __future__ import annotations

import pytest

from tui.new_run import fit_facts

ANSWER = {
    "fits": True, "estimated_bytes": 5.4e9, "available_bytes": 13.5e9, "pairs": 0,
    "parts": {"weights": 9e8, "adapter": 0, "something_new": 4.5e9},
    "suggestions": [{"bytes": 2e10, "settings": {"rank": 4}}, {"bytes": 1e9, "settings": {"a": 1}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("share", "word"),
    [(0.6, "fits easily"), (0.61, "fits"), (0.86, "tight"), (1.0, "tight"), (1.01, "too large")],
)
def test_the_verdict_follows_the_share_of_memory(share, word):
    assert fit_facts.verdict(share * 100, 100).word == word


def test_signs_have_an_ascii_form_and_no_memory_at_all_fits_nothing():
    assert fit_facts.verdict(1, 2, "ascii").sign == "v"
    assert fit_facts.verdict(1, 0, "ascii") == ("x", "too large", "bad")


def test_parts_that_weigh_nothing_are_left_out_and_unknown_ones_keep_their_name():
    assert fit_facts.part_lines(ANSWER, 30) == [
        "weights                 900 MB",
        "something new           4.5 GB",
    ]


def test_finished_runs_here_let_expect_a_peak():
    assert fit_facts.basis(ANSWER) == "for the longest pairs the settings allow"
    taken = fit_facts.basis({**ANSWER, "taken_bytes": 2_000_000_000})
    assert taken.split("\n")[1] == "other trainings may take 2 GB"
    with_runs = {**ANSWER, "pairs": 1, "past_runs": [0.9, 0.5]}
    assert fit_facts.basis(with_runs).split("\n") == [
        "from the lengths of 1 pair",
        "peak in 2 runs here: 50-90 % of the estimate, so 2.7 GB to 4.86 GB",
    ]
    one = fit_facts.calibration({**ANSWER, "past_runs": [0.5]})
    assert one == "peak in 1 run here: 50 % of the estimate, so 2.7 GB"
    low = fit_facts.calibration({**ANSWER, "past_runs": [0.5, 1.1]})
    assert low.endswith("; it was too low for 1: leave room")


def test_time_is_only_said_when_it_was_measured():
    assert fit_facts.summary(ANSWER) == "✓ fits easily: about 5.4 GB of 13.5 GB"
    timed = {**ANSWER, "time": {"seconds_total": 7800, "seconds_per_step": 2}}
    assert fit_facts.summary(timed).endswith(" · about 2 h 10 min (2 s a step)")


SEVERAL = {
    "processes": 3, "process_bytes": 5.5e9, "together_bytes": 16.5e9, "busiest_share": 0.4,
    "idle_processes": 0.0, "link_gbit": 1.0, "alone_seconds_per_step": 2, "seconds_per_step": 0.9,
}  # fmt: skip
SHARED = {**ANSWER, "processes": SEVERAL}


def test_processes_on_one_machine_need_its_memory_together():
    assert fit_facts.summary(SHARED) == "✗ too large: about 3 x 5.5 GB of 13.5 GB"
    assert fit_facts.part_lines(SHARED, 30)[-2:] == [
        "exchange                100 MB",
        "each process            5.5 GB",
    ]
    assert fit_facts.first_suggestion(SHARED) == {"a": 1}
    assert fit_facts.first_suggestion({**SHARED, "available_bytes": 2.9e9}) == {}


def test_the_time_of_several_follows_from_that_of_one_and_says_what_it_assumes():
    timed = {**SHARED, "time": {"seconds_total": 7800, "seconds_per_step": 2}}
    assert fit_facts.time_of(timed) == (pytest.approx(3510), 0.9)
    assert fit_facts.summary(timed).endswith(" · about 58 min (0.9 s a step)")
    assumed = fit_facts.assumed_text(timed)
    assert "each of 3 is as fast as the one measured, which took 2 s a step" in assumed
    assert "1 Gbit/s between them" in assumed
    unknown = {**timed, "processes": {**SEVERAL, "seconds_per_step": None}}
    assert fit_facts.time_of(unknown) == (7800, 2)
    assert fit_facts.assumed_text(unknown).startswith("of one process")
    assert fit_facts.assumed_text(SHARED) == fit_facts.assumed_text(ANSWER) == ""


def test_who_has_most_to_do_is_said_where_it_is_known():
    assert fit_facts.share_text(SHARED) == "the busiest has 40 % of a step"
    idle = {**SHARED, "processes": {**SEVERAL, "idle_processes": 1.0}}
    assert fit_facts.share_text(idle).endswith(", 1 have nothing to do")
    unknown = {**SHARED, "processes": {**SEVERAL, "busiest_share": None, "idle_processes": None}}
    assert fit_facts.share_text(unknown) == fit_facts.share_text(ANSWER) == ""


def test_the_first_suggestion_that_fits_is_taken():
    assert fit_facts.first_suggestion(ANSWER) == {"a": 1}
    assert fit_facts.first_suggestion({**ANSWER, "suggestions": None}) == {}


def test_settings_are_broken_between_values():
    settings = {"rank": 8, "learning_rate": 5e-5, "keep_best": True}
    assert fit_facts.settings_lines(settings, 22) == [
        "rank 8,",
        "learning_rate 5e-05,",
        "keep_best true",
    ]


@pytest.mark.parametrize(("share", "full"), [(-1, 0), (0, 0), (0.5, 5), (7, 10)])
def test_the_bar_is_filled_to_the_share(share, full):
    assert fit_facts.bar(share, 10, "ascii") == "#" * full + "." * (10 - full)
