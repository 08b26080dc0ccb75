"""Model and pairs to log-probs: what all ways have in common.

    packed  one row of real tokens, prompts once, no padding (attention.py, models/patches.py)
    causal  the same, prompts padded nowhere and no mask arrays; for long rows (packed.py)
    shared  two padded passes: prompts, then answers over the prompts' keys and values
    fork    per pair: the prompt into the model's own cache, each answer from a copy of it
    plain   both rows of a pair in full; works for every causal model

Each gives the same numbers; `select` holds the table of them, tries them in this
order on the model at hand and takes the first that gives the loss and gradient of plain rows. Here
is also the only place where tokens are shifted by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from orpo_mlx.data.batching.buckets import Bucket, BucketTable
from orpo_mlx.data.batching.packed import HEAD_CHUNK, Group, rectangle
from orpo_mlx.data.batching.shape import BatchShape, Lengths
from orpo_mlx.data.types import Batch, TokenPair
from orpo_mlx.models.modes import evaluating
from orpo_mlx.models.patches import stored_below
from orpo_mlx.objectives.base import PairScores, ReferenceScores
from orpo_mlx.objectives.numerics import masked_sum
from orpo_mlx.scoring.head import REWARD, read_out
from orpo_mlx.scoring.logprobs import token_logps


class MicroBatch(NamedTuple):
    """Pairs ready for one forward pass.

    Attributes:
        arrays: what the scoring needs, flat, so that a compiled function can take it.
        pairs: how many.
        tokens: real tokens in both rows of each pair, whether computed once or twice.
        nll_tokens: chosen tokens the NLL counts.
        response_tokens: those of the chosen responses.
        indices: of the pairs in the dataset.
        members: the pairs themselves, as they are laid out.
        places: for each array of inputs, where its states stand; see `Scoring.places`. Empty
            without a cut.
        reference: [2, B] what chosen and rejected are compared with (`TokenPair.reference`), for
            the arrays' pairs; with labels [3, B]. None where the pairs have none.
        is_placed: whether the arrays are MLX's; until then another thread may make them.
    """

    arrays: Sequence[Any]
    pairs: int
    tokens: int
    nll_tokens: int
    response_tokens: int
    indices: tuple[int, ...]
    members: tuple[TokenPair, ...] = ()
    places: tuple[np.ndarray, ...] = ()
    reference: Any = None
    is_placed: bool = True

    def placed(self) -> MicroBatch:
        """Return the batch with its arrays handed to MLX, by the thread that computes with them."""
        if self.is_placed:
            return self
        return self._replace(arrays=tuple(map(mx.array, self.arrays)), is_placed=True)


class Way:
    """A way to score pairs: how they are laid out, and how a model computes them.

    Attributes:
        name: what settings, events and checkpoints call it.
        passes: through the model's body; their inputs come first among the arrays.
        can_bucket: batches can be filled up to a few shapes, so that few steps are compiled.
        can_keep: outputs of the blocks below the adapter can be handed in (activation cache).
        can_recompute: a block can be computed again in the backward pass: its cache holds no array
            that the first computation changed.
        has_chunks: logits are made in chunks, not all at once.
    """

    name = ""
    passes = 1
    can_bucket = False
    can_keep = True
    can_recompute = True
    has_chunks = True

    def __str__(self) -> str:
        return self.name

    def arrays(
        self, pairs: Sequence[TokenPair], nll_scope: str, bucket: Bucket | None = None
    ) -> Sequence[np.ndarray]:
        """Lay pairs out in NumPy.

        Args:
            pairs: of one micro-batch.
            nll_scope: of the objective.
            bucket: what to fill the batch up to, if this way can.
        """
        raise NotImplementedError

    def hidden(self, model: Any, arrays: Sequence[mx.array]) -> list[mx.array]:
        """Return the hidden states of each pass through the body, [..., T, hidden]."""
        raise NotImplementedError

    def score(
        self, model: Any, arrays: Sequence[mx.array], nll_scope: str, chunk: int
    ) -> PairScores:
        """Score the pairs of a micro-batch, [B] in their order.

        Args:
            model: an mlx-lm model.
            arrays: of `arrays`, handed to MLX.
            nll_scope: the arrays were laid out for.
            chunk: scored positions whose logits are held at a time.
        """
        raise NotImplementedError

    def patched(self, model: Any) -> AbstractContextManager[None]:
        """Return the context in which gradients of `score` must be taken."""
        return nullcontext()

    def cost(self, pairs: Sequence[Lengths]) -> int:
        """Return the tokens that one forward pass over these pairs computes."""
        raise NotImplementedError

    def batch_shape(self, pairs: Sequence[Lengths], nll_scope: str) -> BatchShape:
        """Return what one forward pass over pairs of these lengths, at least one, computes."""
        raise NotImplementedError

    def worst_of(self, pairs: Sequence[Lengths], members: int) -> Sequence[Lengths]:
        """Return pairs such that no `members` of the given ones make a larger batch."""
        return pairs

    def allow_for(self, shape: BatchShape, tokens: int) -> BatchShape:
        """Return a shape for batches that by chance fill a budget of tokens better than it does."""
        return shape

    def bucket_shape(self, bucket: Bucket, nll_scope: str) -> BatchShape:
        """Return what a forward pass computes whose batch is filled up to a bucket."""
        raise NotImplementedError

    def bucket_cost(self, bucket: Bucket) -> float:
        """Return what a forward pass over a full bucket takes, in tokens of the linear layers."""
        raise NotImplementedError


@dataclass(frozen=True)
class Scoring:
    """How a run scores pairs.

    Attributes:
        way: of scoring.
        nll_scope: "full" counts prompt + response of the chosen row, "response" only the latter;
            `REWARD` scores by a reward model's head.
        why: what spoke against the ways tried before, "" if nothing was.
        chunk: scored positions whose logits are held at a time; see `head.head_logps`.
        cut: blocks at the bottom whose outputs are handed in; see activation_cache.py.
        bucket_table: the shapes batches are filled up to, so that few are compiled; None = as
            tight as they come.
    """

    way: Way
    nll_scope: str
    why: str = ""
    chunk: int = HEAD_CHUNK
    cut: int = 0
    bucket_table: BucketTable | None = None

    @property
    def rates(self) -> bool:
        """Whether scores are a reward model's rewards, not log-probs."""
        return self.nll_scope == REWARD

    def build(self, pairs: Sequence[TokenPair], indices: Sequence[int]) -> MicroBatch:
        """Lay out the pairs at these positions of a dataset for one forward pass."""
        return self.lay_out(pairs, indices).placed()

    def lay_out(self, pairs: Sequence[TokenPair], indices: Sequence[int]) -> MicroBatch:
        """Do what `build` does in NumPy alone, as a thread beside MLX's own may."""
        read = [pairs[i] for i in indices]
        chosen = self.laid(read)
        bucket = self._bucket_of(chosen)
        return MicroBatch(
            arrays=tuple(self.way.arrays(chosen, self.nll_scope, bucket)),
            pairs=len(chosen),
            tokens=sum(pair.size for pair in read),
            nll_tokens=sum(nll_tokens(pair, self.nll_scope) for pair in read),
            response_tokens=sum(len(pair.chosen) for pair in read),
            indices=tuple(indices),
            members=tuple(chosen),
            places=tuple(self.places(chosen)) if self.cut else (),
            reference=_reference_array(chosen, len(bucket.slots) if bucket else len(chosen)),
            is_placed=False,
        )

    def laid(self, pairs: Sequence[TokenPair]) -> Sequence[TokenPair]:
        """Return the pairs as they are laid out.

        A reward is read where an answer's last token goes in, which is elsewhere only predicted:
        so each answer gets a token more, which is predicted there and never goes in itself.
        """
        if not self.rates:
            return pairs
        return [replace(p, chosen=[*p.chosen, 0], rejected=[*p.rejected, 0]) for p in pairs]

    def _bucket_of(self, pairs: Sequence[TokenPair]) -> Bucket | None:
        return self.bucket_table.bucket_for(pairs) if self.bucket_table else None

    def places(self, pairs: Sequence[TokenPair]) -> list[np.ndarray]:
        """Return where each cell of the inputs finds its state among those of the pairs.

        The states of a pair stand in the order prompt without its last token, inputs of the chosen
        answer, inputs of the rejected one (both begin with the prompt's last token); those of the
        pairs follow one another. Padding, and a token that is only predicted, has none: -1.
        """
        starts = np.cumsum([0, *(input_tokens(pair) for pair in pairs)]).tolist()
        # Places are laid out as tokens would be; 0 is padding, so they count from 1.
        numbered = [_numbered(p, start + 1) for p, start in zip(pairs, starts, strict=False)]
        laid_out = self.way.arrays(numbered, self.nll_scope, self._bucket_of(numbered))
        arrays = laid_out[: self.way.passes]
        flat = np.concatenate([array.ravel() for array in arrays])
        for pair, own in zip(pairs, numbered, strict=True):
            # The prompt's last token begins both answers, the chosen one first.
            if pair.rejected:
                flat[np.flatnonzero(flat == own.prompt[-1])[1:]] += len(pair.chosen)
        ends = np.cumsum([array.size for array in arrays])[:-1]
        parts = np.split(flat - 1, ends)
        return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]

    def cost(self, pairs: Sequence[TokenPair]) -> int:
        """Return the tokens that one forward pass over these pairs computes."""
        return self.way.cost(
            [Lengths(len(p.prompt), len(p.chosen), len(p.rejected)) for p in self.laid(pairs)]
        )

    def score(self, model: Any, arrays: Sequence[mx.array]) -> PairScores:
        """Score the pairs of a micro-batch in the order of its indices.

        With a cut the last arrays are the states above it, one for each pass through the body.
        """
        if not self.cut:
            return self.way.score(model, arrays, self.nll_scope, self.chunk)
        passes = self.way.passes
        with stored_below(model, self.cut, arrays[-passes:]):
            return self.way.score(model, arrays[:-passes], self.nll_scope, self.chunk)


