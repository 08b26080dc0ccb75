"""The places where this project reaches into mlx-lm's models; nothing else may.

Packed rows run through unmodified models by three seams: the `cache` every layer receives, the
`scaled_dot_product_attention` of the module its attention is defined in, and `mx.fast.rope`. Body
and head are told apart by a fourth: the class of the body, swapped for the time of a call. Each
seam is put back afterwards. `scoring.select` finds out whether a model fits; a test per
architecture tells when mlx-lm moves something.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.models.recurrence import delta_rule, state_space

Attend = Callable[..., mx.array]


class PackedMask:
    """What a layer gets as its mask: only its window, the rest is known to the attention."""

    def __init__(self, window: int | None) -> None:
        self.window = window


class PackedCache:
    """What a layer gets as its cache: positions for the rotary embedding, and nothing stored.

    It has no state, so that a checkpointed layer may be computed twice.

    Args:
        positions: [T] place of each token in its own sequence.
        attend: called with (queries, keys, values, scale, window, sinks).
    """

    def __init__(self, positions: mx.array, attend: Attend) -> None:
        self.offset = positions
        self.attend = attend

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Return keys and values as they came."""
        return keys, values

    def make_mask(
        self, N: int, return_array: bool = False, window_size: int | None = None, **_: Any
    ) -> PackedMask:
        """Return a mask that only the packed attention understands."""
        if return_array:
            raise TypeError("this model needs its mask as an array")
        return PackedMask(window_size)


class SharedCache:
    """A cache for two padded passes: prompts are kept, answers look at them.

    Args:
        prompt_lengths: [B] real tokens of each prompt in the first pass.
        prompt_width: tokens of a prompt with its padding.
        is_grouped: whether attention written by the model itself keeps an axis for query groups.

    Attributes:
        kept: keys and values of the prompts.
    """

    def __init__(
        self, prompt_lengths: mx.array, prompt_width: int, is_grouped: bool = False
    ) -> None:
        self._lengths = prompt_lengths
        self._width = prompt_width
        self._is_grouped = is_grouped
        self.kept: tuple[mx.array, mx.array] | None = None
        self.offset: Any = 0

    def begin_answers(self) -> None:
        """Turn to the second pass: [2B] answers, chosen first, behind the prompts."""
        self._lengths = mx.concatenate([self._lengths] * 2)
        self.offset = self._lengths

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Keep the prompts' keys and values; return them before the answers' own."""
        if isinstance(self.offset, int):
            self.kept = (keys, values)
            return keys, values
        both = zip(self.kept or (), (keys, values), strict=True)
        joined = (mx.concatenate([mx.concatenate([old] * 2), new], axis=2) for old, new in both)
        keys, values = joined
        return keys, values

    def make_mask(
        self, N: int, return_array: bool = False, window_size: int | None = None, **_: Any
    ) -> Any:
        """Return "causal" or [T, T] for prompts, [2B, 1, A, P + A] for answers."""
        if isinstance(self.offset, int):
            if window_size is None and not return_array:
                return "causal"
            return window_mask(N, window_size)
        mask = answer_mask(self._lengths, self._width, N, window_size)
        return mask[:, None] if return_array and self._is_grouped else mask


class StateCache:
    """What a recurrent or convolutional layer gets as its cache in two padded passes: states after
    the prompts are kept, answers go on from them.

    Its arrays are what the layer makes them; the rest is what layers ask of mlx-lm's `ArraysCache`.

    Args:
        prompt_lengths: [B] real tokens of each prompt in the first pass.

    Attributes:
        kept: states by the layer's own numbers.
    """

    left_padding = None

    def __init__(self, prompt_lengths: mx.array) -> None:
        self.lengths: mx.array | None = prompt_lengths
        self.kept: dict[int, mx.array] = {}

    def begin_answers(self) -> None:
        """Turn to the second pass: [2B] answers, chosen first, each from its prompt's state."""
        self.kept = {i: mx.concatenate([x] * 2) for i, x in self.kept.items()}
        # An answer's padding comes after it: nothing follows from the state it leaves.
        self.lengths = None

    def __getitem__(self, index: int) -> mx.array | None:
        return self.kept.get(index)

    def __setitem__(self, index: int, array: mx.array) -> None:
        self.kept[index] = array

    def advance(self, N: int) -> None:
        """Take no notice: a pass has all tokens at once."""

    def make_mask(self, N: int) -> mx.array | None:
        """Return [B, N], true on the tokens of prompts; None for answers."""
        return None if self.lengths is None else mx.arange(N) < self.lengths[:, None]


