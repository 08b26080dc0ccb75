"""One loaded model that answers and scores as the base and with the adapter, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx

from orpo_mlx.adapters.lora import AdapterSwitch
from orpo_mlx.data.types import TokenPair
from orpo_mlx.generation.sampling import Sampling, stream_tokens
from orpo_mlx.models.modes import evaluating
from orpo_mlx.models.patches import run_body
from orpo_mlx.objectives.numerics import log_odds
from orpo_mlx.scoring.head import head_logps
from orpo_mlx.scoring.logprobs import token_logps

Side = Literal["base", "adapter"]
SIDES: tuple[Side, Side] = ("base", "adapter")


@dataclass
class Answer:
    """What came of one side.

    Attributes:
        text: without control tokens such as the end of turn.
        logps: log-prob of each token, in nats, before temperature and top-p; the end-of-turn token
            included where there is one.
        ended: whether it ended by itself; else the longest answer was reached or it was cancelled.
    """

    text: str
    logps: list[float]
    seconds: float
    ended: bool


@dataclass(frozen=True)
class PairScore:
    """A pair under one side: log-probs [tokens of the response] in nats, end of turn included."""

    chosen: list[float]
    rejected: list[float]

    @property
    def means(self) -> tuple[float, float]:
        """Mean log-prob of the chosen and of the rejected response."""
        return sum(self.chosen) / len(self.chosen), sum(self.rejected) / len(self.rejected)

    @property
    def log_odds_ratio(self) -> float:
        """Above 0: the chosen response is preferred (equation 4 of the ORPO paper)."""
        chosen, rejected = (log_odds(mx.array(mean)).item() for mean in self.means)
        return float(chosen) - float(rejected)  # type: ignore[arg-type]


class SideBySide:
    """A model with an adapter attached, which can be switched off and on between two tokens.

    Args:
        model: mlx-lm model; without an adapter both sides are the base.
        tokenizer: mlx-lm's wrapper.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        self.control_ids = {i for i, token in added.items() if getattr(token, "special", False)}
        self._switch = AdapterSwitch(model)

    @property
    def has_adapter(self) -> bool:
        """Whether the two sides differ."""
        return self._switch.has_adapter

    def as_side(self, side: Side) -> AbstractContextManager[None]:
        """Be the base or the adapted model inside; afterwards the adapter is on."""
        return self._switch.off() if side == "base" else nullcontext()

    def answer(
        self,
        prompt: list[int],
        sampling: Sampling,
        on_text: Callable[[Side, str], None],
        goes_on: Callable[[], bool],
        sides: tuple[Side, ...] = SIDES,
    ) -> dict[Side, Answer]:
        """Answer a prompt on each side, a token of one and then of the other.

        Args:
            prompt: token ids, at least one.
            sampling: the same for both.
            on_text: called with each new piece of an answer.
            goes_on: asked before each token; False ends all answers where they are.
            sides: which.
        """
        streams: dict[Side, _Stream] = {
            side: _Stream(self, prompt, sampling, side) for side in sides
        }
        running: list[Side] = list(sides)
        with evaluating(self.model):
            while running and goes_on():
                for side in list(running):
                    piece = streams[side].next_piece()
                    if piece:
                        on_text(side, piece)
                    if streams[side].finished:
                        running.remove(side)
        return {side: stream.answer() for side, stream in streams.items()}

    def score(self, pair: TokenPair, side: Side, chunk: int | None = None) -> PairScore:
        """Return the log-prob of each response token under one side.

        Args:
            pair: to be scored.
            side: which.
            chunk: scored positions whose logits are held at a time; None: those of a whole row, by
                the model's own call, which needs no body that can be told from its head.
        """
        with self.as_side(side), evaluating(self.model):
            return PairScore(
                self._logps(list(pair.prompt), list(pair.chosen), chunk),
                self._logps(list(pair.prompt), list(pair.rejected), chunk),
            )

    def _logps(self, prompt: list[int], response: list[int], chunk: int | None) -> list[float]:
        ids, first = mx.array([*prompt, *response])[None], len(prompt) - 1
        inputs, targets = ids[:, :-1], ids[0, len(prompt) :]
        if chunk is None:
            values: Any = token_logps(self.model(inputs)[0, first:], targets)
        else:
            values = head_logps(self.model, run_body(self.model, inputs)[0, first:], targets, chunk)
        return values.tolist()


class _Stream:
    """One answer while it is being made."""

    def __init__(
        self, owner: SideBySide, prompt: list[int], sampling: Sampling, side: Side
    ) -> None:
        self._owner = owner
        self._side: Side = side
        self._detokenizer = owner.tokenizer.detokenizer  # a new one each time it is asked for
        self._detokenizer.reset()
        self._tokens = stream_tokens(owner.model, owner.tokenizer, prompt, sampling)
        self._logps: list[float] = []
        self._seconds = 0.0
        self._shown = 0
        self.finished = self.ended = False

    def next_piece(self) -> str:
        """Make one token; returns the text it adds, which may be none yet."""
        started = time.perf_counter()
        with self._owner.as_side(self._side):
            token = next(self._tokens, None)
        self._seconds += time.perf_counter() - started
        if token is None:
            self.finished = True
        else:
            self._logps.append(float(token.logprobs[token.id].item()))  # type: ignore[arg-type]
            self.finished = self.ended = token.is_end
            if not self.ended and token.id not in self._owner.control_ids:  # of turns, not words
                self._detokenizer.add_token(token.id)
        if self.finished:
            self._detokenizer.finalize()
        return self._new_text()

    def _new_text(self) -> str:
        text = self._detokenizer.text
        piece, self._shown = text[self._shown :], len(text)
        return piece

    def answer(self) -> Answer:
        self._detokenizer.finalize()
        return Answer(self._detokenizer.text, self._logps, self._seconds, self.ended)