def _reference_array(pairs: Sequence[TokenPair], rows: int) -> np.ndarray | None:
    """Return [2, rows] of the pairs' reference, 0 for rows that stand for no pair; labels below."""
    sums = [
        pair.reference if pair.label is None else (*pair.reference, pair.label)
        for pair in pairs
        if pair.reference is not None
    ]
    if len(sums) < len(pairs):
        return None
    return np.pad(np.array(sums, np.float32).T, ((0, 0), (0, rows - len(sums))))


def reference_scores(sums: Any) -> ReferenceScores | None:
    """Return what `MicroBatch.reference` holds by name."""
    if sums is None:
        return None
    sums = mx.array(sums)
    return ReferenceScores(sums[0], sums[1], sums[2] > 0 if len(sums) > 2 else None)


def input_tokens(pair: TokenPair) -> int:
    """Return the tokens of a pair that a model must see: the prompt once, no response's last."""
    return len(pair.prompt) - 1 + len(pair.chosen) + len(pair.rejected)


def _numbered(pair: TokenPair, start: int) -> TokenPair:
    """Return the pair with the numbers of its states instead of tokens; a response's last token,
    which is predicted and never an input, has none."""
    chosen = start + len(pair.prompt)
    rejected = chosen + len(pair.chosen)
    end = rejected + len(pair.rejected)
    return TokenPair(
        list(range(start, chosen)),
        [*range(chosen, rejected - 1), 0],
        # A labelled answer has no other side.
        [*range(rejected, end - 1), 0] if pair.rejected else [],
    )