def two_pass_cache(model: nn.Module, prompt_lengths: mx.array, prompt_width: int) -> list[Any]:
    """Return a cache for each layer that has one: what suits its kind, attention or states.

    Args:
        model: an mlx-lm model.
        prompt_lengths, prompt_width: as in `SharedCache`.

    Raises:
        TypeError: a layer keeps something else.
    """
    from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache
    from mlx_lm.models.cache import make_prompt_cache as make_cache

    grouped = has_grouped_queries(model)

    def suited(cache: Any) -> Any:
        if isinstance(cache, CacheList):
            return [suited(part) for part in cache.caches]
        if isinstance(cache, ArraysCache):
            return StateCache(prompt_lengths)
        if isinstance(cache, KVCache | RotatingKVCache):
            return SharedCache(prompt_lengths, prompt_width, grouped)
        raise TypeError(f"no cache for many rows in place of a {type(cache).__name__}")

    return [suited(cache) for cache in make_cache(model)]


def two_pass_parts(cache: Any) -> list[SharedCache | StateCache]:
    """Return the caches in a layer's cache, or in a list of them; of anything else none."""
    if isinstance(cache, list):
        return [part for item in cache for part in two_pass_parts(item)]
    return [cache] if isinstance(cache, SharedCache | StateCache) else []


def has_grouped_queries(model: nn.Module) -> bool:
    """Tell whether the model's attention may reshape its queries by groups (Gemma 2 does)."""
    return any(getattr(module, "repeats", 1) > 1 for module in model.modules())


def window_mask(width: int, window: int | None) -> mx.array:
    """Return the causal mask [width, width], looking back at most `window` tokens."""
    at = mx.arange(width)
    mask = at[:, None] >= at
    return mask if window is None else mask & (at[:, None] < at + window)


def answer_mask(lengths: mx.array, prompt_width: int, width: int, window: int | None) -> mx.array:
    """Return [rows, 1, width, prompt_width + width]: true where an answer's token may look.

    Args:
        lengths: [rows] real tokens of each answer's prompt, which stand first in its rectangle.
        prompt_width, width: of the prompt and answer rectangles.
        window: tokens to look back at most, the token itself included; None = all.
    """
    lengths = lengths[:, None, None]
    at, before = mx.arange(width), mx.arange(prompt_width)
    shape = (lengths.shape[0], width)
    to_prompt = mx.broadcast_to(before < lengths, (*shape, prompt_width))
    to_answer = mx.broadcast_to(at[:, None] >= at, (*shape, width))
    if window is not None:
        to_prompt = to_prompt & (lengths + at[:, None] < before + window)
        to_answer = to_answer & (at[:, None] < at + window)
    return mx.concatenate([to_prompt, to_answer], axis=2)[:, None]


def fork_cache(cache: Any) -> Any:
    """Return a copy of a model's own cache objects whose updates leave the original alone.

    Arrays are the same values, gradients flow through them; only the objects are new, because
    mlx-lm writes into them in place.
    """
    if isinstance(cache, mx.array):
        return cache[...]
    if isinstance(cache, list | tuple):
        return type(cache)(fork_cache(item) for item in cache)
    if not hasattr(cache, "__dict__"):
        return cache
    forked = copy.copy(cache)
    for name, value in vars(cache).items():
        setattr(forked, name, fork_cache(value))
    return forked


