"""How much memory a run will need, before its weights are loaded.

The parts follow the code: what a layer must keep for the backward pass (adapter.py, attention.py),
what the head holds at a time (head.py), what an optimizer step adds (step.py). Their factors were
set so that no run of the grid in benchmarks/fit_grid.py needed more than was estimated. That grid
ran on MLX's CPU backend, where attention keeps its scores and matrices are made one after another.
On Metal nothing was measured: the fused kernels there should need less, while buffers that wait for
a command to finish may need more, and the allocator's cache of free buffers comes on top of both.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.packing import (
    HEAD_CHUNK,
    ROW_MULTIPLE,
    WIDTH_MULTIPLE,
    round_up,
    split_into_groups,
)
from orpo_mlx.data.shapes import Frame
from orpo_mlx.errors import ConfigError
from orpo_mlx.model_shape import Linear, ModelShape

F32 = 4
"""Bytes of a float32: adapters, their gradients, moments and log-probs are float32."""
MOMENTS = {"adamw": 2, "lion": 1, "sgd": 1}
"""Numbers an optimizer keeps for each number of the adapter; MLX's SGD has room for a momentum."""


class Lengths(NamedTuple):
    """Tokens of a pair."""

    prompt: int
    chosen: int
    rejected: int

    @property
    def longest(self) -> int:
        """Tokens of the prompt plus the longer response."""
        return self.prompt + max(self.chosen, self.rejected)


@dataclass(frozen=True)
class BatchShape:
    """What one forward pass computes, in tokens.

    Attributes:
        rows: tokens in the linear layers.
        scored: positions whose log-probs are needed.
        cells: query places of the attention's rectangles, padding included.
        keys: key places of the rectangles; a prompt counts once for each answer, too.
        area: query times key places, summed over the rectangles.
        logits: positions whose logits exist all at once (plain scoring only).
    """

    rows: int = 0
    scored: int = 0
    cells: int = 0
    keys: int = 0
    area: int = 0
    logits: int = 0

    def __or__(self, other: BatchShape) -> BatchShape:
        """Return the larger of both in each number."""
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return BatchShape(*(max(pair) for pair in pairs))


def batch_shape(pairs: Sequence[Lengths], way: str, nll_scope: str) -> BatchShape:
    """Return what one forward pass over pairs of these lengths computes.

    Args:
        pairs: of one micro-batch, at least one.
        way: packed, shared, fork or plain.
        nll_scope: of the objective; "full" scores the prompts, too.
    """
    if way == "plain":
        width = round_up(max(pair.longest for pair in pairs) - 1, 32)
        rows = 2 * len(pairs) * width
        return BatchShape(rows, 0, rows, rows, rows * width, rows)
    sizes = [(pair.prompt - 1, max(pair.chosen, pair.rejected)) for pair in pairs]
    if way == "fork":
        groups = [[i] for i in range(len(pairs))]
    else:
        groups = split_into_groups(sizes) if way != "shared" else [list(range(len(pairs)))]
    shapes = [_rectangles([sizes[i] for i in group]) for group in groups]
    cells, keys, area = (sum(column) for column in zip(*shapes, strict=True))
    answers = sum(pair.chosen + pair.rejected for pair in pairs)
    prompts = sum(pair.prompt - 1 for pair in pairs)
    rows = cells if way == "shared" else round_up(prompts + answers, ROW_MULTIPLE)
    scored = answers + (prompts if nll_scope == "full" else 0)
    return BatchShape(rows, round_up(scored, ROW_MULTIPLE), cells, keys, area)


def frame_shape(frame: Frame, way: str, nll_scope: str) -> BatchShape:
    """Return what a forward pass computes whose batch is filled up to a frame, as `batch_shape`.

    Args:
        frame: its shape.
        way: packed or plain.
        nll_scope: of the objective.
    """
    if way == "plain":
        width = round_up(frame.longest, 32)
        rows = 2 * len(frame.slots) * width
        return BatchShape(rows, 0, rows, rows, rows * width, rows)
    groups = split_into_groups(frame.slots)
    shapes = [_rectangles([frame.slots[i] for i in group]) for group in groups]
    cells, keys, area = (sum(column) for column in zip(*shapes, strict=True))
    scored = frame.tokens if nll_scope == "full" else frame.scored
    rows = round_up(frame.tokens, ROW_MULTIPLE)
    return BatchShape(rows, round_up(scored, ROW_MULTIPLE), cells, keys, area)


