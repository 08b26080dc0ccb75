"""How many pairs a model orders rightly before any training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.order import split_by_tokens
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models import load
from orpo_mlx.models.precision import choose_float32
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.plain import Plain


def count_right(
    config: TrainConfig, pairs: Sequence[TokenPair], on_progress: Callable[[int], None]
) -> int:
    """Load the model and count the pairs whose chosen answer has the higher mean log-prob.

    Args:
        config: names the model, and the most tokens of a forward pass.
        pairs: to score.
        on_progress: called with the pairs done so far.

    Raises:
        ModelError: the model cannot be loaded.
    """
    choose_float32(config.float32)
    folder = load.resolve_model(str(config.model), config.revision)
    model = load.load_model(folder, chat_template=config.chat_template).model
    scoring = Scoring(Plain(), "response")
    parts = split_by_tokens(range(len(pairs)), pairs, scoring.cost, config.tokens_per_batch)
    right = done = 0
    # The cheap ones first, so that it is soon seen how long the rest will take.
    for part in sorted(parts, key=lambda part: max(pairs[i].longest for i in part)):
        scores = scoring.score(model, scoring.build(pairs, part).arrays)
        right += int(mx.sum(scores.chosen_logps > scores.rejected_logps).item())  # type: ignore[arg-type]
        done += len(part)
        on_progress(done)
    return right
