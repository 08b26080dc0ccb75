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
from orpo_mlx.errors import ConfigError
from orpo_mlx.model_shape import Linear, ModelShape

F32 = 4
"""Bytes of a float32: adapters, their gradients, moments and log-probs are float32."""


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
        width = round_up(max(pair.longest for pair in pairs), 32) - 1
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
    for batch in tried:
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
    """

    weights: int
    adapter: int
    activations: int
    attention: int
    head: int
    at_work: int
    margin: int

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Return the parts by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


# Fitted to benchmarks/fit_grid.py: measured peak less weights, adapter and what is kept, divided by
# one buffer of the kind. They are large because MLX allocates ahead of the computation, up to about
# ten operations (its scheduler's MAX_ACTIVE_TASKS).
LAYER_BUFFERS = 11.0
"""Buffers [rows, widest layer] alive at a time; measured 9.8 to 12.9, of which some are scores."""
SCORE_BUFFERS = 3.5
"""Buffers of attention scores of one layer alive at a time; measured 2.5 to 3.5 besides those."""
RECOMPUTED_BLOCKS = 2.0
"""Blocks whose activations are back at a time with gradient checkpointing; one of attention."""
NO_CHUNK_BUFFERS, EACH_CHUNK_BUFFERS, CHUNK_BUFFERS = 5.0, 3.5, 16.0
"""Logits [chunk, vocabulary] alive at a time: 5 + 3.5 for each chunk, at most 16. Measured 6 to 8
for one chunk, 9 to 9.5 for two, and up to 15.5 for any number."""
LOGIT_BUFFERS = 3.2
"""Logits of the whole batch alive at a time in plain scoring; measured 2.1 to 3.1."""
MARGIN_SHARE, MARGIN_BYTES = 0.1, 8 << 20


def estimate(
    shape: ModelShape, config: TrainConfig, tokens: BatchShape, trains: bool = True
) -> Estimate:
    """Return the peak memory of a run.

    Args:
        shape: of the model.
        config: the settings; what they say about batches counts only through `tokens`.
        tokens: of the run's longest forward pass.
        trains: whether a backward pass follows; an evaluation keeps nothing for one.
    """
    adapted = adapted_linears(shape, config)
    names = {linear.name for linear in adapted}
    kept = blocks_with_backward(shape, config)
    activations = max(_kept_by_block(block, names, shape, config, tokens) for block in kept)
    attention, scores = _kept_by_attention(shape, tokens), _scores(shape, tokens)
    widest = max(max(x.inputs, x.outputs) * x.per_token for b in shape.blocks for x in b)
    layer = LAYER_BUFFERS * tokens.rows * widest * shape.float_bytes + SCORE_BUFFERS * scores
    if not trains:
        activations = attention = 0
    elif config.grad_checkpoint:
        layer += RECOMPUTED_BLOCKS * activations + attention
        activations = len(shape.blocks) * tokens.rows * shape.hidden * shape.float_bytes
        attention = 0
    else:
        activations, attention = activations * len(kept), attention * len(kept)
    parts = {
        "adapter": _adapter_bytes(adapted, config),
        "activations": activations,
        "attention": attention,
        "head": (tokens.scored + tokens.rows) * shape.hidden * F32,
        "at_work": max(layer, _logits(shape, tokens)),
    }
    margin = MARGIN_BYTES + MARGIN_SHARE * sum(parts.values())
    whole = {name: math.ceil(size) for name, size in parts.items()}
    return Estimate(weights=shape.weight_bytes, margin=math.ceil(margin), **whole)


def _logits(shape: ModelShape, tokens: BatchShape) -> float:
    """Return the bytes of all logits that are alive at a time."""
    chunks = -(-tokens.scored // HEAD_CHUNK)
    buffers = min(NO_CHUNK_BUFFERS + EACH_CHUNK_BUFFERS * chunks, CHUNK_BUFFERS)
    rows = buffers * min(tokens.scored, HEAD_CHUNK) + LOGIT_BUFFERS * tokens.logits
    return rows * shape.vocab * F32


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
    moments = {"adamw": 2, "lion": 1, "sgd": 0}[config.optimizer]
    numbers = sum(
        x.experts * (config.rank * (x.inputs + x.outputs) + (x.outputs if config.dora else 0))
        for x in adapted
    )
    return numbers * F32 * (3 + moments)


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
