"""Verdicts to pairs: champions, blind sides, undo and going on, each by hand or by invariant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_mlx.preferences.judging import Judging
from orpo_mlx.preferences.questions import PromptAnswers


def question(name: str, count: int = 2) -> PromptAnswers:
    answers = tuple(f"{name}{i}" for i in range(count))
    return PromptAnswers([{"role": "user", "content": name}], answers, (), f"f:{name}")


def prefer(judging: Judging, answer: int) -> None:
    now = judging.current()
    judging.take("left" if now.left == answer else "right")


def texts(judging: Judging) -> list[tuple[str, str]]:
    return [(p.chosen[0]["content"], p.rejected[0]["content"]) for p in judging.pairs()]  # type: ignore[index]


def test_the_winner_meets_the_next_answer() -> None:
    judging = Judging([question("q", 4)], seed=1)
    assert judging.total == 3
    prefer(judging, 1)  # 1 beats 0, so 1 meets 2
    now = judging.current()
    assert {now.left, now.right} == {1, 2}
    prefer(judging, 1)
    now = judging.current()
    assert {now.left, now.right} == {1, 3}
    prefer(judging, 3)
    assert judging.is_done
    assert texts(judging) == [("q1", "q0"), ("q1", "q2"), ("q3", "q1")]


@pytest.mark.parametrize("verdict", ["tie", "skip"])
def test_without_a_winner_there_is_no_pair_and_the_champion_stays(verdict: str) -> None:
    judging = Judging([question("q", 3)], seed=1)
    judging.take(verdict)
    now = judging.current()
    assert {now.left, now.right} == {0, 2}
    assert judging.pairs() == []
    assert judging.counts()[verdict] == 1


def test_undo_takes_the_last_verdict_back() -> None:
    judging = Judging([question("q", 3)], seed=1)
    first = judging.current()
    judging.take("left")
    judging.take("right")
    judging.take("undo")
    assert len(judging.pairs()) == 1
    judging.take("undo")
    assert (judging.current(), judging.pairs()) == (first, [])
    judging.take("undo")
    assert judging.current() == first


def test_sides_are_drawn_evenly_and_by_seed() -> None:
    def sides(seed: int) -> list[int]:
        judging = Judging([question(str(i)) for i in range(400)], seed)
        found = []
        while not judging.is_done:
            found.append(judging.current().left)
            judging.take("skip")
        return found

    assert 150 < sum(sides(1)) < 250
    assert sides(1) == sides(1) != sides(2)


verdicts = st.lists(st.sampled_from(["left", "right", "tie", "skip", "undo"]), max_size=40)


@given(verdicts, st.integers(0, 5))
def test_recorded_verdicts_lead_to_the_same_place(verdicts: list[str], seed: int) -> None:
    questions = [question("a", 3), question("b"), question("c", 4)]
    judging, entries = Judging(questions, seed), []
    for verdict in verdicts:
        if judging.is_done and verdict != "undo":
            break
        entries.append(judging.entry(verdict))
        judging.take(verdict)
    again = Judging(questions, seed, entries)
    assert again.verdicts == judging.verdicts
    assert again.pairs() == judging.pairs()
    assert len(judging.pairs()) == sum(v in ("left", "right") for v in judging.verdicts)
