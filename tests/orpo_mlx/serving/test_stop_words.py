"""An answer ends where a word of the request begins, wherever its tokens lie."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from orpo_mlx.serving.stop_words import end_at


@dataclass
class Piece:
    text: str
    token: int = 0
    finish_reason: str | None = None


def pieces(*texts: str, end: str = "length") -> list[Piece]:
    made = [Piece(text, number) for number, text in enumerate(texts)]
    made[-1].finish_reason = end
    return made


@pytest.mark.parametrize(
    "texts", [["A cat goes, a cat"], ["A", " c", "at", " goes"], list("A cat goes")]
)
@pytest.mark.parametrize(
    ("words", "kept"),
    [(["cat"], "A "), (["at", "cat"], "A "), ([" cat goes", "A c"], ""), (["t"], "A ca")],
)  # fmt: skip
def test_the_text_ends_before_the_first_of_the_words(texts, words, kept):
    *before, last = end_at(words, pieces(*texts))
    assert "".join(piece.text for piece in before) == kept
    assert (last.text, last.finish_reason) == ("", "stop")


def test_without_the_word_all_comes_as_it_was_the_beginnings_of_words_too():
    given = pieces("no", " ca", " c", "a")
    assert list(end_at(["cat"], given)) == given


def test_what_can_begin_no_word_is_not_held_back_and_no_token_is_lost():
    told = []

    def answer():
        for piece in pieces("one", " two", " th", "ree", " four"):
            told.append(piece.token)
            yield piece

    found = end_at(["three"], answer())
    assert next(found).text == "one"
    assert told == [0, 1]
    assert [(piece.token, piece.text) for piece in found] == [(1, " two"), (2, " "), (3, "")]
