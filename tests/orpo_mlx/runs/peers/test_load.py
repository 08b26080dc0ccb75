"""How the processes of a run shared its steps, by hand."""

from __future__ import annotations

import pytest
from support.measured import measured

from orpo_mlx.runs.events import StepCompleted
from orpo_mlx.runs.peers.load import PeerLoad, of_a_step, shares_text


def step(number: int, *tokens: int, wait: float = 0.0, net: float = 0.0, took: float = 1.0):
    return StepCompleted(
        measured(0.5), step=number, peer_tokens=[*tokens], wait_seconds=wait, exchange_seconds=net,
        step_seconds=took,
    )  # fmt: skip


def test_means_are_those_of_single_steps():
    load = PeerLoad(10)
    load.add(step(11, 100, 50, wait=0.5, net=0.2, took=2.0))
    load.add(step(14, 200, 250, wait=0.1, net=0.0, took=1.0))  # three steps since the last event
    assert load.shares == [0.5, 0.5]
    assert load.imbalance == 0
    assert load.wait_seconds == pytest.approx((0.5 + 3 * 0.1) / 4)
    assert load.exchange_seconds == pytest.approx(0.2 / 4)
    assert load.step_seconds == pytest.approx(5.0 / 4)


def test_of_four_the_one_that_does_all_has_three_times_more_than_its_part():
    load = PeerLoad()
    load.add(step(1, 0, 0, 8, 0))
    assert load.imbalance == 3.0
    assert shares_text(load) == "0 %, 0 %, 100 % and 0 %"


@pytest.mark.parametrize("events", [[], [step(1)], [step(1, 0, 0)]])
def test_without_tokens_nothing_is_said(events):
    load = PeerLoad()
    for event in events:
        load.add(event)
    assert (load.shares, load.imbalance) == ([], 0.0)


def test_of_many_the_least_and_the_most_are_said():
    load = PeerLoad()
    load.add(step(1, *range(95, 105)))
    assert shares_text(load) == "9.5 % to 10.5 % each"


def test_a_time_and_its_part_of_a_step():
    assert of_a_step(0.03, 0.1) == "30 ms (30 %)"
    assert of_a_step(0.03, 0.0) == "30 ms"
