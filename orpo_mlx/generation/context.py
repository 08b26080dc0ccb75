"""How long an answer may be: beyond the positions it was made for, a model answers with garbage."""

from __future__ import annotations

from orpo_mlx.errors import DataError


class ContextFull(DataError):
    """A prompt leaves no room for an answer."""


def longest_answer(prompt_tokens: int, max_tokens: int, context: int | None) -> int:
    """Return how many tokens an answer may have.

    Args:
        prompt_tokens: of all turns, as the template writes them.
        max_tokens: as it was asked for.
        context: positions of the model, prompt and answer together; None: it does not say.

    Raises:
        ContextFull: there is room for none.
    """
    if context is None:
        return max_tokens
    if prompt_tokens >= context:
        raise ContextFull(
            f"the prompt has {prompt_tokens} tokens, and the model's context is {context} tokens "
            "for prompt and answer together.",
            "Make it shorter.",
        )
    return min(max_tokens, context - prompt_tokens)
