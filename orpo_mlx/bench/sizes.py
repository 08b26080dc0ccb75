"""How much of everything is measured: on a GPU, on a CPU, and in the short form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from orpo_mlx.bench.steps.workload import HH, RAG, UF, MadeUpPairs

HUB_MODEL = "mlx-community/Qwen3-0.6B-4bit"
"""What is fetched on a Mac if nobody names another: 340 MB, the shape of small chat models."""


def _qwen(hidden: int, blocks: int, heads: int, width: int, vocab: int) -> dict[str, Any]:
    """Return config.json of a Qwen3 of this shape; half as many heads for keys and values."""
    return {
        "model_type": "qwen3", "hidden_size": hidden, "intermediate_size": 3 * hidden,
        "num_hidden_layers": blocks, "num_attention_heads": heads,
        "num_key_value_heads": heads // 2, "head_dim": width, "vocab_size": vocab,
        "tie_word_embeddings": True, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 40960, "eos_token_id": 1,
    }  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        name: of the form.
        seconds: everything together may take.
        shape: config.json of the random model.
        hub_model: fetched if the network is there; "" for none.
        workloads: pairs that steps are measured on.
        attention: [dtype, queries, keys, width of a head] of each call.
        recurrent_tokens: of a sequence through recurrent layers.
        product_size: of square matrices.
        verify_pairs: pairs that `verify` looks at.
        has_extras: whether other ways of scoring and command buffers are measured, too.
    """

    name: str
    seconds: float
    shape: dict[str, Any]
    hub_model: str
    workloads: tuple[MadeUpPairs, ...]
    attention: tuple[tuple[str, int, int, int], ...]
    recurrent_tokens: int
    product_size: int
    verify_pairs: int
    has_extras: bool = True

    def as_rows(self) -> list[dict[str, Any]]:
        """Return the workloads as a task holds them."""
        return [asdict(one) for one in self.workloads]


def _shorter(pairs: MadeUpPairs, part: int) -> MadeUpPairs:
    """Return pairs a part as long, for a CPU, where 4-bit products are a thousand times slower."""
    tokens = (pairs.prompt_tokens // part, pairs.response_tokens // part)
    return MadeUpPairs(pairs.name, *tokens, pairs.spread)


GPU = Sizes(
    name="full",
    seconds=15 * 60,
    shape=_qwen(1024, 28, 16, 128, 151936),
    hub_model=HUB_MODEL,
    workloads=(HH, UF, RAG),
    # The last ones are answers over their prompt.
    attention=(
        ("float32", 512, 512, 128),
        ("bfloat16", 512, 512, 128),
        ("bfloat16", 1024, 1024, 128),
        ("bfloat16", 2048, 2048, 64),
        ("bfloat16", 2048, 2048, 128),
        ("bfloat16", 4096, 4096, 128),
        ("bfloat16", 8192, 8192, 128),
        ("float32", 128, 512, 128),
        ("bfloat16", 512, 4096, 128),
    ),
    recurrent_tokens=128,
    product_size=4096,
    verify_pairs=3,
)
CPU = Sizes(
    name="full",
    seconds=15 * 60,
    shape=_qwen(64, 2, 4, 32, 512),
    hub_model="",
    workloads=tuple(_shorter(one, 4) for one in (HH, UF, RAG)),
    attention=(
        ("float32", 256, 256, 64),
        ("bfloat16", 256, 256, 64),
        ("float32", 512, 512, 64),
        ("float32", 768, 768, 64),
        ("float32", 64, 512, 64),
    ),
    recurrent_tokens=64,
    product_size=512,
    verify_pairs=3,
)
SHORT = Sizes(
    name="short",
    seconds=4 * 60,
    shape=_qwen(64, 1, 2, 32, 64),
    hub_model="",
    workloads=(_shorter(HH, 10),),
    attention=(("float32", 64, 64, 32), ("bfloat16", 64, 64, 32), ("float32", 16, 64, 32)),
    recurrent_tokens=16,
    product_size=128,
    verify_pairs=1,
    has_extras=False,
)


def choose_sizes(is_short: bool, is_gpu: bool) -> Sizes:
    """Return what is measured on a device."""
    if is_short:
        return SHORT
    return GPU if is_gpu else CPU
