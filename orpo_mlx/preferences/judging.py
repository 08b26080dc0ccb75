"""A human compares answers: which comparison comes next, and what the verdicts so far say.

Pure bookkeeping; keys and screen are in `cli/data/judge_terminal.py`. For each prompt the winner so
far meets the next answer; which of both is shown on the left is drawn by seed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orpo_mlx.data.types import Drop, PreferencePair
from orpo_mlx.preferences.questions import PromptAnswers
from orpo_mlx.preferences.ranking import make_pair

Verdict = Literal["left", "right", "tie", "skip"]
VERDICTS = ("left", "right", "tie", "skip")
UNDO = "undo"


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, as they are shown.

    Attributes:
        number: 0-based, among all comparisons.
        question: position of the prompt.
        left, right: positions of the answers.
    """

    number: int
    question: int
    left: int
    right: int


class Judging:
    """All comparisons there are, and the verdicts so far.

    Args:
        questions: each with at least two answers.
        seed: of the order of the prompts and of left and right.
        entries: verdicts as they were recorded, to go on from.
    """

    def __init__(
        self, questions: Sequence[PromptAnswers], seed: int, entries: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.questions = questions
        self.seed = seed
        order = sorted(range(len(questions)), key=lambda i: _draw(seed, "order", i))
        self._meetings = [(q, n) for q in order for n in range(1, len(questions[q].answers))]
        self.verdicts: list[Verdict] = []
        for entry in entries:
            self.take(entry.get("verdict"))

    @property
    def total(self) -> int:
        """Comparisons in all."""
        return len(self._meetings)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to compare."""
        return len(self.verdicts) >= self.total

    def take(self, verdict: Any) -> None:
        """Take a verdict, or "undo" for the one before."""
        if verdict == UNDO:
            self.verdicts = self.verdicts[:-1]
        elif verdict in VERDICTS and not self.is_done:
            self.verdicts.append(verdict)

    def current(self) -> Comparison:
        """Return the comparison that waits for a verdict."""
        return self._comparison(len(self.verdicts))

    def entry(self, verdict: str) -> dict[str, Any]:
        """Return what to record for a verdict on the current comparison."""
        if verdict == UNDO:
            return {"verdict": UNDO}
        now = self.current()
        return {
            "verdict": verdict,
            "source": self.questions[now.question].source,
            "left": now.left,
            "right": now.right,
        }

    def pairs(self) -> list[PreferencePair]:
        """Return a pair for each verdict that prefers one answer."""
        found = []
        for number, verdict in enumerate(self.verdicts):
            if verdict not in ("left", "right"):
                continue
            one = self._comparison(number)
            answers = self.questions[one.question].answers
            left, right = answers[one.left], answers[one.right]
            chosen, rejected = (left, right) if verdict == "left" else (right, left)
            pair = make_pair(self.questions[one.question], chosen, rejected)
            if not isinstance(pair, Drop):
                found.append(pair)
        return found

    def counts(self) -> dict[str, int]:
        """Return how often each verdict was given."""
        return {verdict: self.verdicts.count(verdict) for verdict in VERDICTS}

    def _comparison(self, number: int) -> Comparison:
        question, challenger = self._meetings[number]
        champion = self._champion(number, question)
        left, right = champion, challenger
        if _draw(self.seed, "side", question, challenger) % 2:
            left, right = right, left
        return Comparison(number, question, left, right)

    def _champion(self, number: int, question: int) -> int:
        """Return the answer that has won so far in this prompt, at first answer 0."""
        champion = 0
        first = number
        while first > 0 and self._meetings[first - 1][0] == question:
            first -= 1
        for earlier in range(first, number):
            challenger = self._meetings[earlier][1]
            is_swapped = bool(_draw(self.seed, "side", question, challenger) % 2)
            verdict = self.verdicts[earlier]
            # Unswapped, the champion is on the left and the challenger on the right.
            if verdict == ("left" if is_swapped else "right"):
                champion = challenger
        return champion


def _draw(seed: int, *about: Any) -> int:
    """Return a number that depends on the seed and what it is for, the same everywhere."""
    return zlib.crc32(repr((seed, *about)).encode())
