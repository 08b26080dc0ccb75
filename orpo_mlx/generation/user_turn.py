"""What the user said last in a tokenized prompt, and under which system turn, as people read it.

A training keeps token ids, not texts; the words between the marks of the template's turns are found
by rendering made-up conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orpo_mlx.data.tokens.encoder import Encoder, TemplateRefused
from orpo_mlx.data.tokens.time_limit import TookTooLong
from orpo_mlx.data.tokens.tokenize import encoder_of
from orpo_mlx.data.types import Message

_SYSTEM, _FIRST, _BETWEEN, _LAST = "qsystemq", "qfirstq", "qanswerq", "qlastq"


@dataclass(frozen=True)
class LastTurn:
    """A prompt in words.

    Attributes:
        user: the last words of the user; the whole prompt where there are no turns.
        system: the system turn, "" for none or the template's own.
    """

    user: str
    system: str = ""


@dataclass(frozen=True)
class TurnMarks:
    """What a chat template writes around the words of a turn."""

    before: str
    after: str


class PromptReader:
    """Finds the words in prompts that were rendered with a tokenizer's chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        encoder = encoder_of(tokenizer)
        self.user_marks = _user_marks(encoder)
        self._system_marks = _system_marks(encoder, self.user_marks) if self.user_marks else None
        self._answer_marks = _answer_marks(encoder, self.user_marks) if self.user_marks else None
        alone = _render(encoder, _FIRST) or ""
        self._own_system = self._system(alone) if self._system_marks else ""

    def read(self, prompt: Sequence[int]) -> LastTurn:
        """Return what was asked.

        Args:
            prompt: token ids, up to where the answer begins.
        """
        marks, text = self.user_marks, self._tokenizer.decode(list(prompt))
        if marks is None or marks.before not in text:
            words = self._tokenizer.decode(list(prompt), skip_special_tokens=True)
            return LastTurn(words.strip())
        words = text.rpartition(marks.before)[2]
        system = self._system(text)
        return LastTurn(
            (words.partition(marks.after)[0] if marks.after else words).strip(),
            "" if system == self._own_system else system,
        )

    def turns(self, prompt: Sequence[int]) -> list[tuple[str, str]]:
        """Return all turns of a prompt as (role, words), the user's last one at the end.

        Where earlier turns cannot be told, only the last words of the user are there.

        Args:
            prompt: token ids, up to where the answer begins.
        """
        question = self.read(prompt)
        turns = [("system", question.system)] if question.system else []
        earlier = self._earlier(self._tokenizer.decode(list(prompt)))
        return [*turns, *earlier, ("user", question.user)]

    def talk(self, prompt: Sequence[int]) -> str:
        """Return all turns of a prompt as people read them, of a single one its words alone."""
        turns = self.turns(prompt)
        if len(turns) == 1:
            return turns[0][1]
        return "\n\n".join(f"{role}: {words}" for role, words in turns)

    def _earlier(self, text: str) -> list[tuple[str, str]]:
        """Return the turns of user and assistant before the last one of the user."""
        user, answer = self.user_marks, self._answer_marks
        if user is None or answer is None or not answer.before:
            return []
        turns = []
        for exchange in text.split(user.before)[1:-1]:
            asked, mark, answered = exchange.partition(answer.before)
            if not mark:
                return []
            answered = answered.strip().removesuffix(answer.after)
            turns += [("user", asked.strip()), ("assistant", answered.strip())]
        return turns

    def _system(self, text: str) -> str:
        marks = self._system_marks
        if marks is None or marks.before not in text:
            return ""
        words, end, _ = text.partition(marks.before)[2].partition(marks.after)
        return words.strip() if end else ""


def _user_marks(encoder: Encoder) -> TurnMarks | None:
    """Return the marks of a user's turn, None where there are none or they cannot be told."""
    text = _render(encoder, _FIRST, _BETWEEN, _LAST)
    if text is None:
        return None
    opening, rest = text.split(_FIRST)
    closing, rest = rest.split(_BETWEEN)
    between, end = rest.split(_LAST)
    before = _common_ending(opening, between)
    after = _common_ending(closing[::-1], end[::-1])[::-1].strip()
    return TurnMarks(before, after) if before.strip() else None


def _answer_marks(encoder: Encoder, user: TurnMarks) -> TurnMarks | None:
    """Return the marks of an answer between two turns of the user."""
    text = _render(encoder, _FIRST, _BETWEEN, _LAST)
    if text is None:
        return None
    before, rest = text.split(_FIRST)[1].split(_BETWEEN)
    return TurnMarks(before.strip(), rest.split(_LAST)[0].removesuffix(user.before).strip())


def _system_marks(encoder: Encoder, user: TurnMarks) -> TurnMarks | None:
    """Return the marks of a system turn, None where the template has none of its own."""
    text = _render(encoder, _FIRST, system=_SYSTEM)
    if text is None:
        return None
    before, rest = text.split(_SYSTEM)
    after = rest.split(_FIRST)[0]
    is_turn = user.before.strip() in after
    return TurnMarks(before, after) if before.strip() and is_turn else None


def _render(encoder: Encoder, *words: str, system: str = "") -> str | None:
    """Return a conversation that the user begins; None unless each word stands in it once."""
    if not encoder.has_chat_template:
        return None
    talk: list[Message] = [{"role": "system", "content": system}] if system else []
    for index, word in enumerate(words):
        talk.append({"role": "assistant" if index % 2 else "user", "content": word})
    try:
        text = encoder.render(talk, add_generation_prompt=False)
    except (TemplateRefused, TookTooLong):
        return None
    return text if all(text.count(turn["content"]) == 1 for turn in talk) else None


def _common_ending(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-length - 1] == other[-length - 1]:
        length += 1
    return one[len(one) - length :]
