"""Bars are drawn where the numbers are, and all of a result fits the window."""

from __future__ import annotations

import pytest

from orpo_mlx.runs.evaluation import Measured, RunEvaluation
from tui.result.facts import AnswerPair, ResultFacts
from tui.result.texts import result_lines, result_sentence


def facts(**changes) -> ResultFacts:
    number = Measured(0.5, 0.25, 0.75)
    row = {"base": number, "adapter": Measured(1.0, 1.0, 1.0), "difference": number}
    kept = RunEvaluation(
        "no difference could be shown", False, 20, 20,
        {"preference_accuracy": row, "chosen_nll": row, "reward_margin": row}, number, [], [],
    )  # fmt: skip
    given = {
        "status": "completed", "evaluation": kept, "problem": "", "why_none": "", "report": None,
        "answers": (AnswerPair("p\x1b[2J" * 99, "word " * 200, ""),), **changes,
    }  # fmt: skip
    return ResultFacts(**given)


@pytest.mark.parametrize("width", [20, 77, 157])
def test_no_line_is_wider_than_the_window(width):
    lines = [
        "".join(text for _, text in line) for line in result_lines(facts(), width, "ascii", {})
    ]
    assert any("No difference could be shown." in line for line in lines) or width == 20
    assert any("Reward margin" in line for line in lines)
    assert "\x1b" not in "".join(lines)
    if width >= 77:
        assert max(map(len, lines)) <= width


def test_the_sentence_has_the_verdict_or_why_there_is_none():
    assert result_sentence("r", facts()) == (
        "Result of r: no difference could be shown. Drift is 0.500 nats per token."
    )
    none = facts(evaluation=None, why_none="It was not asked for.")
    assert result_sentence("r", none) == "Result of r: not known. It was not asked for."


def test_comparing_is_offered_only_where_it_can_be_done():
    def shown(**changes) -> str:
        lines = result_lines(facts(evaluation=None, why_none="Why.", **changes), 77, "ascii", {})
        return "\n".join(text for line in lines for _, text in line)

    assert "v compares base and adapter now" in shown()
    assert "compares base and adapter now" not in shown(can_compare=False)


@pytest.mark.parametrize(
    ("after", "title"),
    [("other", "Answers that differ most"), ("same", "Answers, word for word the same")],
)
def test_answers_that_do_not_differ_are_not_said_to(after, title):
    found = facts(answers=(AnswerPair("Hi", "same", after), AnswerPair("Ho", "same", "same")))
    shown = [text for line in result_lines(found, 77, "ascii", {}) for _, text in line]
    assert title in shown
    assert len([text for text in shown if text.startswith("Answers")]) == 1
