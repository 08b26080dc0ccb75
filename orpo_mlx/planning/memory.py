"""How much memory a run will need, before its weights are loaded.

The parts follow the code: what a layer must keep for the backward pass (adapters/lora.py,
scoring/attention.py), what the head holds at a time (scoring/head.py), what an optimizer step adds
(training/step.py). Their factors were set so that no run of the grid in benchmarks/fit_grid.py
needed more than was estimated. That grid ran on MLX's CPU backend, where attention keeps its
scores and matrices are made one after another.
On Metal nothing was measured: the fused kernels there should need less, while buffers that wait for
a command to finish may need more, and buffers freed within a batch, which MLX keeps, come on top.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.packed import HEAD_CHUNK
from orpo_mlx.data.batching.shape import BatchShape
from orpo_mlx.errors import ConfigError
from orpo_mlx.models.shape import Linear, ModelShape

F32 = 4
"""Bytes of a float32: adapters, their gradients, moments and log-probs are float32."""
MOMENTS = {"adamw": 2, "lion": 1, "sgd": 1}
"""Numbers an optimizer keeps for each number of the adapter; MLX's SGD has room for a momentum."""


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
"""Buffers of scores of the queries that attend together in one layer, alive at a time; measured 2.5
to 3.5 besides those."""
LONG_SCORE_BUFFERS = 1.25
"""The same where queries attend block by block, which is what long rows do: scores of all blocks of
a layer, in its backward pass. Measured 0.3 to 1.1, for prompts of 1,000 to 4,000 tokens."""
STATE_BUFFERS = 10.0
"""Float32 numbers that a recurrent layer keeps for a channel of its convolution and a token: what
goes through it, and the squares and states of chunks (models/recurrence.py). Measured up to 7.5."""
RECOMPUTED_BLOCKS = 2.0
"""Blocks whose activations are back at a time with gradient checkpointing; one of attention."""
CHUNK_BUFFERS, TRAINED_CHUNK_BUFFERS = 4.0, 16.0
"""Logits [chunk, vocabulary] alive at a time, for a frozen head and one that is trained itself.
Measured 2.9 to 3.3 of the former, for 2 to 16 chunks."""
LOGIT_BUFFERS = 3.2
"""Logits of the whole batch alive at a time in plain scoring; measured 2.1 to 3.1."""
MARGIN_SHARE, MARGIN_BYTES = 0.1, 8 << 20


@dataclass(frozen=True)
class Grid:
    """What benchmarks/fit_grid.py found: smallest and largest measured peak / estimate."""

    rows: int
    shares: tuple[float, float]
    where: str


MEASURED = Grid(59, (0.55, 0.96), "Linux, CPU")


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
        activations: what one of them keeps, without attention.
        attention: what attention keeps in a block that has it.
        attending: how many of the blocks do.
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
    attending: int
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
            "attention": min(kept, self.attending) * self.attention,
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
    block = _scores(shape, tokens.block or tokens.area)
    scores = max(SCORE_BUFFERS * block, LONG_SCORE_BUFFERS * _scores(shape, tokens.area))
    widest = max(max(x.inputs, x.outputs) * x.per_token for b in shape.blocks for x in b)
    states = STATE_BUFFERS * tokens.cells * shape.state_width * F32
    return Costs(
        weights=shape.weight_bytes,
        adapter=_adapter_bytes(adapted, config),
        head=(tokens.scored + tokens.rows) * shape.hidden * F32,
        blocks=len(kept) if trains else 0,
        activations=states
        + max(_kept_by_block(block, names, shape, config, tokens) for block in kept),
        attention=_kept_by_attention(shape, tokens),
        inputs=tokens.rows * shape.hidden * shape.float_bytes,
        layer=LAYER_BUFFERS * tokens.rows * widest * shape.float_bytes + scores,
        scored=tokens.scored,
        logit_row=shape.vocab * F32,
        all_logits=LOGIT_BUFFERS * tokens.logits * shape.vocab * F32,
        attending=len({*range(len(shape.blocks))[-len(kept) :]} - shape.recurrent),
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


def _scores(shape: ModelShape, area: int) -> int:
    return shape.heads * area * shape.float_bytes


def _kept_by_attention(shape: ModelShape, tokens: BatchShape) -> float:
    """Return what attention keeps in one block: scores, a mask of one byte a place, and queries,
    keys and values in their rectangles, keys and values also joined to those of the prompt."""
    rectangles = tokens.cells * shape.head_width
    rectangles += 2 * (tokens.cells + tokens.keys) * shape.kv_width
    return _scores(shape, tokens.area) + tokens.area + rectangles * shape.float_bytes


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
    """Return the linear layers that get an adapter; see `adapters.targets.choose_layers`."""
    linears = [x for block in blocks_with_backward(shape, config) for x in block]
    if "all" in config.target_modules:
        return linears
    linears += [
        Linear(name, shape.hidden, shape.vocab) for name in ("lm_head", "model.embed_tokens")
    ]
    targets = config.target_modules
    return [x for x in linears if any(f".{x.name}".endswith(f".{t}") for t in targets)]


def count_adapter(adapted: Iterable[Linear], config: TrainConfig) -> int:
    """Return how many numbers the adapter has."""
    return sum(
        x.experts * (config.rank * (x.inputs + x.outputs) + (x.outputs if config.dora else 0))
        for x in adapted
    )


def _adapter_bytes(adapted: Iterable[Linear], config: TrainConfig) -> int:
    """Return parameters, two sets of gradients (one added up, one new) and moments."""
    return count_adapter(adapted, config) * F32 * (3 + MOMENTS[config.optimizer])


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


GIGABYTE = 10**9


def cache_bytes(config: TrainConfig, sizes: Sequence[int], hidden: int, float_bytes: int) -> int:
    """Return the most memory that a trunk cache will hold.

    Args:
        config: the settings.
        sizes: input tokens of each pair.
        hidden, float_bytes: width of the model's hidden states and bytes of one number.
    """
    if config.trunk_cache != "memory":
        return 0
    return min(limit_bytes(config), sum(sizes) * hidden * float_bytes)


def limit_bytes(config: TrainConfig) -> int:
    """Return the most bytes the trunk cache may hold."""
    return math.ceil(config.trunk_cache_size * GIGABYTE)
