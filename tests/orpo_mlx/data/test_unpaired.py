"""KTO's rows: labels mixed, prompts distinct within a step, answers to other prompts."""

import json
from pathlib import Path

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.order import epoch_order
from orpo_mlx.data.types import TokenPair
from orpo_mlx.data.unpaired import (
    mixed_order,
    require_both_labels,
    require_kind,
    rows_for,
    unpaired,
    weights_note,
    with_other_answers,
)
from orpo_mlx.errors import DataError

CASE = Path(__file__).parents[2] / "data" / "llama"


def row(prompt, answer, label=True):
    return TokenPair([prompt], [answer], [], label=label)


def test_other_answers_are_those_of_trl():
    """Training by fours, and the evaluation in the same groups, whatever its own batches are."""
    expected = json.loads((CASE / "methods_expected.json").read_text())
    tokens = json.loads((CASE / "tokenized.json").read_text())["rows"]["chat"]
    for split, batch in (("train", "kto_first_batch"), ("valid", "kto_eval_batch")):
        rows = []
        for place, side in expected["kto_rows"][split]:
            ids = tokens[split][place][f"{side}_input_ids"]
            start = tokens[split][place][f"{side}_prompt_len"]
            rows.append(TokenPair(ids[:start], ids[start:], [], label=side == "chosen"))
        wanted = expected[batch]["KL_input_ids"]
        found = with_other_answers(rows, 4, 128)[: len(wanted)]
        assert [pair.prompt + pair.rejected for pair in found] == wanted
        assert [pair.label for pair in found] == expected[batch]["label"]


def test_an_answer_to_the_same_prompt_is_passed_over_and_too_long_ones_are_cut():
    rows = [row(1, 5), row(1, 6), row(2, 7), row(2, 8), row(3, 9)]
    found = with_other_answers(rows, 4, 99)
    # The last step has one row: it takes the answer before it.
    assert [pair.rejected for pair in found] == [[8], [8], [6], [6], [8]]
    long = [TokenPair([1, 1], [5, 6, 7], []), TokenPair([2], [8, 9], [])]
    assert [pair.rejected for pair in with_other_answers(long, 2, 3)] == [[8], [5, 6]]


def test_where_all_have_one_prompt_an_answer_is_its_own_other():
    assert [p.rejected for p in with_other_answers([row(1, 5), row(1, 6)], 2, 9)] == [[5], [6]]


def test_pairs_become_both_their_answers_by_turns_good_and_bad():
    pairs = [TokenPair([i], [10 + i], [20 + i], f"f:{i}") for i in range(3)]
    found = [(r.prompt[0], r.chosen[0], r.rejected, r.label, r.source) for r in unpaired(pairs)]
    assert found == [
        (0, 10, [], True, "f:0"), (1, 21, [], False, "f:1"), (2, 12, [], True, "f:2"),
        (0, 20, [], False, "f:0"), (1, 11, [], True, "f:1"), (2, 22, [], False, "f:2"),
    ]  # fmt: skip
    assert unpaired([row(1, 5, False)]) == [row(1, 5, False)]


@pytest.mark.parametrize(("good", "bad"), [(40, 40), (60, 20), (13, 27)])
def test_each_step_has_both_labels_and_no_prompt_twice(good, bad):
    labels = [True] * good + [False] * bad
    rows = [row(i % 30, i, label) for i, label in enumerate(labels)]
    order = mixed_order(rows, 8, seed=3)
    assert sorted(order) == list(range(len(rows)))
    for start in range(0, len(order) - 7, 8):
        step = [rows[i] for i in order[start : start + 8]]
        share = 8 * good / len(rows)
        assert abs(sum(r.label for r in step) - share) <= 1
        assert {True, False} == {r.label for r in step}
    # Prompts come two or three times; a step that could not avoid it stands at the end alone.
    doubled = [
        start
        for start in range(0, len(order), 8)
        if len({rows[i].prompt[0] for i in order[start : start + 8]})
        < len(order[start : start + 8])
    ]
    assert all(start >= len(order) - 16 for start in doubled)
    assert order != mixed_order(rows, 8, seed=4)
    assert order == mixed_order(rows, 8, seed=3)


def test_whole_steps_are_shuffled_so_that_others_stay_in_theirs():
    first, second = (epoch_order(22, 0, epoch, block=4) for epoch in (0, 1))
    assert first != second
    for order in (first, second):
        assert sorted(order) == list(range(22))
        assert order[20:] == [20, 21]
        for step in (order[start : start + 4] for start in range(0, 20, 4)):
            assert step == list(range(step[0], step[0] + 4))
            assert step[0] % 4 == 0


def test_rows_follow_from_the_settings():
    pairs = [TokenPair([i], [10 + i], [20 + i]) for i in range(8)]
    kto = TrainConfig(objective="kto", unpair=True, micro_batch_size=2, grad_accumulation_steps=2)
    rows = rows_for(pairs, kto)
    assert len(rows) == 16
    # By fours each row has the answer of the one before it in its step.
    assert [r.rejected for r in rows[:4]] == [rows[i].chosen for i in (3, 0, 1, 2)]
    in_order = kto.model_copy(update={"order": "file"})
    assert [r.chosen for r in rows_for(pairs, in_order)] == [r.chosen for r in unpaired(pairs)]
    no_kl = kto.model_copy(update={"kto_loss": "apo_zero_unpaired"})
    assert {tuple(r.rejected) for r in rows_for(pairs, no_kl)} == {()}
    assert rows_for(pairs, TrainConfig()) is pairs


def test_each_objective_refuses_what_is_not_for_it():
    with pytest.raises(DataError, match="--objective orpo needs pairs"):
        require_kind([True], TrainConfig(data="x"))
    with pytest.raises(DataError, match="found pairs") as caught:
        require_kind([False, True], TrainConfig(data="x", objective="kto"))
    assert "--unpair" in caught.value.what_to_do
    require_kind([False], TrainConfig(objective="kto", unpair=True))
    require_kind([], TrainConfig(objective="kto"))


def test_one_label_or_one_prompt_is_refused():
    kto = TrainConfig(data="x.jsonl", objective="kto")
    with pytest.raises(DataError, match=r"x.jsonl: 2 answers .* labelled as good"):
        require_both_labels([row(1, 5), row(2, 6)], kto)
    with pytest.raises(DataError, match=r"x.jsonl: 1 answer .* labelled as bad"):
        require_both_labels([row(1, 5, False)], kto)
    both = [row(1, 5), row(1, 6, False)]
    with pytest.raises(DataError, match="all to one prompt"):
        require_both_labels(both, kto)
    require_both_labels(both, kto.model_copy(update={"kto_loss": "apo_zero_unpaired"}))
    require_both_labels([*both, row(2, 5)], kto)


@pytest.mark.parametrize(
    ("good", "bad", "weights", "said"),
    [(300, 100, (1, 1), "--undesirable-weight 2.25"), (100, 300, (1, 1), "--desirable-weight 3 "),
     (100, 100, (1, 1), ""), (140, 100, (1, 1), ""), (95, 100, (1, 1), ""),
     (300, 100, (1, 2.25), ""),
     (100, 100, (2, 1), "--undesirable-weight 1.5 ")],
)  # fmt: skip
def test_weights_that_would_make_up_for_the_numbers(good, bad, weights, said):
    found = weights_note(good, bad, weights)
    assert said in found
    assert bool(found) == bool(said)