@contextmanager
def packed_attention(model: nn.Module) -> Iterator[None]:
    """Let every layer that holds a `PackedCache` attend by it.

    Needed while gradients are taken, too: a checkpointed layer is computed again then.
    """
    if getattr(mx.fast.rope, "is_by_token", False):
        yield  # inside another such context already
        return
    with ExitStack() as seams:
        for module in _modules_with(model, "scaled_dot_product_attention"):
            original = vars(module)["scaled_dot_product_attention"]
            replacement = _routed(original)
            seams.enter_context(_attribute(module, "scaled_dot_product_attention", replacement))
        seams.enter_context(_attribute(mx.fast, "rope", _rope_by_token(mx.fast.rope)))
        yield


@contextmanager
def chunked_recurrence(model: nn.Module) -> Iterator[None]:
    """Let the model's recurrent layers compute chunks of tokens instead of one after the other.

    Needed while gradients are taken, too: a checkpointed layer is computed again then.
    """
    seams = {"gated_delta_update": _routed_delta_rule, "ssm_update": _routed_state_space}
    with ExitStack() as stack:
        for name, routed in seams.items():
            for module in _modules_with(model, name):
                original = vars(module)[name]
                if not hasattr(original, "is_chunked"):
                    stack.enter_context(_attribute(module, name, routed(original)))
        yield


def _routed_delta_rule(original: Callable[..., Any]) -> Callable[..., Any]:
    def update(
        *args: Any, use_kernel: bool = True, lower_bound: float | None = None, **rest: Any
    ) -> Any:
        gates = args[3]
        # Without a gradient mlx-lm has a kernel of its own; and gates may have an axis more.
        if lower_bound is not None or gates.ndim != 3 or (use_kernel and _is_on_gpu()):
            return original(*args, use_kernel=use_kernel, lower_bound=lower_bound, **rest)
        return delta_rule(*args, **rest)

    update.is_chunked = True  # type: ignore[attr-defined]
    return update


def _routed_state_space(_: Callable[..., Any]) -> Callable[..., Any]:
    def update(*args: Any, **named: Any) -> Any:
        named.pop("lengths", None)  # they say no more than the mask
        return state_space(*args[:_STATE_SPACE], **named)

    update.is_chunked = True  # type: ignore[attr-defined]
    return update


_STATE_SPACE = 10
"""Positional arguments before the lengths."""


def _is_on_gpu() -> bool:
    return mx.default_device().type == mx.DeviceType.gpu


def _modules_with(model: nn.Module, name: str) -> list[Any]:
    names = {type(module).__module__ for module in model.modules()}
    found = [sys.modules[each] for each in sorted(names)]
    return [module for module in found if name in vars(module)]


def _routed(original: Attend) -> Attend:
    def attention(
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        cache: Any = None,
        scale: float = 1.0,
        mask: Any = None,
        sinks: mx.array | None = None,
        **rest: Any,
    ) -> mx.array:
        if not isinstance(cache, PackedCache):
            return original(queries, keys, values, cache, scale, mask, sinks=sinks, **rest)
        if mask is not None and not isinstance(mask, PackedMask):
            raise TypeError("this model makes its own mask")
        window = mask.window if mask is not None else None
        return cache.attend(queries, keys, values, scale, window, sinks)

    return attention


