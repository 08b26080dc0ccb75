"""What pairs can be made of is told by the columns, and read with every row accounted for."""

from __future__ import annotations

from typing import Any

import pytest

from orpo_mlx.data.sources.source import Row
from orpo_mlx.errors import DataError
from orpo_mlx.preferences.material import Material, read_material
from orpo_mlx.preferences.questions import Kind, PromptAnswers


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(*values: dict[str, Any], kind: Kind | None = None, **rest: Any) -> Material:
    rows = [Row(value, f"f:{i}") for i, value in enumerate(values, start=1)]
    material = read_material(rows, kind, **rest)
    account = material.account
    assert account.read == len(rows) == account.kept + sum(account.dropped.values())
    return material


SFT = {
    "prompt and response": {"prompt": "hi", "response": "hello"},
    "prompt and completion": {"prompt": "hi", "completion": "hello"},
    "Alpaca": {"instruction": "hi", "input": "", "output": "hello"},
    "question and answer": {"question": "hi", "answer": "hello"},
    "messages": {"messages": [user("hi"), assistant("hello")]},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    },
    "messages on both sides": {"prompt": [user("hi")], "completion": [assistant("hello")]},
}  # fmt: skip


@pytest.mark.parametrize("values", SFT.values(), ids=SFT.keys())
def test_supervised_data_in_every_form_is_one_question(values: dict[str, Any]) -> None:
    material = read(values)
    assert material.kind == "answers"
    assert material.questions == [PromptAnswers([user("hi")], ("hello",), (), "f:1")]  # type: ignore[list-item]


RATED = {
    "lists side by side": {"prompt": "hi", "responses": ["a", "b"], "scores": [1, 2]},
    "ratings as text": {"prompt": "hi", "generations": ["a", "b"], "ratings": ["1", "2"]},
    "objects": {
        "instruction": "hi",
        "completions": [
            {"response": "a", "overall_score": 1},
            {"response": "b", "overall_score": 2},
        ],
    },
    "JSON text": {"prompt": "hi", "responses": '["a", "b"]', "scores": "[1, 2]"},
}


@pytest.mark.parametrize("values", RATED.values(), ids=RATED.keys())
def test_rated_answers_in_every_form_are_one_question(values: dict[str, Any]) -> None:
    material = read(values)
    assert material.kind == "ratings"
    assert material.questions == [PromptAnswers([user("hi")], ("a", "b"), (1, 2), "f:1")]  # type: ignore[list-item]


def test_of_ranks_one_is_the_best() -> None:
    (question,) = read({"prompt": "hi", "answers": ["a", "b"], "ranks": [2, 1]}).questions
    assert question.scores == (-2, -1)


def test_of_ranks_one_is_the_best_in_rows_of_one_answer_too() -> None:
    rows = ({"prompt": "hi", "response": text, "rank": n} for text, n in (("a", 2), ("b", 1)))
    (question,) = read(*rows, score="rank").questions
    assert question.scores == (-2, -1)


def test_rows_with_one_rating_each_are_gathered_by_prompt() -> None:
    material = read(
        {"prompt": "hi", "response": "a", "helpfulness": 1},
        {"prompt": "ho", "response": "c", "helpfulness": 3},
        {"prompt": "hi", "response": "b", "helpfulness": 2},
        score="helpfulness",
    )
    assert material.kind == "ratings"
    assert [(q.answers, q.scores) for q in material.questions] == [
        (("a", "b"), (1, 2)),
        (("c",), (3,)),
    ]


def test_prompts_alone_may_be_text_or_turns() -> None:
    assert read({"prompt": "hi"}).kind == "prompts"
    material = read({"messages": [user("a"), assistant("b"), user("c")]})
    assert (material.kind, len(material.questions[0].prompt)) == ("prompts", 3)


def test_answers_without_scores_are_candidates_without_the_same_ones() -> None:
    material = read(
        {"prompt": "p", "responses": ["a", "b", "a"]}, {"prompt": "q", "responses": ["c"]}
    )
    assert material.kind == "candidates"
    assert [q.answers for q in material.questions] == [("a", "b")]
    assert material.account.dropped == {"fewer than two different answers": 1}


def test_plain_prompts_are_text() -> None:
    assert read({"prompt": "Q:", "response": " a"}, is_plain=True).questions[0].prompt == "Q:"


