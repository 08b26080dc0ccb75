"""How the tokens of an answer are drawn, one answer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        temperature: 0 = always the likeliest token.
        top_p: only the likeliest tokens that make up this share; 1 = all.
        max_tokens: longest answer.
        seed: of the draws.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 0


def build_sampler(sampling: Sampling) -> Callable[[mx.array], mx.array]:
    """Return a function from log-probs [1, V] to a token [1].

    The n-th token is drawn with a key of (seed, n), so an answer does not depend on what else is
    being generated.
    """
    from mlx_lm.sample_utils import apply_top_p

    drawn = iter(range(1 << 32))

    def sample(logprobs: mx.array) -> mx.array:
        number = next(drawn)
        if sampling.temperature == 0:
            return mx.argmax(logprobs, axis=-1)
        kept = apply_top_p(logprobs, sampling.top_p) if 0 < sampling.top_p < 1 else logprobs
        key = mx.random.key((sampling.seed << 32) | number)
        return mx.random.categorical(kept / sampling.temperature, key=key)

    return sample


class Token(NamedTuple):
    """A token of an answer.

    Attributes:
        logprobs: [V] nats it was drawn from, before temperature and top-p.
        is_end: it is an end-of-turn token, and the last.
    """

    id: int
    logprobs: mx.array
    is_end: bool


def stream_tokens(
    model: Any, tokenizer: Any, prompt: list[int], sampling: Sampling
) -> Iterator[Token]:
    """Continue a tokenized prompt until an end-of-turn token or the longest answer.

    mlx-lm's `stream_generate` would raise the wired-memory limit around this; its inner
    `generate_step` does not (reports tie that limit to kernel panics while training).

    Args:
        model: an mlx-lm model, on the thread that loaded it.
        tokenizer: mlx-lm's wrapper, which knows the end-of-turn tokens.
        prompt: token ids, at least one.
        sampling: of the answer.
    """
    from mlx_lm.generate import generate_step

    ends = set(tokenizer.eos_token_ids)
    tokens = generate_step(
        mx.array(prompt),
        model,
        max_tokens=sampling.max_tokens,
        sampler=build_sampler(sampling),
    )
    for token, logprobs in tokens:
        yield Token(int(token), logprobs, token in ends)
        if token in ends:
            return
