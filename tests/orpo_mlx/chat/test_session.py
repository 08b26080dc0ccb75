"""A chat without a model: what each line asks for, what becomes of what was said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.chat.feedback import labelled_file, pairs_file
from orpo_mlx.chat.prompt_set import saved_prompts_file
from orpo_mlx.chat.session import ChatSession
from orpo_mlx.data.layouts.detect import detect_layout
from orpo_mlx.data.sources.source import read_rows
from orpo_mlx.errors import ConfigError, DataError, OrpoError

READY = {
    "event": "ready", "model": "tiny", "checkpoints": ["10", "final"], "checkpoint": "final",
    "chat": True, "memory_bytes": 5,
}  # fmt: skip


@pytest.fixture
def session() -> ChatSession:
    made = ChatSession("run-a")
    made.apply(READY)
    return made


def answer(session: ChatSession, ended: bool = True, **texts: str) -> None:
    """What the playground says at the end of an answer."""
    sides = {side: {"text": text, "tokens": 2, "ended": ended} for side, text in texts.items()}
    session.apply({"event": "answered", "sides": sides})


def asked(session: ChatSession, line: str, **texts: str) -> dict[str, Any]:
    """Say a line, be answered, and return the request that went out."""
    request = session.take(line).request
    assert request is not None
    answer(session, **(texts or {"base": f"B on {line}", "adapter": f"A on {line}"}))
    return request


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_a_conversation_goes_on_with_the_adapters_answer_or_the_better_one(session: ChatSession):
    first = asked(session, "One")
    assert first["turns"] == [user("One")]
    assert first["sides"] == ["base", "adapter"]
    assert asked(session, "Two")["turns"] == [user("One"), said("A on One"), user("Two")]
    session.take("/better left")
    turns = asked(session, "Three")["turns"]
    assert turns[-2:] == [said("B on Two"), user("Three")]
    session.take("/correct So it is.")
    assert asked(session, "Four")["turns"][-2:] == [said("So it is."), user("Four")]


def test_a_cut_answer_says_why_and_what_to_do(session: ChatSession):
    assert session.cut == ""
    session.take("/max-tokens 9")
    session.take("Hi")
    assert session.cut == ""
    stopped = {"text": "B", "tokens": 3, "ended": False, "is_full": False}
    ended = {"text": "A", "tokens": 9, "ended": True, "is_full": True}
    session.apply({"event": "answered", "sides": {"base": stopped, "adapter": ended}})
    assert session.cut == ""
    session.take("/max-tokens 20")  # of later answers
    session.apply({"event": "answered", "sides": {"base": {**stopped, "tokens": 9}}})
    assert session.cut == "cut after 9 tokens; /max-tokens allows more"
    session.apply({"event": "answered", "sides": {"base": {**stopped, "is_full": True}}})
    assert session.cut.startswith("cut: the model's context is full")


def test_how_answers_are_drawn_is_part_of_the_request(session: ChatSession):
    for line in ("/temperature 0.3", "/seed 7", "/max-tokens 9", "/base", "/system Be brief."):
        assert session.take(line).text
    request = asked(session, "Hi", base="Yo")
    drawn = {name: request[name] for name in ("temperature", "seed", "max_tokens", "sides")}
    assert drawn == {"temperature": 0.3, "seed": 7, "max_tokens": 9, "sides": ["base"]}
    assert request["turns"][0] == {"role": "system", "content": "Be brief."}
    session.take("/system")
    assert asked(session, "Ho", base="Yo")["turns"][0] == user("Hi")


def test_the_last_turn_is_said_in_other_words_or_answered_again(session: ChatSession):
    asked(session, "One")
    asked(session, "Tow")
    turns = [user("One"), said("A on One"), user("Two")]
    assert asked(session, "/edit Two")["turns"] == turns
    again = asked(session, "/retry", base="b", adapter="a")
    assert (again["turns"], again["seed"]) == (turns, 1)
    session.take("/temperature 0")
    asked(session, "/retry", base="b", adapter="a")  # the last one was drawn
    with pytest.raises(OrpoError, match="would be the same"):
        session.take("/retry")


def test_an_earlier_turn_is_said_in_other_words_and_what_followed_is_dropped(session: ChatSession):
    for text in ("One", "Two", "Three"):
        asked(session, text)
    with pytest.raises(DataError, match="no turn 4") as refused:
        session.take("/edit #4 x")
    assert "#1 One, #2 Two, #3 Three" in refused.value.what_to_do
    with pytest.raises(ConfigError, match="needs TEXT") as refused:
        session.take("/edit #2")
    assert "/edit #2 Two" in refused.value.what_to_do
    request = asked(session, "/edit #2 So?\nOr so?")
    assert request["turns"] == [user("One"), said("A on One"), user("So?\nOr so?")]
    assert session.edit_line() == "/edit #2 So?\nOr so?"
    assert asked(session, "/edit #1 First")["turns"] == [user("First")]
    assert [exchange.user for exchange in session.talk.exchanges] == ["First"]


def test_an_edited_turn_that_fails_brings_back_what_it_dropped(session: ChatSession):
    asked(session, "One")
    asked(session, "Two")
    session.take("/edit #1 Bad")
    session.apply({"event": "failed", "message": "it is refused", "what_to_do": "Change it."})
    assert session.unsent == "/edit #1 Bad"
    assert [exchange.user for exchange in session.talk.exchanges] == ["One", "Two"]
    session.take("Three")
    session.apply({"event": "failed", "message": "it is refused", "what_to_do": "Change it."})
    assert session.unsent == "Three"
    assert [exchange.user for exchange in session.talk.exchanges] == ["One", "Two"]


def test_a_turn_without_an_answer_makes_room_for_the_next(session: ChatSession):
    session.take("Stopped")
    answer(session, ended=False, base="", adapter="")
    assert asked(session, "Next")["turns"] == [user("Next")]


def test_a_failure_gives_the_turn_back(session: ChatSession):
    asked(session, "One")
    session.take("Two")
    session.apply({"event": "failed", "message": "it is refused", "what_to_do": "Change it."})
    assert (session.failed, session.unsent) == ("it is refused. Change it.", "Two")
    assert not session.is_busy
    assert [exchange.user for exchange in session.talk.exchanges] == ["One"]


def test_nothing_is_asked_while_an_answer_is_made_or_nobody_is_there(session: ChatSession):
    with pytest.raises(OrpoError, match="not loaded"):
        ChatSession().take("Hi")
    session.take("Hi")
    for line in ("Ho", "/edit Ho", "/retry", "/like", "/checkpoint 10", "/new", "/system x"):
        with pytest.raises(OrpoError, match="is answering"):
            session.take(line)
    assert session.take("/seed 3").text == "Seed 3."
    answer(session, base="x")
    assert session.is_busy  # the other side is still at it
    answer(session, adapter="y")
    assert not session.is_busy


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/tempratur 1", "Did you mean temperature"),
        ("/", "no such command"),
        ("/temperature", "needs X"),
        ("/temperature hot", "not a number"),
        ("/temperature nan", "not a number"),
        ("/temperature 11", "not a number"),
        ("/seed -1", "not a whole number"),
        ("/seed 99999999999999999999", "not a whole number"),
        ("/seed ²", "not a whole number"),
        ("/seed 00000000000099999999999", "not a whole number"),
        ("/max-tokens 0", "not a whole number from 1"),
        ("/better up", "neither left nor right"),
        ("/like it", "takes nothing"),
        ("/checkpoint 11", "there is none"),
        ("/like", "Nothing was said"),
        ("/correct x", "Nothing was said"),
        ("/edit x", "Nothing was said"),
        ("/keep", "no prompt"),
        ("/save x.md", "nothing to save"),
        ("  ", "nothing to answer"),
    ],
)
def test_a_line_that_makes_no_sense_changes_nothing(session: ChatSession, line: str, message: str):
    before = (session.drawing, session.sides, len(session.talk.exchanges))
    with pytest.raises(OrpoError, match=message) as caught:
        session.take(line)
    assert caught.value.what_to_do
    assert (session.drawing, session.sides, len(session.talk.exchanges)) == before


def test_a_turn_may_begin_with_a_slash(session: ChatSession):
    assert asked(session, "//etc is what?")["turns"] == [user("/etc is what?")]


def test_a_model_alone_answers_as_the_base():
    session = ChatSession()
    session.apply({**READY, "checkpoints": [], "checkpoint": None})
    assert asked(session, "Hi", base="Yo")["sides"] == ["base"]
    with pytest.raises(OrpoError, match="no adapter"):
        session.take("/both")


def test_another_checkpoint_is_asked_for_once(session: ChatSession):
    assert session.take("/checkpoint 10").request == {"op": "checkpoint", "name": "10"}
    assert session.is_busy
    session.apply({"event": "loaded", "checkpoint": "10"})
    assert not session.is_busy
    asked(session, "Hi")
    session.take("/better right")
    assert rows(pairs_file())[0]["provenance"]["checkpoint"] == "10"


# What is said of answers


def test_the_better_of_two_answers_is_a_pair_on_the_same_turns(session: ChatSession):
    asked(session, "One")
    asked(session, "Two")
    session.take("/better right")
    (row,) = rows(pairs_file())
    assert row["prompt"] == [user("One"), said("A on One"), user("Two")]
    assert row["chosen"] == [said("A on Two")]
    assert row["rejected"] == [said("B on Two")]
    assert row["provenance"]["run"] == "run-a"


def test_rows_are_in_layouts_that_a_training_reads(session: ChatSession):
    asked(session, "One")
    session.take("/better left")
    session.take("/adapter")
    asked(session, "Two", adapter="No.")
    session.take("/dislike")
    for path, name in ((pairs_file(), "explicit chat"), (labelled_file(), "labelled chat")):
        found = list(read_rows(str(path)))
        layout = detect_layout(found)
        assert layout.name.startswith(name)
        pair: Any = layout.to_pair(found[0])
        assert pair.prompt[0] == user("One")
    assert pair.label is False
    assert pair.chosen == [said("No.")]


def test_an_opinion_is_changed_or_taken_back(session: ChatSession):
    session.take("/adapter")
    asked(session, "One", adapter="A")
    session.take("/like")
    assert [row["label"] for row in rows(labelled_file())] == [True]
    assert session.talk.exchanges[0].opinion == "Liked"
    session.take("/dislike")
    assert [row["label"] for row in rows(labelled_file())] == [False]
    assert session.take("/dislike").text == "Taken back."
    assert rows(labelled_file()) == []
    assert session.talk.exchanges[0].opinion == ""


def test_a_corrected_answer_is_better_than_the_original(session: ChatSession):
    asked(session, "One")
    session.take("/better left")
    session.take("/correct It is one.")
    (row,) = rows(pairs_file())  # in place of the other opinion
    assert row["chosen"] == [said("It is one.")]
    assert row["rejected"] == [said("B on One")]
    session.take("/correct It is 1.")
    (row,) = rows(pairs_file())
    assert row["chosen"] == [said("It is 1.")]
    with pytest.raises(OrpoError, match="is corrected"):
        session.take("/better right")
    session.take("/correct")
    assert rows(pairs_file()) == []
    assert asked(session, "Two")["turns"][1] == said("A on One")


def test_what_nothing_can_be_learned_of_is_refused(session: ChatSession):
    asked(session, "One", base="same", adapter=" same")
    with pytest.raises(OrpoError, match="identical text"):
        session.take("/better left")
    with pytest.raises(OrpoError, match="identical text"):
        session.take("/correct same")
    assert session.talk.last is not None
    assert (session.talk.last.preferred, session.talk.last.correction) == (None, "")
    with pytest.raises(OrpoError, match="two answers"):
        session.take("/like")
    session.take("/adapter")
    asked(session, "Two", adapter="A")
    with pytest.raises(OrpoError, match="two are needed"):
        session.take("/better left")
    session.take("Three")
    answer(session, ended=False, adapter="It is a")
    with pytest.raises(OrpoError, match="learn to end there"):
        session.take("/like")
    session.take("/dislike")
    assert [row["label"] for row in rows(labelled_file())] == [False]
    assert not pairs_file().exists()


def test_without_a_chat_template_rows_are_text_in_a_file_of_their_own(session: ChatSession):
    session.apply({**READY, "chat": False})
    asked(session, "Once", base=" in", adapter=" upon")
    asked(session, " a", base=" day", adapter=" time")
    session.take("/better right")
    (row,) = rows(pairs_file(is_chat=False))
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Once upon a", " time", " day")
    assert not pairs_file().exists()
    with pytest.raises(OrpoError, match="no chat template"):
        session.take("/system Be brief.")


def test_a_file_that_cannot_be_written_is_said_and_nothing_is_marked(session: ChatSession):
    asked(session, "One")
    pairs_file().parent.parent.mkdir()
    pairs_file().parent.write_text("a file where the folder should be")
    with pytest.raises(OrpoError, match="cannot be written"):
        session.take("/better left")
    assert session.talk.exchanges[0].opinion == ""


# Files


def test_a_prompt_is_kept_once_with_the_turns_before_it(session: ChatSession):
    asked(session, "One")
    assert session.take("/keep").text.startswith("Kept: 1 prompt in ")
    asked(session, "Two")
    session.take("/keep")
    assert session.take("/keep").text.startswith("It is there already: 2 prompts")
    first, second = rows(saved_prompts_file())
    assert first == {"prompt": "One"}
    assert second == {"prompt": [user("One"), said("A on One"), user("Two")]}


def test_the_kept_prompts_are_asked_and_told_by_step(session: ChatSession):
    with pytest.raises(OrpoError, match="no prompts are kept yet"):
        session.take("/ask")
    asked(session, "One")
    session.take("/keep")
    request = session.take("/ask").request
    assert request == {"op": "ask", "prompts": [[user("One")]], "max_tokens": 512}
    with pytest.raises(OrpoError, match="is answering"):
        session.take("Two")
    session.apply({"event": "asking", "done": 1, "total": 3, "label": "asking 10"})
    assert session.occupied == "asking 10, 1 of 3"
    given = {"base": {"text": " No.\n", "ended": True}, "10": {"text": "Ye", "ended": False}}
    session.apply({"event": "asked", "sides": [*given], "answers": [given]})
    assert session.report.splitlines() == [
        "prompt 1 of 1  One", "  base      No.", "  step 10   Ye [cut]",
    ]  # fmt: skip
    assert not session.is_busy
    saved_prompts_file().write_text("{}\n")
    with pytest.raises(OrpoError, match="prompt is null"):
        session.take("/ask")
    assert not session.is_busy


def test_a_conversation_is_saved_to_read_and_to_work_with(session: ChatSession, tmp_path: Path):
    session.take("/system Be brief.")
    asked(session, "One")
    session.take("/better left")
    session.take(f"/save {tmp_path / 'talk.md'}")
    asked(session, "Two")
    session.take(f"/save {tmp_path / 'talk.md'}")  # again: it is this conversation's own
    text = (tmp_path / "talk.md").read_text()
    assert text.index("Be brief.") < text.index("**Base** (better)\n\nB on One")
    assert text.endswith("**Adapter**\n\nA on Two\n")
    session.take(f"/save {tmp_path / 'talk.json'}")
    content = json.loads((tmp_path / "talk.json").read_text())
    assert content["run"] == "run-a"
    assert content["exchanges"][0]["preferred"] == "base"
    assert content["exchanges"][1]["answers"] == {"base": "B on Two", "adapter": "A on Two"}
    session.take("/new")
    asked(session, "Three")
    for name, message in (("talk.md", "exists"), ("talk.txt", "written as"), ("no/x.md", "cannot")):
        with pytest.raises(OrpoError, match=message):
            session.take(f"/save {tmp_path / name}")
    assert (tmp_path / "talk.md").read_text() == text


@pytest.mark.parametrize("name", ["x" * 300 + ".md", "a\0b.md", "~nobody-here/x.md", "/proc/x.md"])
def test_a_name_that_no_file_can_have_costs_the_command_and_not_the_chat(
    session: ChatSession, name: str
):
    asked(session, "One")
    with pytest.raises(DataError, match="cannot be written"):
        session.take(f"/save {name}")
    assert session.talk.exchanges


def test_what_is_said_of_an_answer_goes_with_the_system_prompt_it_was_given_under(
    session: ChatSession,
):
    asked(session, "One")
    session.take("/system Be brief.")
    session.take("/better left")
    session.take("/keep")
    assert rows(pairs_file())[0]["prompt"] == [user("One")]
    assert rows(saved_prompts_file()) == [{"prompt": "One"}]
    turns = asked(session, "Two")["turns"]
    assert turns[0] == {"role": "system", "content": "Be brief."}


def test_half_a_character_does_no_harm(session: ChatSession):
    asked(session, "One\udcff", base="B", adapter="A")
    session.take("/better left")
    assert rows(pairs_file())[0]["prompt"] == [user("One?")]
