"""The same prompts asked of the base and of each checkpoint of a run, greedily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from orpo_mlx.data.prompts import WrittenPrompt
from orpo_mlx.errors import DataError
from orpo_mlx.generation.context import longest_answer
from orpo_mlx.generation.sampling import Sampling
from orpo_mlx.generation.side_by_side import Side
from orpo_mlx.serving.place import Playground, encode_turns, use_checkpoint
from orpo_mlx.text.progress import OnProgress

BASE = "base"


def ask_each(
    place: Playground,
    prompts: Sequence[WrittenPrompt],
    checkpoints: Sequence[str],
    max_tokens: int,
    on_progress: OnProgress,
    goes_on: Callable[[], bool] = lambda: True,
) -> list[dict[str, dict[str, Any]]]:
    """Return the answers to each prompt, by "base" and checkpoint: text, tokens, ended.

    Args:
        place: what answers; afterwards the checkpoint answers that did before.
        prompts: what is asked.
        checkpoints: by name.
        max_tokens: longest answer.
        on_progress: told after each answer.
        goes_on: asked before each token; False ends it: that answer is cut, later ones are not
            there.

    Raises:
        DataError: the template refuses a prompt, or it is longer than the model's context.
    """
    encoded = [_encoded(place, prompt, max_tokens) for prompt in prompts]
    found: list[dict[str, dict[str, Any]]] = [{} for _ in prompts]
    before = place.current
    is_over = False

    def still() -> bool:  # a request to stop is said once
        nonlocal is_over
        is_over = is_over or not goes_on()
        return not is_over

    total, done = len(prompts) * (1 + len(checkpoints)), 0
    for name in (BASE, *checkpoints):
        side: Side = "base" if name == BASE else "adapter"
        if name != BASE:
            use_checkpoint(place, name)
        for (ids, sampling), answers in zip(encoded, found, strict=True):
            if not still():
                break
            answer = place.both.answer(ids, sampling, lambda *_: None, still, (side,))[side]
            answers[name] = {
                "text": answer.text, "tokens": len(answer.logps), "ended": answer.ended
            }  # fmt: skip
            done += 1
            on_progress(done, total, f"asking {name}", "rows")
    if before:
        use_checkpoint(place, before)
    return found


def _encoded(
    place: Playground, prompt: WrittenPrompt, max_tokens: int
) -> tuple[list[int], Sampling]:
    try:
        ids = encode_turns(place.encoder, prompt.turns)
        return ids, Sampling(max_tokens=longest_answer(len(ids), max_tokens, place.context))
    except DataError as error:
        raise DataError(f"{prompt.source}: {error.message}", error.what_to_do) from None
