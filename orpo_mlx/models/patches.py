"""The places where this project reaches into mlx-lm's models; nothing else may.

Packed rows run through unmodified models by a few seams: the `cache` every layer receives, the
`scaled_dot_product_attention` and the `swiglu` of the module that uses it, `mx.fast.rope`, and
Ministral's scale of queries; in recurrent layers the class of a convolution, and the
`gated_delta_update` or `ssm_update` of their module. Body and head are told apart by the class of
the body, swapped for the time of a call. Each seam is put back afterwards. `scoring.select` finds
out whether a model fits; a test per architecture tells when mlx-lm moves something.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.models.activations import is_on_gpu, swiglu
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


class PackedStateCache:
    """What a recurrent or convolutional layer gets as its cache in a packed row.

    It keeps nothing either. A layer asks it for the state of its convolution (0) right before it
    convolves, and hands the other one (1) to its recurrence: both learn from it who is who.

    Args:
        mixer: has `convolve(convolution, x)` and `scan(rule, sequences)`, see scoring/mixing.py.
    """

    asked: Any = None
    lengths = left_padding = None

    def __init__(self, mixer: Any) -> None:
        self.mixer = mixer

    def __getitem__(self, index: int) -> Any:
        if index:
            return self
        PackedStateCache.asked = self.mixer
        return None

    def __setitem__(self, index: int, array: mx.array) -> None:
        """Take no notice."""

    def advance(self, N: int) -> None:
        """Take no notice."""

    def make_mask(self, N: int) -> None:
        """Return nothing: a row has no padding that would matter."""


def packed_cache(model: nn.Module, positions: mx.array, attend: Attend, mixer: Any) -> list[Any]:
    """Return a cache for each layer: what suits its kind, attention or states.

    Args:
        model: an mlx-lm model.
        positions, attend: of `PackedCache`.
        mixer: of `PackedStateCache`.
    """
    from mlx_lm.models.cache import ArraysCache, CacheList, make_prompt_cache

    of_attention, of_states = PackedCache(positions, attend), PackedStateCache(mixer)

    def suited(cache: Any) -> Any:
        if isinstance(cache, CacheList):
            return [suited(part) for part in cache.caches]
        return of_states if isinstance(cache, ArraysCache) else of_attention

    return [suited(cache) for cache in make_prompt_cache(model)]


class SharedCache:
    """A cache for two padded passes: prompts are kept, answers look at them.

    Args:
        prompt_lengths: [B] real tokens of each prompt in the first pass.
        prompt_width: tokens of a prompt with its padding.
        is_grouped: whether attention written by the model itself keeps an axis for query groups.
    """

    def __init__(
        self, prompt_lengths: mx.array, prompt_width: int, is_grouped: bool = False
    ) -> None:
        self._lengths = prompt_lengths
        self._width = prompt_width
        self._is_grouped = is_grouped
        self._kept: tuple[mx.array, mx.array] | None = None
        self.offset: Any = 0

    def begin_answers(self) -> None:
        """Turn to the second pass: [2B] answers, chosen first, behind the prompts."""
        self._lengths = mx.concatenate([self._lengths] * 2)
        self.offset = self._lengths

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Keep the prompts' keys and values; return them before the answers' own."""
        if isinstance(self.offset, int):
            self._kept = (keys, values)
            return keys, values
        both = zip(self._kept or (), (keys, values), strict=True)
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
    """Let every layer that holds a `PackedCache` attend by it, and those with a `PackedStateCache`
    convolve and recur by theirs; SwiGLU keeps less.

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
        for module in _modules_with(model, _SCALE):
            replacement = _scale_by_token(vars(module)[_SCALE])
            seams.enter_context(_attribute(module, _SCALE, replacement))
        for module in _modules_with(model, "swiglu"):
            seams.enter_context(_attribute(module, "swiglu", swiglu))
        for name, (sequences, rule) in _RECURRENCES.items():
            for module in _modules_with(model, name):
                replacement = _recurring(vars(module)[name], sequences, rule)
                seams.enter_context(_attribute(module, name, replacement))
        for module in model.modules():
            if isinstance(module, nn.Conv1d):
                seams.enter_context(_called_by(module, partial(_convolve, module)))
        yield


def _convolve(module: nn.Conv1d, call: Callable[..., mx.array], x: mx.array) -> mx.array:
    mixer, PackedStateCache.asked = PackedStateCache.asked, None
    return call(x) if mixer is None else mixer.convolve(call, x, module.weight.shape[1] - 1)


def _recurring(
    original: Callable[..., Any], sequences: Sequence[str], rule: Callable[..., Any]
) -> Callable[..., Any]:
    """Let a recurrence of mlx-lm go through packed rows.

    Args:
        original: mlx-lm's function.
        sequences: those of its arguments that have a token axis.
        rule: called with `original` and its arguments by name, for rectangles of sequences.
    """
    signature = inspect.signature(original)

    def update(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        cache = given.get("state")
        if not isinstance(cache, PackedStateCache):
            return original(*args, **kwargs)

        def part(parts: Sequence[mx.array], state: mx.array | None, mask: mx.array | None) -> Any:
            own = dict(zip(sequences, parts, strict=True))
            return rule(original, **{**given, **own, "state": state, "mask": mask})

        return cache.mixer.scan(part, [given[name] for name in sequences])

    return update


def _delta_rule(
    original: Callable[..., Any],
    *,
    use_kernel: bool = True,
    lower_bound: float | None = None,
    **given: Any,
) -> Any:
    # Without a gradient mlx-lm has a kernel of its own; and gates may have an axis more.
    if lower_bound is not None or given["a"].ndim != 3 or (use_kernel and is_on_gpu()):
        return original(use_kernel=use_kernel, lower_bound=lower_bound, **given)
    return delta_rule(**given)


def _state_space(
    _: Callable[..., Any], *, hidden_states: mx.array, lengths: Any = None, **given: Any
) -> Any:
    del lengths  # they would say no more than the mask
    return state_space(hidden_states, **given)


_RECURRENCES: dict[str, tuple[Sequence[str], Callable[..., Any]]] = {
    "gated_delta_update": (("q", "k", "v", "a", "b"), _delta_rule),
    "ssm_update": (("hidden_states", "B", "C", "dt"), _state_space),
}
"""By the name a model's module knows it by: the sequences among its arguments, and what it does."""


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


_SCALE = "_get_llama_4_attn_scale"
"""What Ministral 3 multiplies queries by, which grows with the place in a sequence."""


def _scale_by_token(original: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """Let it take an offset per token: it takes one per batch row, and would make a batch row with
    all queries of each token."""

    def scale(size: int, offset: Any, *known: Any) -> mx.array:
        if not (isinstance(offset, mx.array) and offset.ndim == 1):
            return original(size, offset, *known)
        return original(1, offset, *known).reshape(-1, 1)  # [T, 1], of queries [1, H, T, D]

    return scale


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