def nll_tokens(pair: TokenPair, nll_scope: str) -> int:
    """Return how many chosen tokens of a pair the NLL counts; the first token never is."""
    return len(pair.chosen) + (len(pair.prompt) - 1 if nll_scope == "full" else 0)


# Tokens and what follows them


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


def score_logits(logits: mx.array, shifted: Shifted) -> PairScores:
    """Turn the logits [2B, T-1, V] of a shifted batch into what the objective needs."""
    logps = token_logps(logits, shifted.targets)
    return _score_shifted(logps, shifted, shifted.response_mask)


def last_scores(values: mx.array, shifted: Shifted) -> PairScores:
    """Return each row's value [2B, T-1] at the last of its responses' positions."""
    mask = shifted.response_mask
    is_last = mask & (mx.cumsum(mask, axis=-1) == mask.sum(axis=-1, keepdims=True))
    scores = _score_shifted(values, shifted, is_last, added=1)
    return scores._replace(nll_sum=mx.zeros_like(scores.chosen_sum))


def _score_shifted(
    values: mx.array, shifted: Shifted, mask: mx.array, added: int = 0
) -> PairScores:
    """Sum values under a mask; `added` tokens of each response stand for nothing."""
    pairs = shifted.nll_mask.shape[0]
    sums = masked_sum(values, mask)
    counts = mx.maximum(shifted.response_mask.sum(axis=-1) - added, 0)
    return PairScores(
        chosen_sum=sums[:pairs],
        chosen_count=counts[:pairs],
        rejected_sum=sums[pairs:],
        rejected_count=counts[pairs:],
        nll_sum=-masked_sum(values[:pairs], shifted.nll_mask),
        nll_tokens=mx.maximum(shifted.nll_mask.sum(axis=-1) - added, 0),
    )


