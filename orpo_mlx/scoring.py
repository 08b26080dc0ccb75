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
from orpo_mlx.data.packing import HEAD_CHUNK, Group, Packed, pack, rectangle
from orpo_mlx.data.pairs import Batch, TokenPair
from orpo_mlx.data.shapes import Frame, ShapeLadder
from orpo_mlx.head import head_logps
from orpo_mlx.losses import PairScores, masked_sum, mean_logps, token_logps
from orpo_mlx.seams import (
    PackedCache,
    SharedCache,
    fork_cache,
    has_grouped_queries,
    packed_attention,
    run_body,
    stored_below,
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
        members: the pairs themselves.
        places: for each array of inputs, where its states stand; see `Scoring.places`. Empty
            without a cut.
        is_placed: whether the arrays are MLX's; until then another thread may make them.
    """

    arrays: Sequence[Any]
    pairs: int
    tokens: int
    nll_tokens: int
    indices: tuple[int, ...]
    members: tuple[TokenPair, ...] = ()
    places: tuple[np.ndarray, ...] = ()
    is_placed: bool = True

    def placed(self) -> MicroBatch:
        """Return the batch with its arrays handed to MLX, by the thread that computes with them."""
        if self.is_placed:
            return self
        return self._replace(arrays=tuple(map(mx.array, self.arrays)), is_placed=True)


@dataclass(frozen=True)
class Scoring:
    """One way to score pairs.

    Attributes:
        name: packed, shared, fork or plain.
        nll_scope: "full" counts prompt + response of the chosen row, "response" only the latter.
        why: what spoke against the ways tried before, "" if nothing was.
        chunk: scored positions whose logits are held at a time; see `head.head_logps`.
        cut: blocks at the bottom whose outputs are handed in; see trunk_cache.py.
        ladder: the shapes batches are filled up to, so that few are compiled; None = as tight as
            they come.
    """

    name: str
    nll_scope: str
    why: str = ""
    chunk: int = HEAD_CHUNK
    cut: int = 0
    ladder: ShapeLadder | None = None

    def build(self, pairs: Sequence[TokenPair], indices: Sequence[int]) -> MicroBatch:
        """Lay out the pairs at these positions of a dataset for one forward pass."""
        return self.lay_out(pairs, indices).placed()

    def lay_out(self, pairs: Sequence[TokenPair], indices: Sequence[int]) -> MicroBatch:
        """Do what `build` does in NumPy alone, as a thread beside MLX's own may."""
        chosen = [pairs[i] for i in indices]
        return MicroBatch(
            arrays=tuple(self._arrays(chosen)),
            pairs=len(chosen),
            tokens=sum(pair.size for pair in chosen),
            nll_tokens=sum(nll_tokens(pair, self.nll_scope) for pair in chosen),
            indices=tuple(indices),
            members=tuple(chosen),
            places=tuple(self.places(chosen)) if self.cut else (),
            is_placed=False,
        )

    def _arrays(self, pairs: Sequence[TokenPair]) -> Sequence[np.ndarray]:
        frame = self.ladder.frame_for(pairs) if self.ladder else None
        if self.name == "packed":
            return _packed_arrays(pairs, self.nll_scope, frame)
        if self.name == "plain":
            return _plain_arrays(pairs, self.nll_scope, frame)
        return _WAYS[self.name][0](pairs, self.nll_scope)

    def places(self, pairs: Sequence[TokenPair]) -> list[np.ndarray]:
        """Return where each cell of the inputs finds its state among those of the pairs.

        The states of a pair stand in the order prompt without its last token, inputs of the chosen
        answer, inputs of the rejected one (both begin with the prompt's last token); those of the
        pairs follow one another. Padding, and a token that is only predicted, has none: -1.
        """
        starts = np.cumsum([0, *(input_tokens(pair) for pair in pairs)]).tolist()
        # Places are laid out as tokens would be; 0 is padding, so they count from 1.
        numbered = [_numbered(p, start + 1) for p, start in zip(pairs, starts, strict=False)]
        arrays = self._arrays(numbered)[: INPUTS[self.name]]
        flat = np.concatenate([array.ravel() for array in arrays])
        for pair, own in zip(pairs, numbered, strict=True):
            # The prompt's last token begins both answers, the chosen one first.
            flat[np.flatnonzero(flat == own.prompt[-1])[1:]] += len(pair.chosen)
        ends = np.cumsum([array.size for array in arrays])[:-1]
        parts = np.split(flat - 1, ends)
        return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]

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

    def score(self, model: Any, arrays: Sequence[mx.array]) -> PairScores:
        """Score the pairs of a micro-batch in the order of its indices.

        With a cut the last arrays are the states above it, one for each pass through the body.
        """
        score = _WAYS[self.name][1]
        if not self.cut:
            return score(model, tuple(arrays), self)
        passes = INPUTS[self.name]
        with stored_below(model, self.cut, arrays[-passes:]):
            return score(model, tuple(arrays[:-passes]), self)

    def run_body(self, model: Any, arrays: Sequence[mx.array]) -> list[mx.array]:
        """Return the hidden states of each pass through the body, [B, T, hidden]."""
        return _BODIES[self.name](model, tuple(arrays))