def _rectangles(sizes: Sequence[tuple[int, int]]) -> tuple[int, int, int]:
    """Return query places, key places and area of a group's two rectangles."""
    prompt = round_up(max(size for size, _ in sizes), WIDTH_MULTIPLE)
    answer = round_up(max(size for _, size in sizes), WIDTH_MULTIPLE)
    count = len(sizes)
    cells = count * prompt + 2 * count * answer
    keys = count * prompt + 2 * count * (prompt + answer)
    area = count * prompt * prompt + 2 * count * answer * (prompt + answer)
    return cells, keys, area


def longest_batch(
    pairs: Sequence[Lengths], config: TrainConfig, way: str, members: int | None = None
) -> BatchShape:
    """Return the most that a forward pass over some of these pairs can compute, in each number.

    The order of the pairs is random, so batches are tried that are full of the worst pairs: the
    longest ones, those with the longest prompts, answers or attention. Within a step pairs of like
    length come together, so windows of the sorted pairs are tried as well.

    Args:
        pairs: all that may meet in a step.
        config: how a step is divided.
        way: of scoring.
        members: pairs in a step; None for those of a training step.
    """
    if members is None:
        members = config.micro_batch_size * config.grad_accumulation_steps
    if way == "shared":
        # One pair may have the longest prompt and another the longest answer.
        prompt, answer = (max(column) for column in zip(*map(_two_sides, pairs), strict=True))
        pairs = [Lengths(prompt, answer, answer)] * min(len(pairs), members)
    ordered = sorted(pairs, key=lambda pair: pair.longest, reverse=True)
    starts = range(0, len(ordered), max(1, len(ordered) // 64))
    tried = [_fill(ordered[start:], config, way, members) for start in starts]
    tried += [_fill(sorted(pairs, key=key, reverse=True), config, way, members) for key in _WORST]
    worst = BatchShape()
    for batch in dict.fromkeys(map(tuple, tried)):  # many are the same, where lengths are alike
        worst |= batch_shape(batch, way, config.nll_scope)
    return worst if way != "packed" else _filled_up(worst, pairs, config, members)


def _two_sides(pair: Lengths) -> tuple[int, int]:
    return pair.prompt, max(pair.chosen, pair.rejected)


_WORST: tuple[Callable[[Lengths], float], ...] = (
    lambda pair: pair.prompt,
    lambda pair: max(pair.chosen, pair.rejected),
    sum,
    lambda pair: _rectangles([(pair.prompt - 1, max(pair.chosen, pair.rejected))])[2],
)


def _fill(
    pairs: Sequence[Lengths], config: TrainConfig, way: str, members: int
) -> Sequence[Lengths]:
    """Return as many of the first pairs as one forward pass takes."""
    if config.batching == "fixed":
        return pairs[: config.micro_batch_size]
    count = 1
    while count < min(members, len(pairs)) and (
        _cost(pairs[: count + 1], way) <= config.tokens_per_batch
    ):
        count += 1
    return pairs[:count]


def _cost(pairs: Sequence[Lengths], way: str) -> int:
    """Return the tokens of a batch as the batching counts them; see `Scoring.cost`."""
    if way in ("plain", "shared"):
        prompt, answer = (max(column) for column in zip(*map(_two_sides, pairs), strict=True))
        longest = max(pair.longest for pair in pairs)
        return len(pairs) * (2 * longest if way == "plain" else prompt + 2 * answer)
    return sum(map(sum, pairs))


def _filled_up(
    batch: BatchShape, pairs: Sequence[Lengths], config: TrainConfig, members: int
) -> BatchShape:
    """Allow for pairs that by chance fill the budget better than any batch tried."""
    if config.batching == "fixed":
        return batch
    sizes = sorted(map(sum, pairs), reverse=True)
    rows = min(max(config.tokens_per_batch, sizes[0]), sum(sizes[:members]))
    rows = max(round_up(rows, ROW_MULTIPLE), batch.rows)
    share = rows / batch.rows
    grown = {name: math.ceil(getattr(batch, name) * share) for name in ("scored", "cells", "keys")}
    return replace(batch, rows=rows, **grown)


@dataclass(frozen=True)
class Estimate:
    """Peak memory of a training run by parts, in bytes.

    Attributes:
        weights: of the frozen model.
        adapter: the adapter, its gradients and the optimizer's moments, all float32.
        activations: what the layers keep for the backward pass.
        attention: scores, masks, keys and values that attention keeps for it.
        head: hidden states and the gradient that is kept for each scored position.
        at_work: the most that is only held for a moment: logits of a few chunks, or what a layer
            computes with.
        margin: for what was not foreseen.
        cache: outputs of the blocks below the adapter that are kept (trunk cache in memory).
    """

    weights: int
    adapter: int
    activations: int
    attention: int
    head: int
    at_work: int
    margin: int
    cache: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Return the parts by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


NOTHING = Estimate(0, 0, 0, 0, 0, 0, 0)
"""The estimate where none can be made."""

# Fitted to benchmarks/fit_grid.py: measured peak less weights, adapter and what is kept, divided by
# one buffer of the kind. They are large because MLX allocates ahead of the computation, up to about
# ten operations (its scheduler's MAX_ACTIVE_TASKS).
LAYER_BUFFERS = 11.0
"""Buffers [rows, widest layer] alive at a time; measured 9.8 to 12.9, of which some are scores."""
SCORE_BUFFERS = 3.5
"""Buffers of attention scores of one layer alive at a time; measured 2.5 to 3.5 besides those."""
RECOMPUTED_BLOCKS = 2.0
"""Blocks whose activations are back at a time with gradient checkpointing; one of attention."""
CHUNK_BUFFERS, TRAINED_CHUNK_BUFFERS = 7.0, 16.0
"""Logits [chunk, vocabulary] alive at a time, for a frozen head and one that is trained itself.
Measured 6.0 to 6.4 of the former, for 2 to 16 chunks."""
LOGIT_BUFFERS = 3.2
"""Logits of the whole batch alive at a time in plain scoring; measured 2.1 to 3.1."""
MARGIN_SHARE, MARGIN_BYTES = 0.1, 8 << 20


@dataclass(frozen=True)
class Grid:
    """What benchmarks/fit_grid.py found: smallest and largest measured peak / estimate."""

    rows: int
    shares: tuple[float, float]
    where: str


MEASURED = Grid(55, (0.47, 0.96), "Linux, CPU")


@dataclass(frozen=True)
class Savings:
    """What is decided by the memory there is; loss and gradient do not depend on it.

    Attributes:
        recompute_every: one of so many blocks is computed again in the backward pass; 0: none.
        head_chunk: scored positions whose logits are held at a time.
    """

    recompute_every: int = 0
    head_chunk: int = HEAD_CHUNK


HEAD_CHUNKS = (512, 256, 128, 64)
"""Chunks for the head that cost about the same time: 128 took 5 % more of the head's time than 256,
and 64 10 % more than that, with 32,000 words on a CPU."""
SMALL_CHUNKS = (32, 16)
"""Chunks for when memory is short; 32 took a sixth more of the head's time than 64, on a CPU."""
RECOMPUTED_SHARES = (8, 4, 3, 2, 1)
"""Values of `Savings.recompute_every` that are tried, the cheapest first."""


@dataclass(frozen=True)
class Costs:
    """What a forward pass and its backward pass need, in bytes; `with_savings` adds it up.

    Attributes:
        weights, adapter, head: as in `Estimate`.
        blocks: transformer blocks with a backward pass; 0 for an evaluation.
        activations, attention: what one of them keeps.
        inputs: hidden states of the whole batch, which a recomputed block keeps.
        layer: what computing one layer takes.
        scored: positions whose logits are made in chunks.
        logit_row: logits of one position.
        all_logits: logits of the whole batch (plain scoring only).
        chunk_buffers: arrays as large as a chunk's logits that are alive at a time.
    """

    weights: int
    adapter: float
    head: float
    blocks: int
    activations: float
    attention: float
    inputs: float
    layer: float
    scored: int
    logit_row: int
    all_logits: float
    chunk_buffers: float = CHUNK_BUFFERS

    def with_savings(self, savings: Savings) -> Estimate:
        """Return the peak memory by parts."""
        every, layer = savings.recompute_every, self.layer
        again = -(-self.blocks // every) if every else 0
        kept = self.blocks - again
        if again:
            layer += RECOMPUTED_BLOCKS * self.activations + self.attention
            # The last block is done with before the first one is computed again.
            kept -= (self.blocks - 1) % every > 0
        parts = {
            "adapter": self.adapter,
            "activations": kept * self.activations + again * self.inputs,
            "attention": kept * self.attention,
            "head": self.head,
            "at_work": max(layer, self._logits(savings.head_chunk)),
        }
        margin = MARGIN_BYTES + MARGIN_SHARE * sum(parts.values())
        whole = {name: math.ceil(size) for name, size in parts.items()}
        return Estimate(weights=self.weights, margin=math.ceil(margin), **whole)

    def chunk(self) -> int:
        """Return the largest usual chunk whose logits fit into what the layers need anyway."""
        fitting = [size for size in HEAD_CHUNKS if self._logits(size) <= self.layer]
        return fitting[0] if fitting else HEAD_CHUNKS[-1]

    def _logits(self, chunk: int) -> float:
        """Return the bytes of all logits that are alive at a time."""
        rows = min(self.scored, chunk)
        return self.chunk_buffers * rows * self.logit_row + self.all_logits


def own_savings(config: TrainConfig) -> Savings:
    """Return what the settings say of themselves: none for "auto"."""
    every = config.grad_checkpoint_every if config.grad_checkpoint == "on" else 0
    return Savings(every)


def estimate(
    shape: ModelShape,
    config: TrainConfig,
    tokens: BatchShape,
    trains: bool = True,
    savings: Savings | None = None,
) -> Estimate:
    """Return the peak memory of a run.

    Args:
        shape: of the model.
        config: the settings; what they say about batches counts only through `tokens`.
        tokens: of the run's longest forward pass.
        trains: whether a backward pass follows; an evaluation keeps nothing for one.
        savings: None for those of the settings.
    """
    costs = count_costs(shape, config, tokens, trains)
    return costs.with_savings(own_savings(config) if savings is None else savings)


def count_costs(
    shape: ModelShape, config: TrainConfig, tokens: BatchShape, trains: bool = True
) -> Costs:
    """Return what a run's longest forward pass needs; see `estimate`."""
    adapted = adapted_linears(shape, config)
    names = {linear.name for linear in adapted}
    kept = blocks_with_backward(shape, config)
    scores = _scores(shape, tokens)
    widest = max(max(x.inputs, x.outputs) * x.per_token for b in shape.blocks for x in b)
    return Costs(
        weights=shape.weight_bytes,
        adapter=_adapter_bytes(adapted, config),
        head=(tokens.scored + tokens.rows) * shape.hidden * F32,
        blocks=len(kept) if trains else 0,
        activations=max(_kept_by_block(block, names, shape, config, tokens) for block in kept),
        attention=_kept_by_attention(shape, tokens),
        inputs=tokens.rows * shape.hidden * shape.float_bytes,
        layer=LAYER_BUFFERS * tokens.rows * widest * shape.float_bytes + SCORE_BUFFERS * scores,
        scored=tokens.scored,
        logit_row=shape.vocab * F32,
        all_logits=LOGIT_BUFFERS * tokens.logits * shape.vocab * F32,
        chunk_buffers=TRAINED_CHUNK_BUFFERS if _trains_head(shape, adapted) else CHUNK_BUFFERS,
    )


def iter_savings(config: TrainConfig, costs: Costs, may_recompute: bool = True) -> list[Savings]:
    """Return what may be saved on, the least costly first.

    Args:
        config: says whether blocks may be recomputed.
        costs: of the training's longest forward pass.
        may_recompute: false for ways of scoring that cannot.
    """
    own = own_savings(config).recompute_every
    shares = [own]
    if config.grad_checkpoint == "auto" and may_recompute:
        shares += [share for share in RECOMPUTED_SHARES if share <= costs.blocks]
    chunks = [costs.chunk(), *SMALL_CHUNKS] if costs.scored else [HEAD_CHUNK]
    return [Savings(share, chunk) for share in shares for chunk in chunks]


def _trains_head(shape: ModelShape, adapted: Iterable[Linear]) -> bool:
    """Tell whether an adapter sits on the head, or on an embedding that may be tied to it."""
    in_blocks = {linear.name for block in shape.blocks for linear in block}
    return any(linear.name not in in_blocks for linear in adapted)


def _scores(shape: ModelShape, tokens: BatchShape) -> int:
    return shape.heads * tokens.area * shape.float_bytes


def _kept_by_attention(shape: ModelShape, tokens: BatchShape) -> float:
    """Return what attention keeps in one block: scores, a mask of one byte a place, and queries,
    keys and values in their rectangles, keys and values also joined to those of the prompt."""
    rectangles = tokens.cells * shape.head_width
    rectangles += 2 * (tokens.cells + tokens.keys) * shape.kv_width
    return _scores(shape, tokens) + tokens.area + rectangles * shape.float_bytes


def _kept_by_block(
    block: Iterable[Linear],
    adapted: set[str],
    shape: ModelShape,
    config: TrainConfig,
    tokens: BatchShape,
) -> float:
    """Return what the linear layers of a block keep: inputs and outputs, and the adapter's share.

    An input that several layers have in common counts for each; that stands for the norms, the
    residual stream and the activation function.
    """
    width, matrices = 0.0, 0.0
    for x in block:
        own = (x.inputs + x.outputs) * shape.float_bytes
        if x.name in adapted:
            own += config.rank * F32
            # The adapter computes in float32: a half-precision input is copied.
            own += x.inputs * F32 if shape.float_bytes < F32 else 0
            # The masked input, and the mask.
            own += x.inputs * (F32 + 1) if config.dropout else 0
            own += x.outputs * F32 if config.dora else 0
            matrices += x.inputs * x.outputs * 2 * F32 if config.dora else 0
        width += own * x.per_token
    return width * tokens.rows + matrices


# The adapter


def blocks_with_backward(shape: ModelShape, config: TrainConfig) -> Sequence[tuple[Linear, ...]]:
    """Return the blocks that keep activations: from the first adapted one up."""
    count = len(shape.blocks)
    full_paths = [
        i for i, block in enumerate(shape.blocks) for x in block if x.name in config.target_modules
    ]
    first = 0 if config.num_layers == -1 else max(0, count - config.num_layers)
    return shape.blocks[min([first, *full_paths]) :]


def adapted_linears(shape: ModelShape, config: TrainConfig) -> list[Linear]:
    """Return the linear layers that get an adapter; see `target_layers.choose_layers`."""
    linears = [x for block in blocks_with_backward(shape, config) for x in block]
    if "all" in config.target_modules:
        return linears
    linears += [
        Linear(name, shape.hidden, shape.vocab) for name in ("lm_head", "model.embed_tokens")
    ]
    targets = config.target_modules
    return [x for x in linears if any(f".{x.name}".endswith(f".{t}") for t in targets)]


def _adapter_bytes(adapted: Iterable[Linear], config: TrainConfig) -> int:
    """Return parameters, two sets of gradients (one added up, one new) and moments."""
    numbers = sum(
        x.experts * (config.rank * (x.inputs + x.outputs) + (x.outputs if config.dora else 0))
        for x in adapted
    )
    return numbers * F32 * (3 + MOMENTS[config.optimizer])


# What there is


def available_bytes() -> int:
    """Return the memory a run may use: what Metal recommends as working set, or all RAM."""
    import mlx.core as mx

    recommended = mx.device_info().get("max_recommended_working_set_size")
    if recommended:
        return int(recommended)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def parse_size(text: str) -> int:
    """Return the bytes of "16GB" or "512 MB"; decimal units, as everywhere here.

    Raises:
        ConfigError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)i?B?\s*", text, re.IGNORECASE)
    unit = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
    size = int(float(found[1]) * unit[found[2].lower()]) if found else 0
    if size <= 0:
        raise ConfigError(
            f"--memory {text}: found {text!r}, needs a size such as 16GB or 512MB",
            "Give a number with a unit: kB, MB, GB or TB.",
        )
    return size
