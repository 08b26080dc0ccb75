"""Find out which way of scoring fits a model, by trying them on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import describe
from orpo_mlx.models.precision import has_exact_products
from orpo_mlx.objectives.base import StepTotals
from orpo_mlx.objectives.orpo import Orpo
from orpo_mlx.objectives.reward import Reward
from orpo_mlx.scoring.activation_cache import ActivationCache, MemoryStore
from orpo_mlx.scoring.base import Feed, Scoring, Way, own_arrays
from orpo_mlx.scoring.fork import Fork
from orpo_mlx.scoring.packed import CausalRow, PackedRow
from orpo_mlx.scoring.plain import Plain
from orpo_mlx.scoring.shared import Shared
from orpo_mlx.scoring.states import States

WAYS: dict[str, Way] = {
    way.name: way for way in (PackedRow(), CausalRow(), Shared(), States(), Fork(), Plain())
}
"""By name, in the order they are tried; the last works for every model."""

_PROMPT, _RESPONSE, _PAIRS = 8, 4, 2
"""Short, as 4-bit products are slow on a CPU; two pairs show whether one sees the other."""


def choose_scoring(
    model: Any,
    wanted: str,
    nll_scope: str,
    pairs: Sequence[TokenPair],
    recomputes: bool,
    row: str = "packed",
) -> Scoring:
    """Return the first way that gives the loss and the gradient of plain rows on this model.

    Args:
        model: with an adapter attached.
        wanted: "auto", or a way to use without trying.
        nll_scope: of the objective.
        pairs: a few are cut short and tried.
        recomputes: whether layers are checkpointed.
        row: which of the ways with one row is tried, "packed" or "causal": they fit the same
            models, and the lengths of all pairs tell which is better.
    """
    if wanted != "auto":
        return Scoring(WAYS[wanted], nll_scope)
    *others, plain = WAYS.values()
    tried = [_shortened(pair) for pair in pairs[:_PAIRS]]
    reference = _loss_and_gradient(model, Scoring(plain, nll_scope), tried)
    reasons = []
    for way in others:
        if isinstance(way, PackedRow) and way.name != row:
            continue
        if recomputes and not way.can_recompute:
            reasons.append(f"{way}: not with gradient checkpointing")
            continue
        problem = _problem(model, Scoring(way, nll_scope), tried, reference)
        if problem is None:
            return Scoring(way, nll_scope, "; ".join(reasons))
        reasons.append(f"{way}: {problem}")
    return Scoring(plain, nll_scope, "; ".join(reasons))


def cut_problem(model: Any, scoring: Scoring, pairs: Sequence[TokenPair]) -> str | None:
    """Say why kept outputs below `scoring.cut` do not fit a model, or None if they do.

    Args:
        model: with an adapter attached.
        scoring: with a cut.
        pairs: a few are cut short and tried.
    """
    tried = [_shortened(pair) for pair in pairs[:_PAIRS]]
    reference = _loss_and_gradient(model, replace(scoring, cut=0), tried)
    cache = ActivationCache(model, scoring, MemoryStore(1 << 30))
    return _problem(model, scoring, tried, reference, cache.feed)


def compile_problem(model: Any, scoring: Scoring, pairs: Sequence[TokenPair]) -> str | None:
    """Say why a compiled step does not fit a model, or None if it does."""
    tried = [_shortened(pair) for pair in pairs[:_PAIRS]]
    reference = _loss_and_gradient(model, scoring, tried)
    return _problem(model, scoring, tried, reference, compiled=True)


def _shortened(pair: TokenPair) -> TokenPair:
    # A labelled answer has no other side; any tokens will do.
    other = pair.rejected or pair.prompt
    return TokenPair(pair.prompt[-_PROMPT:], pair.chosen[:_RESPONSE], other[:_RESPONSE])


def _problem(
    model: Any,
    scoring: Scoring,
    pairs: Sequence[TokenPair],
    reference: tuple[float, Any],
    feed: Feed = own_arrays,
    compiled: bool = False,
) -> str | None:
    """Say why a way does not fit, or None if it does."""
    try:
        loss, gradient = _loss_and_gradient(model, scoring, pairs, feed, compiled)
    except Exception as error:  # a model that does not fit fails in whatever way its code does
        return describe(error)[:100]
    wanted_loss, wanted = reference
    # Fewer bits round differently in another order; a wrong way is wrong by its own size.
    tolerance = 1e-3 if is_full_precision(model) and has_exact_products() else 0.1
    distance = max(_distance(gradient[name], wanted[name]) for name in wanted)
    if not (abs(loss - wanted_loss) < tolerance * abs(wanted_loss) and distance < tolerance):
        return f"gradients differ by {distance:.1g}"
    return None


def is_full_precision(model: Any) -> bool:
    """Tell whether no array of a model is in half precision."""
    arrays: Any = tree_flatten(model.parameters())
    return all(array.dtype not in (mx.float16, mx.bfloat16) for _, array in arrays)


def _distance(one: mx.array, other: mx.array) -> float:
    size: Any = mx.linalg.norm(other.flatten()).item()
    gap: Any = mx.linalg.norm((one - other).flatten()).item()
    return gap / size if size else 0.0


def _loss_and_gradient(
    model: Any,
    scoring: Scoring,
    pairs: Sequence[TokenPair],
    feed: Feed = own_arrays,
    compiled: bool = False,
) -> tuple[float, dict[str, mx.array]]:
    batch = scoring.build(pairs, range(len(pairs)))
    arrays = feed(batch)
    counts = (batch.pairs, batch.nll_tokens, batch.response_tokens)
    totals = StepTotals(*(mx.array(float(count)) for count in counts))
    objective = Reward() if scoring.rates else Orpo(lam=1.0)
    params = model.trainable_parameters()

    def loss_of(params: Any, *arrays: mx.array) -> mx.array:
        model.update(params)
        scores = scoring.score(model, arrays)
        return objective(scores, None, totals)[0]

    both = mx.value_and_grad(loss_of)
    try:
        with scoring.way.patched(model):
            loss, gradient = (mx.compile(both) if compiled else both)(params, *arrays)
        mx.eval(loss, gradient)
    finally:
        model.update(params)
    value: Any = loss.item()
    return value, dict(tree_flatten(gradient))