def _rope_by_token(original: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """Let `mx.fast.rope` take an offset per token: it takes one per batch row, so tokens become
    the batch for the time of the call."""

    def rope(x: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        offset = kwargs.get("offset")
        if not (isinstance(offset, mx.array) and offset.ndim == 1 and x.ndim == 4):
            return original(x, *args, **kwargs)
        rotated = original(x.transpose(2, 1, 0, 3), *args, **kwargs)
        return rotated.transpose(2, 1, 0, 3)

    rope.is_by_token = True  # type: ignore[attr-defined]
    return rope


@contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


# Body and head


def find_body(model: Any) -> Any:
    """Return the part of a model that turns tokens into hidden states: the owner of its blocks.

    Raises:
        LookupError: no such part stands out.
    """
    blocks = [id(block) for block in getattr(model, "layers", None) or ()]
    owners = [
        module
        for module in model.modules()
        if module is not model and blocks and any(_is_list_of(v, blocks) for v in module.values())
    ]
    if len(owners) != 1:
        raise LookupError(f"{len(owners)} parts of this model own its blocks")
    return owners[0]


def _is_list_of(value: Any, ids: list[int]) -> bool:
    return isinstance(value, list) and [id(item) for item in value] == ids


def run_body(model: Any, inputs: mx.array, cache: Any = None) -> mx.array:
    """Return the hidden states [B, T, hidden] that the model's head would get.

    The head is called too, but lazily: nothing of it is ever computed.
    """
    body = find_body(model)
    caught: list[mx.array] = []

    def catch(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        caught.append(call(*args, **kwargs))
        return caught[-1]

    with _called_by(body, catch):
        model(inputs) if cache is None else model(inputs, cache=cache)
    (hidden,) = caught
    if not isinstance(hidden, mx.array):
        raise TypeError(f"the body returns a {type(hidden).__name__}")
    return hidden


@contextmanager
def stored_below(model: Any, cut: int, states: Sequence[mx.array]) -> Iterator[None]:
    """Answer for the first `cut` blocks inside: each pass through the body takes the next states.

    The blocks stay in place, because models pick masks and caches by their number; they hand on
    what they get, and the last of them hands out the states.

    Args:
        model: an mlx-lm model.
        cut: how many blocks from the bottom are answered for; 0 = none.
        states: what the last of them would return, [B, T, hidden], one for each pass.
    """
    upcoming = iter(states)
    with ExitStack() as seams:
        for block in model.layers[: max(0, cut - 1)]:
            seams.enter_context(_called_by(block, _hand_on))
        if cut:
            last = model.layers[cut - 1]
            seams.enter_context(_called_by(last, lambda *_, **__: next(upcoming)))
        yield


@contextmanager
def caught_below(model: Any, cut: int) -> Iterator[list[mx.array]]:
    """Collect what the first `cut` blocks return inside; the blocks above do nothing.

    Raises:
        TypeError: a block returns more than its hidden states.
    """
    caught: list[mx.array] = []

    def catch(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        found = call(*args, **kwargs)
        if not isinstance(found, mx.array):
            raise TypeError(f"a block returns a {type(found).__name__}")
        caught.append(found)
        return found

    with ExitStack() as seams:
        seams.enter_context(_called_by(model.layers[cut - 1], catch))
        for block in model.layers[cut:]:
            seams.enter_context(_called_by(block, _hand_on))
        yield caught


def _hand_on(_: Callable[..., Any], hidden: mx.array, *__: Any, **___: Any) -> mx.array:
    return hidden


def run_head(model: Any, hidden: mx.array) -> mx.array:
    """Return the logits [1, N, V] of hidden states [1, N, hidden], as the model makes them.

    The model's own call runs around a body that hands out these states, so a tied, quantized,
    scaled or soft-capped head is what it is.
    """
    with _called_by(find_body(model), lambda call, *args, **kwargs: hidden):
        return model(mx.zeros(hidden.shape[:2], mx.int32))


@contextmanager
def _called_by(module: nn.Module, how: Callable[..., Any]) -> Iterator[None]:
    """Answer calls of one module by `how(original call, *arguments)`."""
    cls = type(module)

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return how(lambda *a, **k: cls.__call__(self, *a, **k), *args, **kwargs)

    module.__class__ = type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})
    try:
        yield
    finally:
        module.__class__ = cls