INPUTS = {"packed": 1, "shared": 2, "plain": 1}
"""Arrays of inputs, which come first, and so passes through the body; ways that can be cut."""


def input_tokens(pair: TokenPair) -> int:
    """Return the tokens of a pair that a model must see: the prompt once, no response's last."""
    return len(pair.prompt) - 1 + len(pair.chosen) + len(pair.rejected)


def _numbered(pair: TokenPair, start: int) -> TokenPair:
    """Return the pair with the numbers of its states instead of tokens; a response's last token,
    which is predicted and never an input, has none."""
    chosen = start + len(pair.prompt)
    rejected = chosen + len(pair.chosen)
    return TokenPair(
        list(range(start, chosen)),
        [*range(chosen, rejected - 1), 0],
        [*range(rejected, rejected + len(pair.rejected) - 1), 0],
    )


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


def _plain_arrays(
    pairs: Sequence[TokenPair], nll_scope: str, frame: Frame | None = None
) -> Sequence[np.ndarray]:
    width, filling = 0, 0
    if frame is not None:
        width, filling = frame.longest + 1, len(frame.slots) - len(pairs)
    pairs = [*pairs, *[TokenPair([], [], [])] * filling]
    batch = build_batch(pairs, range(len(pairs)), pad_id=0, at_least=width)
    return shift_batch(batch, nll_scope)


def _plain_body(model: Any, arrays: Arrays) -> list[mx.array]:
    return [run_body(model, Shifted(*arrays).inputs)]


def _score_plain(model: Any, arrays: Arrays, _: Scoring) -> PairScores:
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


def _packed_arrays(
    pairs: Sequence[TokenPair], nll_scope: str, frame: Frame | None = None
) -> list[np.ndarray]:
    packed = pack(pairs, score_prompts=nll_scope == "full", frame=frame)
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


def _packed_body(model: Any, arrays: Arrays) -> list[mx.array]:
    packed: Any = _unflatten(arrays)
    with packed_attention(model):
        cache = [PackedCache(packed.positions, build_attend(packed))] * len(model.layers)
        return [run_body(model, packed.ids[None], cache)]


def _score_packed(model: Any, arrays: Arrays, scoring: Scoring) -> PairScores:
    packed: Any = _unflatten(arrays)
    hidden = _packed_body(model, arrays)[0][0]
    if scoring.nll_scope != "full":
        hidden = hidden[packed.scored]
    logps = head_logps(model, hidden, packed.targets, scoring.chunk)
    scores = [_score_group(logps, group, scoring.nll_scope) for group in packed.groups]
    joined = (mx.concatenate(list(part)) for part in zip(*scores, strict=True))
    return PairScores(*(part[packed.order] for part in joined))


def _score_group(logps: mx.array, group: Any, nll_scope: str) -> PairScores:
    pairs = group.prompt_lengths.shape[0]
    sums = _sum_rows(logps, group.answer_scores, group.answer_lengths)
    means = sums / mx.maximum(group.answer_lengths, 1)  # a filling pair has no answer
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


def _score_rows(model: Any, hidden: mx.array, arrays: Arrays, scoring: Scoring) -> PairScores:
    """Score hidden states [rows, hidden] by the arrays of `_score_arrays`."""
    scored, targets, *group = arrays
    logps = head_logps(model, hidden[scored], targets, scoring.chunk)
    return _score_group(logps, Group(*group), scoring.nll_scope)


def _shared_body(model: Any, arrays: Arrays) -> list[mx.array]:
    prompts, answers, _, _, lengths, *_ = arrays
    grouped = has_grouped_queries(model)
    cache = [SharedCache(lengths, prompts.shape[1], grouped) for _ in model.layers]
    before = run_body(model, prompts, cache)
    for layer_cache in cache:
        layer_cache.begin_answers()
    return [before, run_body(model, answers, cache)]


def _score_shared(model: Any, arrays: Arrays, scoring: Scoring) -> PairScores:
    flat = [part.reshape(-1, part.shape[-1]) for part in _shared_body(model, arrays)]
    return _score_rows(model, mx.concatenate(flat), arrays[2:], scoring)


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


def _score_fork(model: Any, arrays: Arrays, scoring: Scoring) -> PairScores:
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
    return _score_rows(model, rows, scores, scoring)


def _widened(rows: mx.array, width: int) -> mx.array:
    return mx.pad(rows, [(0, width - rows.shape[0]), (0, 0)])


_Way = tuple[Callable[..., Sequence[np.ndarray]], Callable[..., PairScores]]
_WAYS: dict[str, _Way] = {
    "packed": (_packed_arrays, _score_packed),
    "shared": (_shared_arrays, _score_shared),
    "fork": (_fork_arrays, _score_fork),
    "plain": (_plain_arrays, _score_plain),
}
_BODIES = {"packed": _packed_body, "shared": _shared_body, "plain": _plain_body}
