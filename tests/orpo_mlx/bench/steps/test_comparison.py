"""Ways are compared within a round, and rounds with one another."""

from __future__ import annotations

import pytest

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.steps.comparison import compare_rows, drift


def row(way: str, seconds: float, number: int = 1, workload: str = "hh", size: float = 10) -> Row:
    return {
        "model": "4-bit", "workload": workload, "way": way, "round": number, "steps": 3,
        "seconds_per_pair": seconds, "low": 0.9 * seconds, "high": 1.2 * seconds,
        "peak_memory_bytes": size,
    }  # fmt: skip


def test_a_machine_that_has_become_slower_changes_no_multiple():
    """All takes twice as long in the second round; plain is three times the default in both."""
    rows = [
        row("default", 1.0), row("plain", 3.0, size=40),
        row("plain", 6.0, 2, size=50), row("default", 2.0, 2),
    ]  # fmt: skip
    default, plain = compare_rows(rows)
    assert (default.time, default.memory) == ((), ())
    assert plain.time == pytest.approx((3.0, 3.0))
    assert plain.memory == pytest.approx((4.0, 5.0))
    assert plain.seconds == pytest.approx((4.5, 2.7, 7.2))
    assert plain.steps == 6
    assert drift(rows) == (2.0, 2)


def test_only_the_same_workload_in_the_same_round_is_compared_with():
    rows = [row("default", 1.0), row("default", 5.0, workload="uf"),
            row("plain", 10.0, workload="uf"), row("plain", 3.0, 2)]  # fmt: skip
    _, _, of_uf, of_hh = compare_rows(rows)
    assert of_uf.time == (2.0,)
    # Its default was not measured in that round.
    assert of_hh.time == ()


def test_what_was_not_measured_is_kept_with_its_reason():
    problem = {"model": "4-bit", "workload": "hh", "way": "plain", "round": 1, "problem": "no"}
    check = {"kind": "check", "name": "losses", "passed": True}
    failed = {"model": "4-bit", "workload": "hh", "way": "default", "round": 1, "problem": "no"}
    found = compare_rows([failed, problem, row("scoring x", 2.0), check])
    assert [one.row.get("problem") for one in found] == ["no", "no", None]
    assert [one.time for one in found] == [(), (), ()]


def test_without_a_second_round_there_is_no_drift():
    assert drift([row("default", 1.0), row("plain", 3.0)]) == (1.0, 0)
