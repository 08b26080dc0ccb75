"""Of a judge's replies only a plain verdict counts."""

from __future__ import annotations

import pytest

from orpo_mlx.judging.instruction import question, read_verdict


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("A", "first"), (" B\n", "second"), ("c", "tie"), ("**A**", "first"), ("[[B]]", "second"),
        ("(C)", "tie"), ("A.", "first"), ("B: it is right.", "second"), ("Answer: A", "first"),
        ("Answer B is better.", "second"), ("The better answer is A.", "first"),
        ("Verdict: **C**\nbecause both ...", "tie"), ("`B`", "second"), ("answer_A", "first"),
        ("<think>A, or B? B.</think>\n\nA", "first"), ("A is better, since", "first"),
        ("", "none"), ("A good question!", "none"), ("Both answers are fine.", "none"),
        ("AB", "none"), ("D", "none"), ("I think A", "none"), ("<think>A", "none"),
        ("Certainly", "none"), ("Because A", "none"), ("A or B", "none"), ("...", "none"),
        ("A, B, or C", "none"), ("A, B", "none"), ("A, or B", "none"),
        ("**A**, **B** or C", "none"),
        ("A, because B is wrong", "first"), ("B, a clear answer", "second"),
    ],
)  # fmt: skip
def test_a_verdict_is_told_from_other_words(reply, wanted):
    assert read_verdict(reply) == wanted


def test_the_question_holds_all_three_texts_in_their_order():
    asked = question("Why {x}?", "one {y}", "two")
    assert asked.index("Why {x}?") < asked.index("one {y}") < asked.index("\ntwo\n")
