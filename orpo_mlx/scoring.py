"""Model and pairs to log-probs, four ways that give the same numbers.

    packed  one row of real tokens, prompts once, no padding (attention.py, seams.py)
    shared  two padded passes: prompts, then answers over the prompts' keys and values
    fork    per pair: the prompt into the model's own cache, each answer from a copy of it
    plain   both rows of a pair in full; works for every causal model

`choose_scoring` tries them in this order on the model at hand and takes the first that gives the
loss and gradient of plain rows. Here is also the only place where tokens are shifted by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from orpo_mlx.attention import build_attend
from orpo_mlx.data.batches import build_batch
from orpo_mlx.data.packing import Group, Packed, pack, rectangle
from orpo_mlx.data.pairs import Batch, TokenPair
from orpo_mlx.head import head_logps
from orpo_mlx.losses import PairScores, masked_sum, mean_logps, token_logps
from orpo_mlx.seams import (
    PackedCache,
    SharedCache,
    fork_cache,
    has_grouped_queries,
    packed_attention,
    run_body,
)

Arrays = tuple[mx.array, ...]


class MicroBatch(NamedTuple):
    """Pairs ready for one forward pass.

    Attributes:
        arrays: what the scoring needs, flat, so that a compiled function can take it.
        pairs: how many.
        tokens: real tokens in both rows of each pair, whether computed once or twice.
        nll_tokens: chosen tokens the NLL counts.
        indices: of the pairs in the dataset.
    """

    arrays: Arrays
    pairs: int
    tokens: int
    nll_tokens: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Scoring:
    """One way to score pairs.

    Attributes:
        name: packed, shared, fork or plain.
        nll_scope: "full" counts prompt + response of the chosen row, "response" only the latter.
        why: what spoke against the ways tried before, "" if nothing was.
    """

    name: str
    nll_scope: str
    why: str = ""

    def build(self, pairs: Sequence[TokenPair], indices: Sequence[int]) -> MicroBatch:
        """Lay out the pairs at these positions of a dataset for one forward pass."""
        chosen = [pairs[i] for i in indices]
        make = _WAYS[self.name][0]
        arrays = make(chosen, self.nll_scope)
        return MicroBatch(
            arrays=tuple(mx.array(array) for array in arrays),
            pairs=len(chosen),
            tokens=sum(pair.size for pair in chosen),
            nll_tokens=sum(nll_tokens(pair, self.nll_scope) for pair in chosen),
            indices=tuple(indices),
        )

    def seams(self, model: Any) -> AbstractContextManager[None]:
        """Return the context in which gradients of `score` must be taken."""
        return packed_attention(model) if self.name == "packed" else nullcontext()

    def cost(self, pairs: Sequence[TokenPair]) -> int:
        """Return the tokens that one forward pass over these pairs computes."""
        if self.name in ("packed", "fork"):
            return sum(pair.size - len(pair.prompt) for pair in pairs)
        if self.name == "shared":
            prompt = max(len(pair.prompt) for pair in pairs)
            answer = max(max(len(pair.chosen), len(pair.rejected)) for pair in pairs)
            return len(pairs) * (prompt + 2 * answer)
        return 2 * len(pairs) * max(pair.longest for pair in pairs)

    def score(self, model: Any, arrays: Arrays) -> PairScores:
        """Score the pairs of a micro-batch in the order of its indices."""
        return _WAYS[self.name][1](model, arrays, self.nll_scope)


def nll_tokens(pair: TokenPair, nll_scope: str) -> int:
    """Return how many chosen tokens of a pair the NLL counts; the first token never is."""
    return len(pair.chosen) + (len(pair.prompt) - 1 if nll_scope == "full" else 0)


# Plain rows


class Shifted(NamedTuple):
    """A padded batch with its one-token shift done: `targets[:, t]` follows `inputs[:, t]`.

    Attributes:
        inputs, targets: [2B, T-1] token ids; rows 0..B-1 chosen, B..2B-1 rejected.
        response_mask: [2B, T-1] true where the target is a response token.
        nll_mask: [B, T-1] true where the chosen row's target counts in the NLL.
    """

    inputs: Any
    targets: Any
    response_mask: Any
    nll_mask: Any


def shift_batch(batch: Batch, nll_scope: str) -> Shifted:
    """Shift ids and masks together; the first token of a row is never predicted.

    Example:
        ids `1 7 | 8 2 0` (prompt 1 7, response 8 2, one padding) become inputs `1 7 8 2`, targets
        `7 8 2 0`, response mask `0 1 1 0`, and NLL mask `1 1 1 0` (full) or `0 1 1 0`.
    """
    nll_mask = batch.token_mask if nll_scope == "full" else batch.response_mask
    return Shifted(
        inputs=batch.input_ids[:, :-1],
        targets=batch.input_ids[:, 1:],
        response_mask=batch.response_mask[:, 1:],
        nll_mask=nll_mask[: batch.pairs, 1:],
    )


def _plain_arrays(pairs: Sequence[TokenPair], nll_scope: str) -> Sequence[np.ndarray]:
    return shift_batch(build_batch(pairs, range(len(pairs)), pad_id=0), nll_scope)


def _score_plain(model: Any, arrays: Arrays, _: str) -> PairScores:
    """Padding is on the right and attention is causal, so no real token ever sees it."""
    shifted = Shifted(*arrays)
    return score_logits(model(shifted.inputs), shifted)


def score_logits(logits: mx.array, shifted: Shifted) -> PairScores:
    """Turn the logits [2B, T-1, V] of a shifted batch into what the objective needs."""
    logps = token_logps(logits, shifted.targets)
    pairs = shifted.nll_mask.shape[0]
    response = mean_logps(logps, shifted.response_mask)
    return PairScores(
        chosen_logps=response[:pairs],
        rejected_logps=response[pairs:],
        nll_sum=-masked_sum(logps[:pairs], shifted.nll_mask),
        nll_tokens=shifted.nll_mask.sum(axis=-1),
    )


# Packed rows


def _packed_arrays(pairs: Sequence[TokenPair], nll_scope: str) -> list[np.ndarray]:
    packed = pack(pairs, score_prompts=nll_scope == "full")
    *rest, groups, order = packed
    return [*rest, order, *(array for group in groups for array in group)]


def _unflatten(arrays: Arrays) -> Packed:
    fixed, each = len(Packed._fields) - 1, len(Group._fields)
    *rest, order = arrays[:fixed]
    groups = tuple(
        Group(*arrays[start : start + each])  # type: ignore[arg-type]
        for start in range(fixed, len(arrays), each)
    )
    return Packed(*rest, groups, order)  # type: ignore[arg-type]


def _score_packed(model: Any, arrays: Arrays, nll_scope: str) -> PairScores:
    packed: Any = _unflatten(arrays)
    with packed_attention(model):
        cache = [PackedCache(packed.positions, build_attend(packed))] * len(model.layers)
        hidden = run_body(model, packed.ids[None], cache)[0]
    if nll_scope != "full":
        hidden = hidden[packed.scored]
    logps = head_logps(model, hidden, packed.targets)
    scores = [_score_group(logps, group, nll_scope) for group in packed.groups]
    joined = (mx.concatenate(list(part)) for part in zip(*scores, strict=True))
    return PairScores(*(part[packed.order] for part in joined))


def _score_group(logps: mx.array, group: Any, nll_scope: str) -> PairScores:
    pairs = group.prompt_lengths.shape[0]
    sums = _sum_rows(logps, group.answer_scores, group.answer_lengths)
    means = sums / group.answer_lengths
    nll, count = -sums[:pairs], group.answer_lengths[:pairs]
    if nll_scope == "full" and group.prompt_scores.size:
        nll = nll - _sum_rows(logps, group.prompt_scores, group.prompt_lengths)
        count = count + group.prompt_lengths
    return PairScores(means[:pairs], means[pairs:], nll, count)


def _sum_rows(logps: mx.array, places: mx.array, lengths: mx.array) -> mx.array:
    mask = mx.arange(places.shape[1]) < lengths[:, None]
    return masked_sum(logps[places], mask)


# Two padded passes


def _shared_arrays(pairs: Sequence[TokenPair], nll_scope: str) -> list[np.ndarray]:
    """Prompts [B, P], answers [2B, A], then what `_score_rows` needs."""
    answers = [(p.prompt[-1:], getattr(p, side)) for side in ("chosen", "rejected") for p in pairs]
    prompts, _ = rectangle([pair.prompt[:-1] for pair in pairs], at_least=1)
    inputs, _ = rectangle([[*last, *response[:-1]] for last, response in answers])
    return [prompts, inputs, *_score_arrays(pairs, nll_scope, prompts.shape[1], inputs.shape[1])]


def _score_arrays(
    pairs: Sequence[TokenPair], nll_scope: str, prompt_width: int, width: int
) -> list[np.ndarray]:
    """Which rows of [B * P + 2B * A] hidden states are scored, and what belongs to whom."""
    full = nll_scope == "full"
    segments = [(i * prompt_width, pair.prompt[1:] if full else []) for i, pair in enumerate(pairs)]
    start = len(pairs) * prompt_width
    responses = [getattr(pair, side) for side in ("chosen", "rejected") for pair in pairs]
    segments += [(start + i * width, response) for i, response in enumerate(responses)]
    scored = [first + t for first, targets in segments for t in range(len(targets))]
    targets = [token for _, targets in segments for token in targets]
    ends = np.cumsum([len(targets) for _, targets in segments]).tolist()
    places = [range(end - len(t), end) for end, (_, t) in zip(ends, segments, strict=True)]
    prompt_scores, _ = rectangle([list(r) for r in places[: len(pairs)]])
    answer_scores, answer_lengths = rectangle([list(r) for r in places[len(pairs) :]])
    prompt_lengths = np.array([len(pair.prompt) - 1 for pair in pairs], np.int32)
    return [
        np.array(scored, np.int32), np.array(targets, np.int32), prompt_lengths, answer_lengths,
        prompt_scores, answer_scores,
    ]  # fmt: skip


def _score_rows(model: Any, hidden: mx.array, arrays: Arrays, nll_scope: str) -> PairScores:
    """Score hidden states [rows, hidden] by the arrays of `_score_arrays`."""
    scored, targets, *group = arrays
    logps = head_logps(model, hidden[scored], targets)
    return _score_group(logps, Group(*group), nll_scope)


def _score_shared(model: Any, arrays: Arrays, nll_scope: str) -> PairScores:
    prompts, answers, *rest = arrays
    grouped = has_grouped_queries(model)
    cache = [SharedCache(rest[2], grouped) for _ in model.layers]
    before = run_body(model, prompts, cache)
    for layer_cache in cache:
        layer_cache.begin_answers()
    after = run_body(model, answers, cache)
    flat = [part.reshape(-1, part.shape[-1]) for part in (before, after)]
    return _score_rows(model, mx.concatenate(flat), tuple(rest), nll_scope)


# One pair at a time, through the model's own caches


def _fork_arrays(pairs: Sequence[TokenPair], nll_scope: str) -> list[np.ndarray]:
    """Per pair its prompt, chosen and rejected inputs at their own length, then the scores."""
    inputs = [
        np.array(ids, np.int32)
        for p in pairs
        for ids in (
            p.prompt[:-1],
            [p.prompt[-1], *p.chosen[:-1]],
            [p.prompt[-1], *p.rejected[:-1]],
        )
    ]
    width = max(len(array) for array in inputs)
    return [*_score_arrays(pairs, nll_scope, width, width), *inputs]


def _score_fork(model: Any, arrays: Arrays, nll_scope: str) -> PairScores:
    from mlx_lm.models.cache import make_prompt_cache

    scores, inputs = arrays[:6], arrays[6:]
    width = max(array.size for array in inputs)
    prompts, chosen, rejected = [], [], []
    for i in range(0, len(inputs), 3):
        cache = make_prompt_cache(model)
        prompt = inputs[i]
        if prompt.size:
            prompts.append(_widened(run_body(model, prompt[None], cache)[0], width))
        for side, ids in ((chosen, inputs[i + 1]), (rejected, inputs[i + 2])):
            side.append(_widened(run_body(model, ids[None], fork_cache(cache))[0], width))
        if not prompt.size:
            prompts.append(mx.zeros_like(chosen[-1]))
    rows = mx.concatenate([*prompts, *chosen, *rejected])
    return _score_rows(model, rows, scores, nll_scope)


def _widened(rows: mx.array, width: int) -> mx.array:
    return mx.pad(rows, [(0, width - rows.shape[0]), (0, 0)])


_Way = tuple[Callable[..., Sequence[np.ndarray]], Callable[..., PairScores]]
_WAYS: dict[str, _Way] = {
    "packed": (_packed_arrays, _score_packed),
    "shared": (_shared_arrays, _score_shared),
    "fork": (_fork_arrays, _score_fork),
    "plain": (_plain_arrays, _score_plain),
}
