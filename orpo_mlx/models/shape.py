"""What a model weighs and how wide it is, from config.json and the headers of its weights.

No weights are read and no mlx is needed: a few kilobytes of a folder, or of a model on the Hub that
is not downloaded. The adapted layers are recognised by the names and shapes of tensors, so that an
architecture nobody foresaw is counted, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.errors import ModelError
from orpo_mlx.models.check import CONFIG, check_model_folder, weight_headers
from orpo_mlx.storage.safetensors import read_json_object

Headers = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name to number format (as safetensors writes it) and shape."""

_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len")
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64}
_IN_BLOCK = re.compile(r"^(.*?\b(?:layers|blocks|h))\.(\d+)\.(.+)$")
_NOT_LINEAR = re.compile(r"(scales|biases|bias|norm.*|embed.*)(\.|$)|conv\w*\.weight$")
_CONVOLUTION = re.compile(r"\bconv(1d)?\.weight$")
_VISION = re.compile(r"vision|visual|audio|image|mtp\b")


@dataclass(frozen=True)
class Linear:
    """A linear layer of a block.

    Attributes:
        name: full path of the layer, without ".weight".
        inputs, outputs: widths.
        experts: how many of its kind the tensor holds; 1 if it is no mixture.
        per_token: how often a token passes through it: 1, or chosen experts / all experts.
    """

    name: str
    inputs: int
    outputs: int
    experts: int = 1
    per_token: float = 1.0


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        weight_bytes: of all tensors that mlx-lm keeps.
        vocab, hidden, heads: as in config.json.
        head_width: inputs of the output projection of attention: heads times their width.
        kv_width: likewise for keys, and for values.
        float_bytes: of one activation: 4 for float32, 2 for half precision.
        blocks: the linear layers of each transformer block, from the first block to the last.
        state_width: channels of the short convolution that recurrent layers have; 0: none has.
        recurrent: indices of the blocks that have such a layer and no attention.
    """

    weight_bytes: int
    vocab: int
    hidden: int
    heads: int
    head_width: int
    kv_width: int
    float_bytes: int
    blocks: tuple[tuple[Linear, ...], ...]
    state_width: int = 0
    recurrent: frozenset[int] = frozenset()


def read_shape(name: str, revision: str | None = None) -> ModelShape:
    """Return the sizes of a model folder, or of a model on the Hub without downloading it.

    Raises:
        ModelError: there is no such model, or it cannot be used.
    """
    from orpo_mlx.models.download import read_headers
    from orpo_mlx.models.load import is_path_like

    path = Path(name).expanduser()
    if path.exists() or is_path_like(name):
        return folder_shape(path)
    config, headers = read_headers(name, revision)
    return build_shape(config, headers, name)


def folder_shape(path: Path) -> ModelShape:
    """Return the sizes of a model on this machine.

    Raises:
        ModelError: the folder cannot be used.
    """
    check_model_folder(path)
    config = read_json_object(path / CONFIG, ModelError)
    headers = {n: found for file in weight_headers(path).values() for n, found in file.items()}
    return build_shape(config, headers, str(path))


def build_shape(config: dict[str, Any], headers: Headers, where: str = "the model") -> ModelShape:
    """Put together what config.json and the headers say.

    Raises:
        ModelError: config.json lacks a size, or no tensor belongs to a numbered block.
    """
    sizes = _text_sizes(config)
    headers = {name: found for name, found in headers.items() if not _VISION.search(name)}
    hidden, vocab = _size(sizes, where, "hidden_size", "n_embd", "d_model"), _vocab(sizes, headers)
    heads = _size(sizes, where, "num_attention_heads", "n_head", "n_heads", "num_heads")
    head_dim = sizes.get("head_dim") or sizes.get("v_head_dim") or hidden // heads
    kv_heads = sizes.get("num_key_value_heads") or heads
    blocks = _blocks(config, sizes, headers)
    if not blocks:
        raise ModelError(
            f"{where}: its tensors have no numbered blocks, so its memory cannot be estimated.",
            "Train with --allow-overcommit, and watch the memory in the first steps.",
        )
    return ModelShape(
        weight_bytes=sum(tensor_bytes(*found) for found in headers.values()),
        vocab=vocab,
        hidden=hidden,
        heads=heads,
        head_width=heads * head_dim,
        kv_width=kv_heads * head_dim,
        float_bytes=_float_bytes(headers),
        blocks=blocks,
        state_width=max((headers[name][1][0] for name in _convolutions(headers)), default=0),
        recurrent=_recurrent(blocks, headers),
    )


def context_length(config: dict[str, Any]) -> int | None:
    """Return the positions a model was made for, None if its config.json does not say.

    The number counts with rotary scaling in it already, but for YaRN, which is often added by hand
    beside the model's old number.
    """
    sizes = _text_sizes(config)
    found = next((n for name in _CONTEXT if type(n := sizes.get(name)) is int and n > 0), None)
    rope = sizes.get("rope_parameters") or sizes.get("rope_scaling") or {}
    if found is None or "yarn" not in (rope.get("rope_type"), rope.get("type")):
        return found
    before = rope.get("original_max_position_embeddings") or found
    return max(found, int(before * rope.get("factor", 1)))


def _text_sizes(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the language model, which some keep apart from those of images."""
    return {**config, **(config.get("text_config") or config.get("llm_config") or {})}


