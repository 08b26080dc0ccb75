"""A chat template taken apart: what it writes around each turn.

Found by rendering conversations with marks for texts, and kept only if the pieces put together
again give what the template itself gives, for conversations with and without a system turn and with
several turns. So a template that is more than pieces is noticed, never approximated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from orpo_mlx.data.templates import Encoder, TemplateRefused, fold_system

_S, _U, _A = "zqsystemqz", "zquserqz", "zqanswerqz"


@dataclass(frozen=True)
class ChatPieces:
    """What a template writes around the texts.

    Attributes:
        system: before and after a system text that is a turn of its own; None if it never is.
        no_system: in its place where there is none; the BOS token is in no piece.
        user, assistant: before and after a text of that role.
        header: before the answer that is asked for.
        folded: before and after a system text that stands inside the first user turn, before its
            text; None if it does not.
    """

    system: tuple[str, str] | None
    no_system: str
    user: tuple[str, str]
    assistant: tuple[str, str]
    header: str
    folded: tuple[str, str] | None = None

    def render(self, messages: list[dict[str, str]]) -> str:
        """Put a conversation together; the last turn is the user's."""
        system = messages[0]["content"] if messages[0]["role"] == "system" else None
        turns = messages if system is None else messages[1:]
        text = self.no_system
        if system is not None and self.system is not None:
            text = system.join(self.system)
        for number, message in enumerate(turns):
            before, after = self.user if message["role"] == "user" else self.assistant
            if number == 0 and system is not None and self.folded is not None:
                before += system.join(self.folded)
            text += before + message["content"] + after
        return text + self.header


def find_pieces(tokenizer: Any) -> ChatPieces | None:
    """Take a tokenizer's chat template apart; None if it is more than its pieces.

    Args:
        tokenizer: mlx-lm's wrapper.
    """
    encoder = Encoder(tokenizer)
    if not encoder.has_chat_template:
        return None
    try:
        pieces = _take_apart(encoder)
        return pieces if pieces and _agrees(pieces, encoder) else None
    except TemplateRefused:
        return None


def _messages(*texts: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in texts]


def _take_apart(encoder: Encoder) -> ChatPieces | None:
    user = ("user", _U)
    single = _rendered(encoder, _messages(user))
    twice = _rendered(encoder, _messages(user, ("assistant", _A), ("user", _S)))
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
    return _with_system(encoder, lead, (user_before, user_after), assistant, header)


def _with_system(
    encoder: Encoder,
    lead: str,
    user: tuple[str, str],
    assistant: tuple[str, str],
    header: str,
) -> ChatPieces | None:
    plain = ChatPieces(None, lead, user, assistant, header)
    text = _rendered(encoder, _messages(("system", _S), ("user", _U)))
    if text.count(_S) != 1:
        return plain
    turn, first, last = user[0] + _U + user[1] + header, lead + user[0], _U + user[1] + header
    if text.endswith(turn):
        before, after = text.removesuffix(turn).split(_S)
        return replace(plain, system=(before, after))
    if text.startswith(first) and text.endswith(last):
        before, after = text.removeprefix(first).removesuffix(last).split(_S)
        return replace(plain, folded=(before, after))
    return plain


def _rendered(encoder: Encoder, messages: list[dict[str, str]]) -> str:
    """Render without the BOS token, which whoever tokenizes the text puts before it.

    A system text that the template does not take is folded into the first turn, as in training.
    """
    bos = encoder.tokenizer.bos_token
    if encoder.folds_system:
        messages = fold_system(messages)  # type: ignore[arg-type,assignment]
    text = encoder.render(messages, add_generation_prompt=True)  # type: ignore[arg-type]
    return text.removeprefix(bos) if isinstance(bos, str) else text


def _common_end(one: str, other: str) -> str:
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return one[len(one) - count :]


def _agrees(pieces: ChatPieces, encoder: Encoder) -> bool:
    """Compare the pieces with the template on conversations of other lengths and texts."""
    turns = [("user", "One?"), ("assistant", "Two."), ("user", "Three\nfour?")]
    talks = [turns[:1], turns, [*turns, ("assistant", "5"), ("user", "6")]]
    if pieces.system is not None or pieces.folded is not None:
        talks += [[("system", "Be brief."), *talk] for talk in talks]
    for talk in talks:
        if _rendered(encoder, _messages(*talk)) != pieces.render(_messages(*talk)):
            return False
    return True
