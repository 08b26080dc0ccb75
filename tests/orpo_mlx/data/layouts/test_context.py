"""What a row says beside its turns is part of the prompt, in every layout that has turns."""

from __future__ import annotations

from typing import Any

import pytest

from orpo_mlx.data.layouts.context import SYSTEM_DIFFERS
from orpo_mlx.data.layouts.detect import LayoutChoice, detect_layout, to_pairs
from orpo_mlx.data.pipeline import Rules, iter_fates, with_layouts
from orpo_mlx.data.sources.rows import Row
from orpo_mlx.data.types import Account, PreferencePair
from orpo_mlx.errors import DataError


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


GOOD, BAD = "Blue.", "No."
SIDES = {"chosen": GOOD, "rejected": BAD}
TALKS = {"chosen": [user("Hue?"), assistant(GOOD)], "rejected": [user("Hue?"), assistant(BAD)]}
ROWS: dict[str, dict[str, Any]] = {
    "single-turn": {"instruction": "Hue?", **SIDES},
    "plain": {"prompt": "Hue?", **SIDES},
    "explicit-chat": {
        "prompt": [user("Hue?")],
        "chosen": [assistant(GOOD)],
        "rejected": [assistant(BAD)],
    },
    "implicit-chat": TALKS,
    "sharegpt-ranking": {"conversations": [{"from": "human", "value": "Hue?"}], **SIDES},
    "instruction-responses": {
        "instruction": "Hue?",
        "chosen_response": GOOD,
        "rejected_response": BAD,
    },
    "transcript": {side: f"\n\nHuman: Hue?\n\nAssistant: {text}" for side, text in SIDES.items()},
    "a-b-strength": {
        "prompt": "Hue?",
        "response_1": GOOD,
        "response_2": BAD,
        "preference_strength": -1,
    },
    "arena-talks": {
        "conversation_a": TALKS["chosen"],
        "conversation_b": TALKS["rejected"],
        "winner": "model_a",
    },
}


def pair_of(values: dict[str, Any], choice: LayoutChoice | None = None) -> PreferencePair:
    rows = [Row(values, "f:1")]
    (pair,) = to_pairs(rows, detect_layout(rows, choice), Account())
    assert isinstance(pair, PreferencePair)
    return pair


LAKE = [user("Describe a lake."), assistant("It is quiet.")]
CONTEXTS: dict[str, tuple[dict[str, Any], list[dict[str, str]]]] = {
    "history of exchanges": (
        {"history": [["Describe a lake.", "It is quiet."]]},
        [*LAKE, user("Hue?")],
    ),
    "history of messages": ({"history": LAKE}, [*LAKE, user("Hue?")]),
    "history as JSON text": (
        {"history": '[["Describe a lake.", "It is quiet."]]'},
        [*LAKE, user("Hue?")],
    ),
    "history as a transcript": (
        {"history": "\n\nHuman: Describe a lake.\n\nAssistant: It is quiet."},
        [*LAKE, user("Hue?")],
    ),
    "context": ({"context": "The lake is deep."}, [user("The lake is deep.\n\nHue?")]),
    "passages": (
        {"context": ["It is deep.", "And cold."]},
        [user("It is deep.\n\nAnd cold.\n\nHue?")],
    ),
    "system": ({"system": "Be kind."}, [system("Be kind."), user("Hue?")]),
    "system_prompt": ({"system_prompt": "Be kind."}, [system("Be kind."), user("Hue?")]),
    "system and history": (
        {"system_message": "Be kind.", "history": LAKE},
        [system("Be kind."), *LAKE, user("Hue?")],
    ),
    "nothing": ({"system_prompt": "", "history": [], "context": None}, [user("Hue?")]),
}  # fmt: skip


@pytest.mark.parametrize("layout", ROWS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_context_columns_are_part_of_the_prompt_in_every_layout(context: str, layout: str) -> None:
    columns, prompt = CONTEXTS[context]
    pair = pair_of({**ROWS[layout], **columns})
    if (layout, context) == ("plain", "nothing"):
        assert pair.prompt == "Hue?"  # text without context stays text
        return
    assert pair.prompt == prompt
    assert (pair.chosen, pair.rejected) == ([assistant(GOOD)], [assistant(BAD)])


def test_rows_that_differ_only_in_their_context_are_no_duplicates() -> None:
    rows = [
        Row({**ROWS["single-turn"], name: text}, f"f:{text}")
        for name in ("history", "context", "system_prompt")
        for text in ("One.", "Two.", "Two.")
    ]
    for start in (0, 3, 6):
        rules = Rules(512)
        fates = list(iter_fates(with_layouts([rows[start : start + 3]], rules), None, rules))
        assert [fate.dropped for fate in fates] == ["", "", "duplicate row"]


def test_what_the_turns_hold_already_is_not_said_twice() -> None:
    talk = [*LAKE, user("Hue?")]
    row = {"prompt": talk, "chosen": [assistant(GOOD)], "rejected": [assistant(BAD)]}
    assert pair_of({**row, "history": LAKE}).prompt == talk
    assert pair_of({**row, "context": "Describe a lake."}).prompt == talk
    own = {**row, "prompt": [system("Be kind."), *talk]}
    assert pair_of({**own, "system": "Be kind."}).notes == ()
    assert pair_of({**own, "system": "Be rude."}).notes == (SYSTEM_DIFFERS,)
    assert pair_of({**own, "system": "Be rude."}).prompt == [system("Be kind."), *talk]


def test_a_system_turn_alone_is_asked_what_the_context_says() -> None:
    row = {"prompt": [system("Be kind.")], "chosen": [assistant("a")], "rejected": [assistant("b")]}
    pair = pair_of({**row, "context": "It is deep."})
    assert pair.prompt == [system("Be kind."), user("It is deep.")]


@pytest.mark.parametrize("value", [7, {"title": "lakes"}, [["a", "b", "c"]], [1, 2]])
def test_context_of_an_unknown_form_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(DataError, match=r"f:1: context is .*; needed: messages") as caught:
        pair_of({**ROWS["single-turn"], "context": value})
    assert "Rename the column" in caught.value.what_to_do


@pytest.mark.parametrize("layout", ROWS)
def test_a_layout_names_what_it_does_not_use(layout: str) -> None:
    values = {**ROWS[layout], "id": 4, "label": True, "score_chosen": 2, "score_rejected": 1}
    found = detect_layout([Row(values, "f:1")])
    assert found.unused(values) == ["id", "label"]


def test_what_is_not_mapped_is_not_used() -> None:
    values = {"q": "Hue?", "good": [GOOD], "bad": BAD, "mood": "calm"}
    choice = LayoutChoice(mapping={"prompt": "q", "chosen": "good.0", "rejected": "bad"})
    assert detect_layout([Row(values, "f:1")], choice).unused(values) == ["mood"]
