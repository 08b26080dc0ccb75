"""The same prompts asked of the base and of each checkpoint of a run, greedily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orpo_mlx.data.prompts import WrittenPrompt
from orpo_mlx.errors import DataError
from orpo_mlx.generation.sampling import Sampling
from orpo_mlx.generation.side_by_side import Side
from orpo_mlx.serving.playground import Playground, encode_turns, use_checkpoint
from orpo_mlx.text.progress import OnProgress

BASE = "base"


def ask_each(
    place: Playground,
    prompts: Sequence[WrittenPrompt],
    checkpoints: Sequence[str],
    max_tokens: int,
    on_progress: OnProgress,
) -> list[dict[str, dict[str, Any]]]:
    """Return the answers to each prompt, by "base" and checkpoint: text, tokens, ended.

    Raises:
        DataError: the template refuses a prompt.
    """
    encoded = [_encoded(place, prompt) for prompt in prompts]
    found: list[dict[str, dict[str, Any]]] = [{} for _ in prompts]
    total, done = len(prompts) * (1 + len(checkpoints)), 0
    for name in (BASE, *checkpoints):
        if name != BASE:
            use_checkpoint(place, name)
        for ids, answers in zip(encoded, found, strict=True):
            answers[name] = _answer(place, ids, max_tokens, "base" if name == BASE else "adapter")
            done += 1
            on_progress(done, total, f"asking {name}", "rows")
    return found


def _encoded(place: Playground, prompt: WrittenPrompt) -> list[int]:
    try:
        return encode_turns(place.encoder, prompt.turns)
    except DataError as error:
        raise DataError(f"{prompt.source}: {error.message}", error.what_to_do) from None


def _answer(place: Playground, ids: list[int], max_tokens: int, side: Side) -> dict[str, Any]:
    sampling = Sampling(max_tokens=max_tokens)
    answer = place.both.answer(ids, sampling, lambda *_: None, lambda: True, (side,))[side]
    return {"text": answer.text, "tokens": len(answer.logps), "ended": answer.ended}
