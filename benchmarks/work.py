"""Floating-point operations of a training step, counted from its shapes.

Only matrix products count: linear layers, the adapter, attention, the head. A product costs 2 per
multiply-add; the backward pass through a frozen layer costs as much as its forward pass, and an
adapter's three times as much in all. Recomputation is not counted, nor softmax, norms and gathers.

`useful` is what nobody can avoid: every prompt once, every answer once, causal attention, logits
for scored tokens alone. Whatever a trainer computes beyond it is padding, a prompt computed twice,
or logits of tokens that no loss reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orpo_mlx.data.batching.order import split_by_tokens
from orpo_mlx.data.batching.packed import pack, query_blocks
from orpo_mlx.data.types import TokenPair
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.select import WAYS

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Shapes:
    """What a step runs through the model.

    Attributes:
        tokens: rows of every linear layer.
        scored: rows of the head.
        attention: multiply-adds per head dimension, of queries against keys, over all rectangles.
    """

    tokens: int
    scored: int
    attention: float

    def __add__(self, other: Shapes) -> Shapes:
        return Shapes(
            self.tokens + other.tokens,
            self.scored + other.scored,
            self.attention + other.attention,
        )


NOTHING = Shapes(0, 0, 0)


def flop(shapes: Shapes, config: dict[str, Any], targets: Iterable[str], rank: int) -> float:
    """Return the operations of forward and backward pass through a Llama with LoRA in all layers.

    Args:
        config: config.json of the model.
        targets: names of the adapted linear layers.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    sizes = linear_sizes(config)
    frozen = sum(i * o for i, o in sizes.values())
    adapter = sum(rank * (i + o) for name, (i, o) in sizes.items() if name in set(targets))
    per_token = layers * (4 * frozen + 6 * adapter)
    # Scores and weighted sum, once forward and twice backward.
    attention = layers * 12 * sizes["q_proj"][1] * shapes.attention
    head = 4 * hidden * config["vocab_size"] * shapes.scored
    return per_token * shapes.tokens + attention + head


def linear_sizes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return input and output width of a block's linear layers by name."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    kv = config.get("num_key_value_heads") or heads
    mlp = config["intermediate_size"]
    return {
        "q_proj": (hidden, heads * width),
        "k_proj": (hidden, kv * width),
        "v_proj": (hidden, kv * width),
        "o_proj": (heads * width, hidden),
        "gate_proj": (hidden, mlp),
        "up_proj": (hidden, mlp),
        "down_proj": (mlp, hidden),
    }


def useful(pairs: Sequence[TokenPair], nll_scope: str) -> Shapes:
    """Return what these pairs need."""
    total = NOTHING
    for pair in pairs:
        prompt = len(pair.prompt) - 1
        answers = [len(pair.chosen), len(pair.rejected)]
        scored = sum(answers) + (prompt if nll_scope == "full" else 0)
        attention = prompt * (prompt + 1) / 2
        attention += sum(n * prompt + n * (n + 1) / 2 for n in answers)
        total += Shapes(prompt + sum(answers), scored, attention)
    return total


def padded(pairs: int, width: int) -> Shapes:
    """Return what both rows of a batch of pairs cost in full, logits of all tokens included.

    Args:
        width: tokens of each row, padding included.
    """
    rows = 2 * pairs
    return Shapes(rows * width, rows * width, rows * width * width)


def packed(pairs: Sequence[TokenPair], nll_scope: str, tokens_per_batch: int) -> Shapes:
    """Return what this trainer computes for a step: packed rows of at most so many tokens."""
    scoring, total = Scoring(WAYS["packed"], nll_scope), NOTHING
    for members in split_by_tokens(range(len(pairs)), pairs, scoring.cost, tokens_per_batch):
        row = pack([pairs[i] for i in members], score_prompts=nll_scope == "full")
        attention = 0
        for group in row.groups:
            (count, prompt), (_, answer) = group.prompt_scores.shape, group.answer_scores.shape
            attention += count * sum((end - start) * end for start, end in query_blocks(prompt))
            attention += (
                2
                * count
                * sum((end - start) * (prompt + end) for start, end in query_blocks(answer))
            )
        total += Shapes(row.ids.size, row.scored.size, attention)
    return total
