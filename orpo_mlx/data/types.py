"""The unit of preference data: a prompt and two responses, one preferred."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

import numpy as np


class Message(TypedDict):
    """One chat turn; role is system, user, assistant or tool.

    What else a row says of a turn is there only where it says something.
    """

    role: str
    content: str
    reasoning_content: NotRequired[str]
    thinking: NotRequired[str]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]


THOUGHT_KEYS = ("reasoning_content", "thinking")
"""Where a turn holds what was thought before it."""
TURN_DETAILS = (*THOUGHT_KEYS, "name", "tool_call_id", "tool_calls")
"""What a turn may hold besides role and content; chat templates get it."""


Text = str | list[Message]


@dataclass(frozen=True)
class PreferencePair:
    """A prompt, the preferred response and the other one.

    All three are strings, or all three are message lists (prompt: the turns up to and including
    the last user turn; chosen and rejected: the assistant turn that follows).

    Attributes:
        source: where the row came from, "file.jsonl:7" (1-based line) or "file.json[6]".
        notes: what was unusual about the row, as counted in `Account.noted` once it is kept.
        tools: what the prompt offers as tools, for chat templates that show them.
        margin: by how much chosen is better, as the row says; None if it does not.
        label: of an answer by itself, which stands in `chosen`, whether it is a good one; then
            `rejected` is empty.
    """

    prompt: Text
    chosen: Text
    rejected: Text
    source: str = ""
    notes: tuple[str, ...] = ()
    tools: list[dict[str, Any]] | None = None
    margin: float | None = None
    label: bool | None = None

    @property
    def answers(self) -> tuple[Text, ...]:
        """Both sides, or the one that is labelled."""
        return (self.chosen, self.rejected) if self.label is None else (self.chosen,)


@dataclass(frozen=True)
class TokenPair:
    """A pair as token ids, ready to be trained on.

    Attributes:
        prompt: ids of the prompt, BOS included if the model uses one; not scored as response.
        chosen, rejected: ids of the responses, end-of-turn token included, prompt excluded.
        source, notes, margin: as in `PreferencePair`.
        reference: what the objective compares both sides with: nats, summed over each response, of
            another model; the margin and 0 for rewards; None where it compares with nothing.
        label: as in `PreferencePair`. Where KTO's KL is wanted, `rejected` holds an answer to
            another prompt.
    """

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    source: str = ""
    notes: tuple[str, ...] = ()
    reference: tuple[float, float] | None = None
    margin: float | None = None
    label: bool | None = None

    @property
    def longest(self) -> int:
        """Tokens of the prompt plus the longer response."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def size(self) -> int:
        """Tokens of both rows: the prompt twice and both responses."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


def add_tokens(digest: hashlib._Hash, pairs: Iterable[TokenPair]) -> None:
    """Add the ids of pairs to a hash, such that no others add the same bytes."""
    for pair in pairs:
        for ids in (pair.prompt, pair.chosen, pair.rejected):
            digest.update(np.array([len(ids), *ids], np.int64).tobytes())


Pair = PreferencePair | TokenPair
"""What a row becomes: text or messages to tokenize, or token ids taken as they are."""


@dataclass(frozen=True)
class Drop:
    """A row that will not be trained on.

    Attributes:
        reason: the key it is counted under in `Account.dropped`.
        longest: for a row dropped for its length, tokens of prompt plus longer response.
    """

    reason: str
    longest: int = 0


OFFENDERS = 20
"""Rows that are remembered by name for each reason."""


@dataclass
class Account:
    """Where every row went: read = kept + sum of dropped.

    Attributes:
        dropped, noted: counts by reason; a noted row is kept (a prompt was cut, ...).
        offenders: for each reason the first sources, at most `OFFENDERS`.
    """

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    offenders: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, source: str) -> None:
        """Count a row that will not be trained on."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self._remember(reason, source)

    def note(self, reason: str, source: str) -> None:
        """Count a row that is kept but was changed or is unusual."""
        self.noted[reason] = self.noted.get(reason, 0) + 1
        self._remember(reason, source)

    def _remember(self, reason: str, source: str) -> None:
        sources = self.offenders.setdefault(reason, [])
        if len(sources) < OFFENDERS:
            sources.append(source)


@dataclass(frozen=True)
class Batch:
    """One micro-batch, padded on the right: rows 0..B-1 are chosen, B..2B-1 rejected.

    Attributes:
        input_ids: [2B, T] int32.
        response_mask: [2B, T] bool, true on response tokens (the end-of-turn token included),
            false on prompt and padding. Positions are unshifted: a token is predicted from the
            position before it.
        token_mask: [2B, T] bool, true on every real token, false on padding.
        indices: [B] positions of the pairs in the dataset.
    """

    input_ids: np.ndarray
    response_mask: np.ndarray
    token_mask: np.ndarray
    indices: tuple[int, ...]

    @property
    def pairs(self) -> int:
        """B, the number of pairs."""
        return len(self.indices)

    @property
    def tokens(self) -> int:
        """Real tokens in the batch, padding excluded."""
        return int(self.token_mask.sum())
