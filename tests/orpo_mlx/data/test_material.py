"""What pairs can be made of is told by the columns, and read with every row accounted for."""

from __future__ import annotations

from typing import Any

import pytest

from orpo_mlx.data.material import Material, read_material
from orpo_mlx.data.questions import Kind, Question
from orpo_mlx.data.sources import Row
from orpo_mlx.errors import DataError


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
    assert material.questions == [Question([user("hi")], ("hello",), (), "f:1")]  # type: ignore[list-item]


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
    assert material.questions == [Question([user("hi")], ("a", "b"), (1, 2), "f:1")]  # type: ignore[list-item]


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
