"""Columns to layouts, rows to pairs, and every row accounted for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_mlx.data.layouts.detect import detect_layout, to_pairs
from orpo_mlx.data.sources.source import Row
from orpo_mlx.data.types import Account, Pair, PreferencePair, TokenPair
from orpo_mlx.errors import DataError


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def as_rows(values: list[dict[str, Any]]) -> list[Row]:
    return [Row(value, f"f.jsonl:{i}") for i, value in enumerate(values, start=1)]


def convert(*values: dict[str, Any]) -> tuple[list[Pair], Account, str]:
    rows, account = as_rows(list(values)), Account()
    layout = detect_layout(rows)
    return to_pairs(rows, layout, account), account, layout.name


def only_pair(value: dict[str, Any]) -> PreferencePair:
    pairs, _, _ = convert(value)
    assert len(pairs) == 1
    assert isinstance(pairs[0], PreferencePair)
    return pairs[0]


def refusal(*values: dict[str, Any]) -> str:
    with pytest.raises(DataError) as caught:
        convert(*values)
    assert caught.value.what_to_do
    assert len(str(caught.value).splitlines()) <= 4
    return str(caught.value)


CHAT_PAIR = PreferencePair([user("hi")], [assistant("hello")], [assistant("go away")], "f.jsonl:1")  # type: ignore[arg-type]

SAME_CHAT = {
    "explicit": {
        "prompt": [user("hi")],
        "chosen": [assistant("hello")],
        "rejected": [assistant("go away")],
    },
    "prompt repeated in the sides": {
        "prompt": [user("hi")],
        "chosen": [user("hi"), assistant("hello")],
        "rejected": [user("hi"), assistant("go away")],
    },
    "prompt repeated in one side": {
        "prompt": [user("hi")],
        "chosen": [user("hi"), assistant("hello")],
        "rejected": [assistant("go away")],
    },
    "implicit": {
        "chosen": [user("hi"), assistant("hello")],
        "rejected": [user("hi"), assistant("go away")],
    },
    "string prompt beside conversations": {
        "prompt": "hi",
        "chosen": [user("hi"), assistant("hello")],
        "rejected": [user("hi"), assistant("go away")],
    },
    "string prompt beside answers": {
        "prompt": "hi",
        "chosen": [assistant("hello")],
        "rejected": [assistant("go away")],
    },
    "null prompt beside conversations": {
        "prompt": None,
        "chosen": [user("hi"), assistant("hello")],
        "rejected": [user("hi"), assistant("go away")],
    },
    "message prompt and text sides": {
        "prompt": [user("hi")],
        "chosen": "hello",
        "rejected": "go away",
    },
    "ShareGPT names": {
        "chosen": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}],
        "rejected": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "go away"}],
    },
    "ShareGPT ranking": {
        "conversations": [{"from": "human", "value": "hi"}],
        "chosen": {"from": "gpt", "value": "hello"},
        "rejected": {"from": "gpt", "value": "go away"},
    },
    "text parts": {
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "chosen": [
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}],
            }
        ],
        "rejected": [assistant("go away")],
    },
    "question column": {"question": "hi", "chosen": "hello", "rejected": "go away"},
    "Alpaca columns, no input": {
        "instruction": "hi",
        "input": "",
        "chosen": "hello",
        "rejected": "go away",
    },
    "empty system column": {
        "system": "",
        "prompt": "hi",
        "chosen": "hello",
        "rejected": "go away",
    },
    "transcript": {
        "chosen": "\n\nHuman: hi\n\nAssistant: hello",
        "rejected": "\n\nHuman: hi\n\nAssistant: go away",
    },
}


@pytest.mark.parametrize("values", SAME_CHAT.values(), ids=SAME_CHAT.keys())
def test_the_same_chat_in_every_layout_is_the_same_pair(values: dict[str, Any]) -> None:
    assert only_pair(values) == CHAT_PAIR


def test_plain_strings_with_a_prompt_column_stay_as_they_are() -> None:
    pair = only_pair({"prompt": "Q: a\nA:", "chosen": " b ", "rejected": " c"})
    assert pair == PreferencePair("Q: a\nA:", " b ", " c", "f.jsonl:1")


@pytest.mark.parametrize(
    ("name", "values", "layout"),
    [
        (
            "explicit",
            SAME_CHAT["explicit"],
            "explicit chat (prompt, chosen, rejected as messages)",
        ),
        (
            "implicit",
            SAME_CHAT["implicit"],
            "implicit chat (chosen, rejected as whole conversations)",
        ),
        (
            "text",
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "plain text (prompt, chosen, rejected as text; no chat template)",
        ),
    ],
)
def test_the_layout_has_a_name_to_show(name: str, values: dict[str, Any], layout: str) -> None:
    assert convert(values)[2] == layout


def test_the_layout_is_decided_once_for_all_rows() -> None:
    _, account, layout = convert(
        {"prompt": "a", "chosen": None, "rejected": None},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
    )
    assert layout.startswith("plain text")
    assert account.dropped == {"missing chosen": 1}


def test_the_prompt_of_chats_without_one_is_every_turn_before_the_last() -> None:
    shared = [system("Be kind."), user("hi"), assistant("hello"), user("who are you?")]
    pair = only_pair(
        {"chosen": [*shared, assistant("a lamp")], "rejected": [*shared, assistant("a coin")]}
    )
    assert pair.prompt == shared
    assert pair.chosen == [assistant("a lamp")]
    assert pair.rejected == [assistant("a coin")]


def test_answers_that_begin_alike_keep_their_beginning() -> None:
    """The boundary is a turn, never a common run of characters."""
    pair = only_pair(
        {
            "chosen": "\n\nHuman: hi\n\nAssistant: The sky is blue",
            "rejected": "\n\nHuman: hi\n\nAssistant: The sky is black",
        }
    )
    assert pair.chosen == [assistant("The sky is blue")]
    assert pair.rejected == [assistant("The sky is black")]


def test_a_transcript_of_many_turns_is_split_before_its_last_answer() -> None:
    talk = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nwith a paragraph\n\nAssistant:"
    pair = only_pair({"chosen": f"{talk} yes", "rejected": f"{talk} no"})
    assert pair.prompt == [user("a"), assistant("b"), user("c\n\nwith a paragraph")]


def test_a_system_column_becomes_the_first_turn() -> None:
    pair = only_pair({"system": "Be kind.", "question": "hi", "chosen": "a", "rejected": "b"})
    assert pair.prompt == [system("Be kind."), user("hi")]


def test_alpaca_input_follows_the_instruction() -> None:
    pair = only_pair({"instruction": "Sort.", "input": "b a", "chosen": "a b", "rejected": "b"})
    assert pair.prompt == [user("Sort.\n\nb a")]


def test_a_prompt_column_that_differs_from_the_turns_is_noted_and_the_turns_win() -> None:
    pair = only_pair(
        {
            "prompt": "something else",
            "chosen": [user("hi"), assistant("hello")],
            "rejected": [user("hi"), assistant("go away")],
        }
    )
    assert pair.prompt == [user("hi")]
    assert pair.notes == ("prompt column differs from the turns",)


def test_token_ids_are_taken_exactly_as_they_are() -> None:
    pairs, _, _ = convert({"prompt_ids": [1, 5], "chosen_ids": [7, 2], "rejected_ids": [8]})
    assert pairs == [TokenPair([1, 5], [7, 2], [8], "f.jsonl:1")]


TURNS = [user("hi"), assistant("a")]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"prompt": " \n", "chosen": "a", "rejected": "b"}, "empty prompt"),
        ({"prompt": "p", "chosen": "", "rejected": "b"}, "empty chosen"),
        ({"prompt": "p", "chosen": "a", "rejected": " "}, "empty rejected"),
        ({"prompt": "p", "chosen": "a", "rejected": " a\n"}, "identical text"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "missing prompt"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "missing rejected"),
        ({"prompt": [], "chosen": [assistant("a")], "rejected": [assistant("b")]}, "empty prompt"),
        ({"chosen": TURNS, "rejected": TURNS}, "identical text"),
        ({"chosen": TURNS, "rejected": []}, "empty rejected"),
        ({"chosen": TURNS, "rejected": [user("ho"), assistant("b")]}, "prompts differ"),
        ({"chosen": TURNS, "rejected": [user("hi")]}, "last turn not assistant"),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "empty prompt"),
        (
            {"chosen": [*TURNS, assistant("b")], "rejected": [*TURNS, assistant("c")]},
            "prompt ends with an assistant turn",
        ),
        (
            {"prompt": [user("x")], "chosen": TURNS, "rejected": [user("hi"), assistant("b")]},
            "prompts differ",
        ),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant:"},
            "empty rejected",
        ),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "note\n\nHuman: a"},
            "text before the first turn",
        ),
        ({"prompt_ids": [1], "chosen_ids": [], "rejected_ids": [2]}, "empty chosen"),
    ],
)
def test_dirty_rows_are_dropped_with_a_reason(values: dict[str, Any], reason: str) -> None:
    pairs, account, _ = convert(values)
    assert pairs == []
    assert account.dropped == {reason: 1}
    assert account.offenders == {reason: ["f.jsonl:1"]}


def test_unknown_columns_are_listed_with_the_layouts() -> None:
    message = refusal({"q": "a", "a": "b", "b": "c"})
    assert "Columns found: a, b, q" in message
    assert "prompt + chosen + rejected as text" in message


def test_plain_text_without_a_prompt_is_never_split_by_characters() -> None:
    message = refusal({"chosen": "The stone is blue today", "rejected": "The stone is black"})
    assert "Columns found: chosen, rejected" in message
    assert "where the prompt of plain text ends" in message


def test_two_prompt_columns_are_an_error_not_a_guess() -> None:
    message = refusal({"prompt": "a", "question": "b", "chosen": "c", "rejected": "d"})
    assert "prompt and question" in message


@pytest.mark.parametrize("prompt", ["p", None])
def test_sides_of_different_kinds_name_both(prompt: str | None) -> None:
    message = refusal({"prompt": prompt or "p", "chosen": "a", "rejected": [assistant("b")]})
    assert "f.jsonl:1: chosen is text, rejected is a list" in message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "chosen[1].content is null"),
        (3, "chosen[1].content is a number"),
        ([{"type": "image", "url": "x"}], "chosen[1].content[0] is a part of type 'image'"),
        (["text"], "chosen[1].content[0] is a part of type None"),
    ],
)
def test_content_that_is_no_text_is_named(content: Any, found: str) -> None:
    message = refusal(
        {"chosen": [user("hi"), {"role": "assistant", "content": content}], "rejected": TURNS}
    )
    assert f"f.jsonl:1: {found}" in message


def test_an_unknown_role_is_named_with_the_known_ones() -> None:
    message = refusal({"chosen": [user("hi"), {"role": "bot", "content": "a"}], "rejected": TURNS})
    assert "f.jsonl:1: chosen[1].role is 'bot'; known roles: system, user" in message


@pytest.mark.parametrize("bad", [-1, 2**40, True, 1.0, "7"])
def test_what_is_no_token_id_is_named(bad: Any) -> None:
    message = refusal({"prompt_ids": [1, bad], "chosen_ids": [1], "rejected_ids": [2]})
    assert "f.jsonl:1: prompt_ids[1] is" in message


def test_the_first_three_rows_of_a_wrong_type_are_shown_with_the_count() -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    message = refusal(good, *[{"prompt": "p", "chosen": i, "rejected": 2} for i in range(4)])
    assert [line.split(":")[1] for line in message.splitlines()[:3]] == ["2", "3", "4"]
    assert "4 such rows in all" in message


side = st.one_of(
    st.none(),
    st.lists(st.sampled_from([user("hi"), user(""), assistant("a"), assistant("b"), system("s")])),
)


@given(st.lists(st.fixed_dictionaries({"chosen": side, "rejected": side}), max_size=12))
def test_read_is_what_is_left_plus_what_was_dropped(values: list[dict[str, Any]]) -> None:
    rows = as_rows([{"chosen": TURNS, "rejected": [user("hi"), assistant("b")]}, *values])
    account = Account()
    pairs = to_pairs(rows, detect_layout(rows), account)
    assert account.read == len(rows) == len(pairs) + sum(account.dropped.values())
    for pair in pairs:
        assert isinstance(pair, PreferencePair)
        assert pair.prompt
        assert pair.chosen != pair.rejected
