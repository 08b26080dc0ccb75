"""A chat template taken apart: what it writes around each turn.

Found by rendering conversations with marks for texts, and kept only if the pieces put together
again give what the template itself gives, for a dozen conversations. So a template that is more
than pieces is noticed, never approximated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from orpo_mlx.data.tokens.encoder import Encoder, TemplateRefused, fold_system

_S, _U, _A = "zqsystemqz", "zquserqz", "zqanswerqz"
_DAY = "strftime_now"
"""In a template that writes the day: what it writes today is wrong tomorrow."""


@dataclass(frozen=True)
class ChatPieces:
    """What a template writes around the texts.

    Attributes:
        system: before and after a system text that is a turn of its own; None if it never is.
        no_system: in its place where there is none.
        user, assistant: before and after a text of that role.
        header: before the answer that is asked for.
        folded: before and after a system text that stands inside the first user turn, before its
            text; None if it does not.
        trimmed: roles whose texts lose white space at both ends.
        takes_empty: whether an empty system text counts as one.
        is_one_text: whether a folded system text and the question are trimmed as one.
    """

    system: tuple[str, str] | None
    no_system: str
    user: tuple[str, str]
    assistant: tuple[str, str]
    header: str
    folded: tuple[str, str] | None = None
    trimmed: frozenset[str] = frozenset()
    takes_empty: bool = True
    is_one_text: bool = False

    def render(self, messages: list[dict[str, str]]) -> str:
        """Put a conversation together; the last turn is the user's."""
        system = messages[0]["content"] if messages[0]["role"] == "system" else None
        turns = messages if system is None else messages[1:]
        if system == "" and not self.takes_empty:
            system = None
        text = self.no_system
        if system is not None and self.system is not None:
            text = self._text("system", system).join(self.system)
        for number, message in enumerate(turns):
            before, after = self.user if message["role"] == "user" else self.assistant
            content = message["content"]
            if number or system is None or self.folded is None:
                text += before + self._text(message["role"], content) + after
            elif self.is_one_text:
                joined = system.join(self.folded) + content
                text += before + self._text("user", joined) + after
            else:
                lead = self._text("system", system).join(self.folded)
                text += before + lead + self._text("user", content) + after
        return text + self.header

    def _text(self, role: str, text: str) -> str:
        return text.strip() if role in self.trimmed else text


def conversations(pieces: ChatPieces) -> Iterator[list[dict[str, str]]]:
    """Yield a dozen conversations in which templates differ; the last turn is the user's."""
    turns = [("user", "One?"), ("assistant", "Two."), ("user", "Three\nfour?")]
    odd = [
        ("user", " a  \n\n"),
        ("assistant", "\n b\t"),
        ("user", " {{ .Content }} \u00fc\U0001f600 "),
    ]
    talks = [turns[:1], turns, [*turns, ("assistant", "5"), ("user", "6")], odd, odd[:1]]
    yield from (_messages(*talk) for talk in talks)
    if pieces.system is not None or pieces.folded is not None:
        for system in ("Be brief.", "", " Two \nlines. "):
            yield from (_messages(("system", system), *talk) for talk in (turns[:1], turns, odd))


def find_pieces(tokenizer: Any, adds_bos: bool = True) -> ChatPieces | None:
    """Take a tokenizer's chat template apart; None if it is more than its pieces.

    Args:
        tokenizer: mlx-lm's wrapper.
        adds_bos: whether whoever tokenizes puts the BOS token before the text: then it is in no
            piece.
    """
    encoder = Encoder(tokenizer)
    if not encoder.has_chat_template or _DAY in str(getattr(tokenizer, "chat_template", "")):
        return None
    bos = encoder.tokenizer.bos_token if adds_bos else None
    talk = _Talk(encoder, bos if isinstance(bos, str) else "")
    try:
        pieces = _take_apart(talk)
        found = [one for one in _readings(pieces, talk) if _agrees(one, talk)] if pieces else []
        return found[0] if found else None
    except TemplateRefused:
        return None


def prompt_ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Return the tokens in which the model meets a conversation, as in training."""
    encoder = Encoder(tokenizer)
    return encoder.encode(_Talk(encoder, "").rendered(messages))


@dataclass(frozen=True)
class _Talk:
    """What renders conversations, without the BOS token at their beginning.

    A system text that the template does not take is folded into the first turn, as in training.
    """

    encoder: Encoder
    bos: str

    def rendered(self, messages: list[dict[str, str]]) -> str:
        if self.encoder.folds_system:
            messages = fold_system(messages)  # type: ignore[arg-type,assignment]
        text = self.encoder.render(messages, add_generation_prompt=True)  # type: ignore[arg-type]
        return text.removeprefix(self.bos)


def _messages(*texts: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in texts]


def _take_apart(talk: _Talk) -> ChatPieces | None:
    user = ("user", _U)
    single = talk.rendered(_messages(user))
    twice = talk.rendered(_messages(user, ("assistant", _A), ("user", _S)))
    if single.count(_U) != 1 or any(twice.count(mark) != 1 for mark in (_U, _A, _S)):
        return None
    before, tail = single.split(_U)
    head, rest = twice.split(_U)
    between, rest = rest.split(_A)
    again, end = rest.split(_S)
    if head != before or end != tail:
        return None
    # `again` ends what the assistant said and begins the next user turn, as `before` does.
    user_before = _common_end(before, again)
    after_answer = again[: len(again) - len(user_before)]
    header = _common_end(tail, between)
    user_after = tail[: len(tail) - len(header)]
    lead = before[: len(before) - len(user_before)]
    assistant = (between[len(user_after) :], after_answer)
    return _with_system(talk, ChatPieces(None, lead, (user_before, user_after), assistant, header))


def _with_system(talk: _Talk, plain: ChatPieces) -> ChatPieces:
    text = talk.rendered(_messages(("system", _S), ("user", _U)))
    if text.count(_S) != 1:
        return plain
    user, header = plain.user, plain.header
    turn, first, last = user[0] + _U + user[1] + header, plain.no_system + user[0], _U + user[1]
    if text.endswith(turn):
        before, after = text.removesuffix(turn).split(_S)
        return replace(plain, system=(before, after))
    if text.startswith(first) and text.endswith(last + header):
        before, after = text.removeprefix(first).removesuffix(last + header).split(_S)
        return replace(plain, folded=(before, after))
    return plain


def _readings(pieces: ChatPieces, talk: _Talk) -> Iterator[ChatPieces]:
    """Yield what the pieces can mean for texts with white space around them, and without text."""
    trimmed = frozenset(role for role in ("system", "user", "assistant") if _trims(role, talk))
    is_one_text = pieces.folded is not None and talk.encoder.folds_system
    for takes_empty in (True, False):
        yield replace(pieces, trimmed=trimmed, takes_empty=takes_empty, is_one_text=is_one_text)


def _trims(role: str, talk: _Talk) -> bool:
    turns = [("system", _S)] if role == "system" else []
    turns += [("user", _U), ("assistant", _A), ("user", _U)]
    plain = _messages(*turns)
    spaced = _messages(*((r, f" {text}\n" if r == role else text) for r, text in turns))
    return talk.rendered(plain) == talk.rendered(spaced)


def _common_end(one: str, other: str) -> str:
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return one[len(one) - count :]


def _agrees(pieces: ChatPieces, talk: _Talk) -> bool:
    """Compare the pieces with the template on conversations of other lengths and texts."""
    return all(talk.rendered(one) == pieces.render(one) for one in conversations(pieces))
