"""What one tokenizer does with text and messages: special tokens, chat template, end of turn.

The tokenizer is an argument and never imported, so that this stays light.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, Protocol

from orpo_mlx.data.tokens.time_limit import TookTooLong, time_limit
from orpo_mlx.data.types import Message
from orpo_mlx.errors import DataError

# The threads of the tokenizers library do not survive a fork: a child that used them would hang.
os.register_at_fork(
    after_in_child=lambda: os.environ.__setitem__("TOKENIZERS_PARALLELISM", "false")
)

Thinking = Literal["auto", "on", "off"]

RENDER_SECONDS = 10.0
"""Longest time a template may take for one row."""

SHIELDS = "\ufdd0", "\ufdd1"
"""Around the number of a control token that is to be encoded as text; Unicode sets these two
characters aside for a program's own use, so no text holds them."""

FRAME_MARGIN = 16
"""Tokens by which the template around one question may be longer than around another."""

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

    Args:
        tokenizer: of the model that is trained.
        thinking: for templates that know it, whether answers begin where the model may think
            ("on") or after an empty thought ("off"); "auto": on for pairs that hold thoughts.
        escape_special: whether control tokens inside texts are encoded as the characters they are
            written with.

    Raises:
        DataError: the tokenizer has no end-of-sequence token, so no end of turn could be learned.
    """

    def __init__(
        self, tokenizer: Tokenizer, thinking: Thinking = "auto", escape_special: bool = False
    ) -> None:
        self.tokenizer = tokenizer
        self.thinking = thinking
        self.escape_special = escape_special
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
        self._ahead: dict[str, list[int]] = {}
        self._shown: dict[str, bool] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, special tokens at the start included once.

        A text that starts with the BOS token (templates write it) gets no second one.
        """
        bos = self.tokenizer.bos_token
        starts_with_bos = isinstance(bos, str) and bos != "" and text.startswith(bos)
        return ([] if starts_with_bos else list(self._leading_ids)) + self._plain(text)

    def encode_ahead(self, texts: Sequence[str]) -> None:
        """Encode many texts at once, for `encode` to find; forgets the texts of the last call.

        The ids are those that texts encoded one by one have. The tokenizers library divides them
        among the cores, unless TOKENIZERS_PARALLELISM is false.
        """
        self._ahead = {}
        if self._encodes_alike:
            plain = [text for text in dict.fromkeys(texts) if SHIELDS[0] not in text]
            self._ahead = dict(zip(plain, self._encode_many(plain), strict=True))

    def _encode_many(self, texts: Sequence[str]) -> Iterator[list[int]]:
        backend: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        return (found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=False))

    @cached_property
    def _encodes_alike(self) -> bool:
        """Whether many texts can be encoded at once, with the same ids as one by one (tried)."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if getattr(backend, "encode_batch_fast", None) is None:
            return False
        controls = self.control_tokens[:4]
        texts = [" a\n\nB c", "é“x” 12,345", *controls, " ".join(controls)]
        return list(self._encode_many(texts)) == [self._plain(text) for text in texts]

    def encode_continuation(self, text: str) -> list[int]:
        """Return the ids of a text that follows another one: no BOS, no space put before it."""
        if not self._puts_space_first:
            return self._plain(text)
        newline = self._plain("\n")
        ids = self._plain("\n" + text)
        return ids[len(newline) :] if ids[: len(newline)] == newline else self._plain(text)

    def _plain(self, text: str) -> list[int]:
        if text in self._ahead:
            return list(self._ahead[text])
        if SHIELDS[0] not in text:
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        ids: list[int] = []
        for i, part in enumerate(self._shielded.split(text)):
            if i % 2:
                ids += self._as_text(self.control_tokens[int(part)])
            elif part:
                # A control token ends a text for the tokenizer, so what follows is one by itself.
                ids += self.encode_continuation(part) if i else self._plain(part)
        return ids

    # Control tokens inside texts

    @cached_property
    def control_tokens(self) -> list[str]:
        """The special tokens of the vocabulary as text, such as "<|im_end|>"; longest first."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        found = {str(token) for token in added.values() if getattr(token, "special", False)}
        return sorted(found - {""}, key=lambda token: (-len(token), token))

    def count_control_tokens(self, text: str) -> int:
        """Return how many control tokens a text would put between the turns of a chat."""
        return len(self._controls.findall(text)) if self.control_tokens else 0

    def shield(self, text: str) -> str:
        """Return a text whose control tokens are encoded as characters, if that is wanted."""
        if not self.escape_special or not self.control_tokens:
            return text
        numbers = {token: str(i) for i, token in enumerate(self.control_tokens)}
        return self._controls.sub(lambda found: numbers[found[0]].join(SHIELDS), text)

    def shield_all(self, value: Any) -> Any:
        """Return a nested value with every text in it shielded."""
        if isinstance(value, dict):
            return {key: self.shield_all(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.shield_all(item) for item in value]
        return self.shield(value) if isinstance(value, str) else value

    @cached_property
    def _controls(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.control_tokens)))

    @cached_property
    def _shielded(self) -> re.Pattern[str]:
        numbers = "|".join(str(i) for i in reversed(range(len(self.control_tokens))))
        return re.compile(f"{SHIELDS[0]}({numbers}){SHIELDS[1]}")

    def _as_text(self, token: str) -> list[int]:
        """Return the ids of a control token's characters."""
        encode: Any = self.tokenizer.encode
        options = {"add_special_tokens": False, "split_special_tokens": True}
        if not self._puts_space_first:
            return list(encode(token, **options))
        newline = self._plain("\n")
        ids = list(encode("\n" + token, **options))
        return ids[len(newline) :] if ids[: len(newline)] == newline else ids

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

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        thinks: bool | None = None,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> str:
        """Render messages to text.

        Args:
            messages: of one chat.
            add_generation_prompt: whether the text ends where an answer begins.
            thinks: whether the model may think before it answers; None: as the template has it.
            tools: what the system turn offers; a template that knows no tools leaves them out.

        Raises:
            TemplateRefused: the template raised (roles it does not know or that do not alternate).
            TookTooLong: the template did not end in time.
            DataError: there is no chat template.
        """
        if not self.has_chat_template:
            raise DataError(
                "The data are chats and the model has no chat template.",
                "Choose one with --chat-template chatml, or give plain text.",
            )
        options: dict[str, Any] = {"add_generation_prompt": add_generation_prompt}
        if thinks is not None:
            options["enable_thinking"] = thinks
        if tools:
            options["tools"] = list(tools)
        try:
            with time_limit(RENDER_SECONDS):
                text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        except TookTooLong:
            raise
        except Exception as error:  # templates raise a dozen unrelated types
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            raise TemplateRefused(first_line[:100]) from None
        return str(text)

    @cached_property
    def switches_thinking(self) -> bool:
        """Whether the template can be told to leave thinking out (found by two dry renders)."""
        user: Message = {"role": "user", "content": "a"}
        try:
            return self.render([user], True, thinks=True) != self.render([user], True, thinks=False)
        except TemplateRefused:
            return False

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the template writes out the tools it is given (found by one dry render)."""
        user: Message = {"role": "user", "content": "a"}
        function = {"name": PROBE, "description": PROBE, "parameters": {}}
        try:
            tools = [{"type": "function", "function": function}]
            return PROBE in self.render([user], True, tools=tools)
        except TemplateRefused:
            return False

    def shows_thought(self, key: str) -> bool:
        """Whether the template writes out a thought that stands beside an answer (dry render)."""
        if key not in self._shown:
            user: Message = {"role": "user", "content": "a"}
            answer: Any = {"role": "assistant", "content": "a", key: PROBE}
            try:
                self._shown[key] = PROBE in self.render([user, answer], False)
            except TemplateRefused:
                self._shown[key] = False
        return self._shown[key]

    @cached_property
    def frame_length(self) -> int:
        """Tokens of the template around one short question, and a few more."""
        user: Message = {"role": "user", "content": PROBE}
        try:
            return len(self.encode(self.render([user], True))) + FRAME_MARGIN
        except (TemplateRefused, DataError):
            return FRAME_MARGIN

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


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text in a nested value; keys are not looked at."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)


def fold_system(messages: list[Message]) -> list[Message]:
    """Move the system text to the start of the first user turn."""
    if not messages or messages[0]["role"] != "system":
        return messages
    system, rest = messages[0]["content"], messages[1:]
    if not system.strip():
        return rest
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": system}, *rest]
    asked: Message = {**rest[0], "content": f"{system}\n\n{rest[0]['content']}"}
    return [asked, *rest[1:]]
