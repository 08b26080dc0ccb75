"""What was said so far: turns of the user, answers of each side, and with which it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from orpo_mlx.data.types import Message

ChatSide = Literal["base", "adapter"]
SIDES: tuple[ChatSide, ChatSide] = ("base", "adapter")
"""In the order in which answers stand: base left, adapter right."""


@dataclass
class Exchange:
    """A turn of the user and the answers to it.

    Attributes:
        user: what was said.
        system: the system prompt it was answered under, "" for none.
        sides: who was asked.
        drawn: how the answers are drawn: checkpoint, temperature, seed, max_tokens.
        answers: text so far by side.
        done: figures of each finished answer by side, as the playground gives them.
        preferred: the side that was called better.
        correction: what a person made of an answer; it stands in its place from then on.
        opinion: what was said of the answers, in words; "" for nothing.
    """

    user: str
    system: str = ""
    sides: tuple[ChatSide, ...] = SIDES
    drawn: dict[str, Any] = field(default_factory=dict)
    answers: dict[ChatSide, str] = field(default_factory=dict)
    done: dict[ChatSide, dict[str, Any]] = field(default_factory=dict)
    preferred: ChatSide | None = None
    correction: str = ""
    opinion: str = ""

    @property
    def kept_side(self) -> ChatSide | None:
        """Whose answer the conversation goes on with: the better one, else the adapter's."""
        for side in (self.preferred, *SIDES[::-1]):
            if side is not None and self.answers.get(side, "").strip():
                return side
        return None

    @property
    def kept(self) -> str:
        """The answer the conversation goes on with, "" if there is none."""
        return self.correction or (self.answers[self.kept_side] if self.kept_side else "")

    def is_cut(self, side: ChatSide) -> bool:
        """Tell whether an answer did not end by itself."""
        return not self.done.get(side, {}).get("ended", False)


@dataclass
class Conversation:
    """One conversation. Both sides answer the same turns, so that their answers can be compared.

    Attributes:
        system: the system prompt of the next turn, "" for none.
        exchanges: the oldest first; only the last one may have no answer.
    """

    system: str = ""
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def last(self) -> Exchange | None:
        """The newest exchange."""
        return self.exchanges[-1] if self.exchanges else None

    def ask(self, text: str, sides: tuple[ChatSide, ...], drawn: dict[str, Any]) -> Exchange:
        """Add a turn of the user; one that got no answer makes room for it."""
        if self.last and not self.last.kept:
            self.exchanges.pop()
        self.exchanges.append(Exchange(text, self.system, sides, drawn))
        return self.exchanges[-1]

    def prompt(self) -> list[Message]:
        """Return the turns that the last exchange answers, the user's last."""
        turns: list[Message] = []
        if system := self.last.system if self.last else self.system:
            turns.append({"role": "system", "content": system})
        for exchange in self.exchanges[:-1]:
            turns.append({"role": "user", "content": exchange.user})
            turns.append({"role": "assistant", "content": exchange.kept})
        if self.last:
            turns.append({"role": "user", "content": self.last.user})
        return turns


def as_text(turns: Sequence[Message]) -> str:
    """Return turns as a model without a chat template continues them: one text."""
    return "".join(turn["content"] for turn in turns)