# Log-probs of scored positions into scores


def score_arrays(
    pairs: Sequence[TokenPair], nll_scope: str, prompt_width: int, width: int
) -> list[np.ndarray]:
    """Return which rows of [B * P + 2B * A] hidden states are scored, and what belongs to whom.

    Args:
        pairs: of one micro-batch.
        nll_scope: of the objective.
        prompt_width, width: P and A, rows of hidden states of a prompt and of an answer.
    """
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


def score_rows(
    model: Any, states: Sequence[mx.array], arrays: Sequence[mx.array], nll_scope: str, chunk: int
) -> PairScores:
    """Score the hidden states [..., hidden] of all passes by the arrays of `score_arrays`."""
    scored, targets, *group = arrays
    hidden = mx.concatenate([part.reshape(-1, part.shape[-1]) for part in states])
    values = read_out(model, hidden[scored], targets, nll_scope, chunk)
    return score_group(values, Group(*group), nll_scope)


def score_group(values: mx.array, group: Any, nll_scope: str) -> PairScores:
    """Sum log-probs [N] of scored positions into those of a group's pairs; of rewards the last
    one of each answer counts."""
    pairs = group.prompt_lengths.shape[0]
    lengths = group.answer_lengths
    first = lengths - 1 if nll_scope == REWARD else mx.zeros_like(lengths)
    sums = _sum_rows(values, group.answer_scores, first, lengths)
    if nll_scope == REWARD:
        lengths = mx.maximum(first, 0)  # without the token that `Scoring.laid` has added
        sides = (sums[:pairs], lengths[:pairs], sums[pairs:], lengths[pairs:])
        return PairScores(*sides, mx.zeros_like(sides[0]), lengths[:pairs])
    nll, count = -sums[:pairs], lengths[:pairs]
    if nll_scope == "full" and group.prompt_scores.size:
        none = mx.zeros_like(group.prompt_lengths)
        nll = nll - _sum_rows(values, group.prompt_scores, none, group.prompt_lengths)
        count = count + group.prompt_lengths
    return PairScores(sums[:pairs], lengths[:pairs], sums[pairs:], lengths[pairs:], nll, count)


def _sum_rows(values: mx.array, places: mx.array, first: mx.array, end: mx.array) -> mx.array:
    """Sum the values of each row from one place up to another."""
    at = mx.arange(places.shape[1])
    return masked_sum(values[places], (at >= first[:, None]) & (at < end[:, None]))


Feed = Callable[[MicroBatch], Sequence[mx.array]]
"""From a batch to the arrays that are computed with."""


def own_arrays(batch: MicroBatch) -> Sequence[mx.array]:
    """Return the arrays of a batch, without anything kept from before."""
    return batch.placed().arrays


def iter_scores(
    model: Any, batches: Sequence[MicroBatch], scoring: Scoring, feed: Feed = own_arrays
) -> Iterator[tuple[MicroBatch, PairScores]]:
    """Yield each batch with the scores of its pairs, dropout off: all evaluations go this way."""
    with evaluating(model):
        for batch in batches:
            yield batch, scoring.score(model, feed(batch))
            drop_freed()


SMALLEST_CACHE = 256 << 20
"""Bytes of freed buffers that MLX may always keep: without any, each batch would ask the system for
all its memory again."""


def drop_freed() -> None:
    """Give freed buffers back to the system, but for a few.

    Batches of other lengths reuse few of them: kept, they came to the peak once more, and saved no
    time (docs/measured.md).
    """
    if mx.get_cache_memory() > SMALLEST_CACHE:
        mx.clear_cache()