def tensor_bytes(dtype: str, shape: Iterable[int]) -> int:
    """Return the bytes of a tensor."""
    return math.prod(shape) * _BITS.get(dtype, 8) // 8


def _size(sizes: dict[str, Any], where: str, *names: str) -> int:
    for name in names:
        if isinstance(sizes.get(name), int) and sizes[name] > 0:
            return sizes[name]
    raise ModelError(
        f"{where}: config.json has no {names[0]}, so its memory cannot be estimated.",
        "Train with --allow-overcommit, and watch the memory in the first steps.",
    )


def _vocab(sizes: dict[str, Any], headers: Headers) -> int:
    """Return the rows of the head: padded ones are computed, too."""
    rows = [
        shape[0]
        for name, (_, shape) in headers.items()
        if re.search(r"(lm_head|embed_tokens|wte|word_embeddings)\.weight$", name)
    ]
    return max([*rows, sizes.get("vocab_size") or 0])


def _float_bytes(headers: Headers) -> int:
    """Return the bytes of an activation: what is not packed sets the precision."""
    formats = [dtype for name, (dtype, _) in headers.items() if not name.endswith("weight")]
    formats += [dtype for name, (dtype, shape) in headers.items() if len(shape) == 1]
    formats += [dtype for name, (dtype, _) in headers.items() if "embed" in name]
    floats = [dtype for dtype in formats if dtype in ("F32", "F16", "BF16")]
    return 4 if "F32" in floats else 2


def _blocks(
    config: dict[str, Any], sizes: dict[str, Any], headers: Headers
) -> tuple[tuple[Linear, ...], ...]:
    found: dict[str, dict[int, list[Linear]]] = {}
    for name, (_, shape) in headers.items():
        place = _IN_BLOCK.match(name)
        if place and len(shape) in (2, 3) and not _NOT_LINEAR.search(place[3]):
            linear = _linear(name, shape, config, sizes, headers)
            found.setdefault(place[1], {}).setdefault(int(place[2]), []).append(linear)
    if not found:
        return ()
    # A model may have other numbered parts; the transformer is the one that weighs most.
    blocks = max(found.values(), key=_count_weights)
    return tuple(tuple(blocks[index]) for index in sorted(blocks))


def _convolutions(headers: Headers) -> list[str]:
    return [name for name in headers if _IN_BLOCK.match(name) and _CONVOLUTION.search(name)]


def _recurrent(blocks: Sequence[Sequence[Linear]], headers: Headers) -> frozenset[int]:
    """Return the blocks with a convolution and no projection of keys: some have attention, too."""
    convolved = {_block_name(name) for name in _convolutions(headers)}
    return frozenset(
        index
        for index, block in enumerate(blocks)
        if _block_name(block[0].name) in convolved
        and not any(linear.name.endswith(".k_proj") for linear in block)
    )


def _block_name(name: str) -> str:
    """Return the path of the block that a tensor or a layer is in."""
    place = _IN_BLOCK.match(name)
    return f"{place[1]}.{place[2]}" if place else ""


def _count_weights(blocks: Mapping[int, Iterable[Linear]]) -> int:
    return sum(x.inputs * x.outputs * x.experts for block in blocks.values() for x in block)


def _linear(name: str, shape: tuple[int, ...], config: Any, sizes: Any, headers: Headers) -> Linear:
    path = name.removesuffix(".weight")
    experts = shape[0] if len(shape) == 3 else 1
    outputs, inputs = shape[-2:]
    scales = headers.get(f"{path}.scales")
    if scales is not None:
        quantization = config.get("quantization") or config.get("quantization_config") or {}
        own = quantization.get(path)
        own = own if isinstance(own, dict) else quantization
        inputs = scales[1][-1] * int(own.get("group_size") or 64)
    return Linear(path, inputs, outputs, experts, _per_token(path, experts, sizes))


def _per_token(path: str, experts: int, sizes: dict[str, Any]) -> float:
    """Return how often a token passes through one of these; a stacked tensor counts as one."""
    chosen = sizes.get("num_experts_per_tok") or sizes.get("moe_topk") or sizes.get("top_k") or 1
    if experts > 1:
        return float(chosen)
    if not re.search(r"\bexperts\.\d+\.", path):
        return 1.0
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    total = next((sizes[name] for name in names if sizes.get(name)), chosen)
    return chosen / total