def test_a_system_column_is_the_first_turn() -> None:
    (question,) = read({"system": "Be kind.", "prompt": "hi", "response": "a"}).questions
    assert question.prompt[0] == {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"prompt": "p", "response": " "}, "empty answer"),
        ({"prompt": " ", "response": "a"}, "empty prompt"),
        ({"prompt": None, "response": "a"}, "missing prompt"),
        ({"prompt": "p", "response": None}, "missing response"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1]},
         "answers and scores differ in number"),
        ({"prompt": "p", "responses": ["a"], "scores": [None]}, "no answer with a score"),
        ({"messages": [assistant("a")]}, "empty prompt"),
    ],
)  # fmt: skip
def test_dirty_rows_are_dropped_with_a_reason(values: dict[str, Any], reason: str) -> None:
    assert read(values).account.dropped == {reason: 1}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"q": "a"}, "no pairs can be made of these columns: q"),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "these are pairs already"),
        ({"prompt": "p", "question": "q"}, "two columns could be the prompt"),
        ({"prompt": "p", "messages": [user("a")], "output": "b"}, "could hold the answers"),
        ({"prompt": "p", "response": 3}, "f:1: response is a number"),
        ({"prompt": "p", "responses": [3], "scores": [1]}, "f:1: responses[0] is a number"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(values: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        read(values)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4


# Columns that say how good an answer is

KTO = [("good", True), ("bad", False)]
LABELLED = {
    "label": [{"prompt": "hi", "completion": text, "label": mark} for text, mark in KTO],
    "kto_tag": [
        {"instruction": "hi", "input": "", "output": text, "kto_tag": mark} for text, mark in KTO
    ],
    "words": [
        {"prompt": "hi", "completion": "good", "label": "Desirable"},
        {"prompt": "hi", "completion": "bad", "label": "undesirable"},
    ],
    "messages": [{"messages": [user("hi"), assistant(text)], "label": mark} for text, mark in KTO],
    "ShareGPT": [
        {
            "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": text}],
            "kto_tag": str(mark).lower(),
        }
        for text, mark in KTO
    ],
    "score": [{"prompt": "hi", "response": text, "score": 3 + mark} for text, mark in KTO],
}


@pytest.mark.parametrize("rows", LABELLED.values(), ids=LABELLED.keys())
def test_what_a_row_says_of_its_answer_orders_the_answers(rows: list[dict[str, Any]]) -> None:
    material = read(*reversed(rows))
    assert material.kind == "ratings"
    (question,) = material.questions
    assert question.prompt == [user("hi")]
    assert question.answers == ("bad", "good")
    assert question.scores[0] < question.scores[1]


@pytest.mark.parametrize("rows", list(LABELLED.values())[:5], ids=list(LABELLED)[:5])
def test_an_answer_marked_as_bad_is_never_a_good_one(rows: list[dict[str, Any]]) -> None:
    material = read(*rows, kind="answers")
    assert [question.answers for question in material.questions] == [("good",)]
    assert material.account.dropped == {"answer marked as bad": 1}


def test_labels_that_say_nothing_known_are_counted() -> None:
    rows = [{"prompt": "hi", "completion": "a", "label": label} for label in ("odd", 1, 0, -1)]
    account = read(*rows, kind="answers").account
    assert account.dropped == {"label is neither good nor bad": 1, "answer marked as bad": 2}


@pytest.mark.parametrize("names", [("helpful_score",), ("label", "score"), ("reward",)])
def test_columns_that_may_judge_the_answers_are_asked_about(names: tuple[str, ...]) -> None:
    row = {"prompt": "hi", "response": "hello", **dict.fromkeys(names, 1)}
    with pytest.raises(DataError, match="could say how good the answers are") as caught:
        read(row)
    assert f"--score {names[0]}" in caught.value.what_to_do
    assert "--from answers" in caught.value.what_to_do
    assert read(row, kind="answers").account.kept == 1


@pytest.mark.parametrize("name", ["rejected", "rejected_response", "rejected_completion"])
def test_a_worse_answer_that_is_there_is_not_written_anew(name: str) -> None:
    with pytest.raises(DataError, match=f"{name} is there, so these are pairs already"):
        read({"prompt": "hi", "response": "hello", name: "what"})


def test_columns_that_hold_nothing_judge_nothing() -> None:
    row = {"prompt": "hi", "response": "hello", "score": None, "rejected": "", "rating": ""}
    assert read(row).kind == "answers"
