"""What one tokenizer does with text and messages: special tokens, chat template, end of turn.

The tokenizer is an argument and never imported, so that this stays light.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol

from orpo_mlx.data.pairs import Message
from orpo_mlx.errors import DataError

PROBE = "zq"
"""Text to look for in a rendered template; any text would do that templates do not contain."""


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer or of mlx-lm's wrapper around one.

    `eos_token_ids` (mlx-lm) and `has_chat_template` (mlx-lm) or `chat_template` (transformers) are
    used where present.
    """

    @property
    def bos_token(self) -> Any: ...
    @property
    def bos_token_id(self) -> Any: ...
    @property
    def eos_token_id(self) -> Any: ...
    def encode(self, text: Any, *, add_special_tokens: bool) -> Any: ...
    def decode(self, token_ids: Any) -> Any: ...
    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


class TemplateRefused(Exception):
    """The chat template raised on these messages; the text is the template's own."""


class Encoder:
    """A tokenizer with what was learned about it, for the tokenization of many pairs.

    Raises:
        DataError: the tokenizer has no end-of-sequence token, so no end of turn could be learned.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        if tokenizer.eos_token_id is None:
            raise DataError(
                "The model's tokenizer has no end-of-sequence token (eos_token).",
                "Use a model whose tokenizer_config.json names one.",
            )
        self.eos_id: int = tokenizer.eos_token_id
        stops = getattr(tokenizer, "eos_token_ids", None)
        # transformers answers this name too, with one number.
        self.stop_ids = {self.eos_id, *(stops if isinstance(stops, Iterable) else ())}
        self._blank: dict[int, bool] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, special tokens at the start included once.

        A text that starts with the BOS token (templates write it) gets no second one.
        """
        bos = self.tokenizer.bos_token
        starts_with_bos = isinstance(bos, str) and bos != "" and text.startswith(bos)
        return ([] if starts_with_bos else list(self._leading_ids)) + self._plain(text)

    def encode_continuation(self, text: str) -> list[int]:
        """Return the ids of a text that follows another one: no BOS, no space put before it."""
        if not self._puts_space_first:
            return self._plain(text)
        newline = self._plain("\n")
        ids = self._plain("\n" + text)
        return ids[len(newline) :] if ids[: len(newline)] == newline else self._plain(text)

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @cached_property
    def _leading_ids(self) -> list[int]:
        """Ids the tokenizer puts before every text; what it puts after is left to `end_turn`."""
        plain = self._plain("a")
        full = list(self.tokenizer.encode("a", add_special_tokens=True))
        starts = range(len(full) - len(plain) + 1)
        at = next((i for i in starts if full[i : i + len(plain)] == plain), 0)
        return full[:at]

    @cached_property
    def _puts_space_first(self) -> bool:
        """Whether a lone text is encoded as if a space stood before it (SentencePiece)."""
        alone = self._plain("a")
        return self._plain("\na")[-len(alone) :] != alone

    def end_turn(self, ids: list[int]) -> tuple[list[int], bool]:
        """Make the token that generation stops at the last one.

        Stop tokens and white space at the end are cut after the first stop token among them: what a
        template writes behind it (a newline in ChatML) is never generated. Without a stop token
        there, EOS is appended.

        Returns:
            The ids, and whether EOS had to be appended.
        """
        start = len(ids)
        while start > 0 and (ids[start - 1] in self.stop_ids or self._is_blank(ids[start - 1])):
            start -= 1
        for i in range(start, len(ids)):
            if ids[i] in self.stop_ids:
                return ids[: i + 1], False
        return [*ids, self.eos_id], True

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = not str(self.tokenizer.decode([token])).strip()
        return self._blank[token]

    @property
    def has_chat_template(self) -> bool:
        """Whether messages can be rendered at all."""
        known = getattr(self.tokenizer, "has_chat_template", None)
        if known is not None:
            return bool(known)
        return getattr(self.tokenizer, "chat_template", None) is not None

    def render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """Render messages to text.

        Raises:
            TemplateRefused: the template raised (roles it does not know or that do not alternate).
            DataError: there is no chat template.
        """
        if not self.has_chat_template:
            raise DataError(
                "The data are chats and the model has no chat template.",
                "Choose one with --chat-template chatml, or give plain text.",
            )
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # templates raise a dozen unrelated types
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            raise TemplateRefused(first_line[:100]) from None
        return str(text)

    @cached_property
    def folds_system(self) -> bool:
        """Whether the template refuses or ignores a system turn (found by one dry render)."""
        user: Message = {"role": "user", "content": "a"}
        try:
            if PROBE in self.render([{"role": "system", "content": PROBE}, user], True):
                return False
        except TemplateRefused:
            pass
        try:
            self.render([user], True)
        except TemplateRefused:
            return False  # the system turn is not what it refuses
        return True


def fold_system(messages: list[Message]) -> list[Message]:
    """Move the system text to the start of the first user turn."""
    if not messages or messages[0]["role"] != "system":
        return messages
    system, rest = messages[0]["content"], messages[1:]
    if not system.strip():
        return rest
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": system}, *rest]
    content = f"{system}\n\n{rest[0]['content']}"
    return [{"role": "user", "content": content}, *rest[1:]]
