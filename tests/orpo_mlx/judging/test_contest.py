"""Both sides answer as mlx-lm says they do, once; what is kept is not made again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orpo_mlx.cli.commands.evaluate import find_asked
from orpo_mlx.judging import contest as module
from orpo_mlx.judging.contest import ContestPlan, open_contest
from orpo_mlx.judging.ledger import PERSON


@pytest.fixture
def asked(trained):
    return find_asked({"run": str(trained.orpo.path)}, 0, 0)


@pytest.fixture
def plan(tmp_path):
    return ContestPlan(prompts=10, max_tokens=12, seed=3, folder=tmp_path / "judge")


def test_the_answers_are_those_that_mlx_lm_gives(trained, asked, plan):
    import mlx_lm

    with open_contest(asked, plan) as contest:
        duels = contest.duels
    assert (contest.available, len(duels)) == (12, 10)  # each of 12 prompts comes twice
    assert len({duel.prompt for duel in duels}) == 10
    known = {row["prompt"] for row in trained.rows}
    sides = {"before": None, "after": str(trained.orpo.adapter_folder)}
    for side, adapter in sides.items():
        model, tokenizer = mlx_lm.load(str(trained.model), adapter_path=adapter)[:2]
        for duel in duels[:3]:
            assert duel.prompt in known
            prompt = tokenizer.encode(duel.prompt, add_special_tokens=False)
            wanted = mlx_lm.generate(model, tokenizer, prompt, max_tokens=12)
            assert getattr(duel, side).text == wanted.strip()
    assert any(duel.before.text != duel.after.text for duel in duels)
    assert {duel.after_first for duel in duels} == {True, False}


def test_going_on_makes_nothing_again(asked, plan, monkeypatch):
    with open_contest(asked, plan) as contest:
        first = contest.duels
        contest.ledger.keep_verdict(first[2].ask_person(PERSON), "tie")
    monkeypatch.setattr(module, "sample_batch", lambda *_: pytest.fail("answers again"))
    monkeypatch.setattr(module, "read_weights", lambda _: pytest.fail("reads the weights again"))
    with open_contest(asked, plan) as contest:
        assert contest.duels == first
        assert contest.ledger.verdicts == {first[2].ask_person(PERSON): "tie"}
        assert contest.notes == ()
    with pytest.raises(pytest.fail.Exception), open_contest(asked, replace(plan, begin_anew=True)):
        pass


def test_a_damaged_line_harms_only_itself(asked, plan, monkeypatch):
    with open_contest(asked, plan) as contest:
        first = contest.duels
        for duel in first[:3]:
            contest.ledger.keep_verdict(duel.ask_person(PERSON), "first")
    lines = contest.ledger.path.read_text().splitlines()
    answer = next(i for i, text in enumerate(lines) if '"place": 4' in text)
    verdict = next(i for i, text in enumerate(lines) if '"fact": "verdict", ' in text)
    lines[answer], lines[verdict] = lines[answer][:-9], lines[verdict].replace("first", "both")
    contest.ledger.path.write_text("\n".join(lines) + "\n[[[[[1")
    with open_contest(asked, plan) as contest:
        assert contest.duels == first
        assert set(contest.ledger.verdicts) == {duel.ask_person(PERSON) for duel in first[1:3]}
        (note,) = contest.notes
        assert "2 damaged lines were passed over" in note
    whole = [json.loads(text) for text in contest.ledger.path.read_text().splitlines()
             if text.endswith("}")]  # fmt: skip
    assert sum(fact.get("place") == 4 for fact in whole) == 2  # one of each side


def test_other_settings_have_a_journal_of_their_own_and_say_so(asked, plan):
    with open_contest(asked, plan) as contest:
        path = contest.ledger.path
    before = path.read_bytes()
    with open_contest(asked, replace(plan, seed=4)) as contest:
        assert contest.ledger.path != path
        assert contest.ledger.verdicts == {}
        assert "a new journal is begun" in contest.notes[0]
    assert path.read_bytes() == before


def test_two_runs_are_compared_with_the_later_side_the_first_named(trained, plan):
    given = {"run": str(trained.orpo.path), "against": str(trained.sft.path)}
    with open_contest(find_asked(given, 0, 0), plan) as contest:
        assert (contest.before, contest.after) == ("other", "adapter")
        assert contest.names["other"] == "sft"
        both = contest.duels
    alone = find_asked({"run": str(trained.sft.path)}, 0, 0)
    with open_contest(alone, plan) as contest:
        assert [duel.after for duel in contest.duels] == [duel.before for duel in both]
