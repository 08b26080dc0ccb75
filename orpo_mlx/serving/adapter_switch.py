"""mlx-lm's server with one base in memory and its adapters changed between answers.

mlx-lm loads a model anew for every other adapter. Here its `ModelProvider` puts other LoRA layers
on the one base instead. mlx-lm asks for a model only when no answer is being made, on the one
thread that computes, so no answer ever sees two adapters; requests to one adapter are answered in
one batch, those to another wait for its end. Caches of prompts are kept by `model_key`, which names
the adapter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
from mlx_lm.generate import DEFAULT_QUANTIZED_KV_START
from mlx_lm.models.cache import LRUPromptCache, can_trim_prompt_cache, make_prompt_cache
from mlx_lm.models.cache import trim_prompt_cache as trim
from mlx_lm.server import ModelProvider, ResponseGenerator, process_message_content

from orpo_mlx.adapters.folder import load_into, read_spec
from orpo_mlx.adapters.lora import AdapterSet, attach_adapter
from orpo_mlx.data.tokens.encoder import Encoder, fold_system
from orpo_mlx.generation.context import longest_answer
from orpo_mlx.models.load import load_model, read_weights
from orpo_mlx.models.shape import context_length
from orpo_mlx.serving.served_models import ServedModel, ServedModels
from orpo_mlx.serving.stop_words import end_at

MAX_TOKENS = 512
"""Of an answer whose request does not say; mlx-lm's own."""

_UPSTREAM = {
    "model": None, "adapter_path": None, "draft_model": None, "num_draft_tokens": 3,
    "trust_remote_code": False, "chat_template": "", "use_default_chat_template": False,
    "chat_template_args": {}, "pipeline": False, "allowed_origins": (), "temp": 0.0, "top_p": 1.0,
    "top_k": 0, "min_p": 0.0, "max_tokens": MAX_TOKENS, "decode_concurrency": 32,
    "prompt_concurrency": 8, "prefill_step_size": 2048, "prompt_cache_size": 10,
    "prompt_cache_bytes": None, "kv_bits": None, "kv_group_size": 64,
    "quantized_kv_start": DEFAULT_QUANTIZED_KV_START,
}  # fmt: skip
"""What mlx-lm's server takes from its command line: its defaults, and nobody from elsewhere."""


class AdapterProvider(ModelProvider):
    """One base in memory, worn adapters by name; loads nothing a request names.

    Attributes:
        opened: set when the weights are in memory, or `failure` says why they are not.
        encoder: of the model in use.
        context: positions of all these models; None: the base does not say.
    """

    context: int | None = None

    def __init__(self, served: ServedModels) -> None:
        super().__init__(SimpleNamespace(**_UPSTREAM))  # type: ignore[arg-type]
        self.served = served
        self.opened = threading.Event()
        self.failure: Exception | None = None
        self.encoder: Encoder = served.models[served.base_name].encoder

    def load_default(self) -> None:
        """Load base and adapters, on the thread that will compute: MLX's streams are its own."""
        try:
            self._open()
        except Exception as error:  # handed to the thread that waits for it
            self.failure = error
        self.opened.set()

    def _open(self) -> None:
        served = self.served
        tokenizer: Any = self.encoder.tokenizer
        loaded = load_model(served.base, tokenizer, lazy=True)
        adapters = self._adapters = AdapterSet(loaded.model)
        for one in served.models.values():
            if one.folder is not None:
                attach_adapter(loaded.model, read_spec(one.folder), seed=0)
                load_into(loaded.model, one.folder, loaded.fingerprint, served.base.name)
                adapters.keep(one.name)
        read_weights(loaded)
        loaded.model.eval()
        self.model = loaded.model
        self.context = context_length(loaded.config)
        self.is_batchable = all(hasattr(cache, "merge") for cache in make_prompt_cache(self.model))
        self._wear(served.models[served.base_name])

    def load(
        self, model_path: str, adapter_path: Any = None, draft_model_path: Any = None
    ) -> tuple[Any, Any]:
        """Return the model of a name with its tokenizer; paths count nothing.

        Raises:
            ValueError: there is none of this name.
        """
        if model_path not in self.served.models:
            raise ValueError(f"{model_path}: is not served here")
        if self.model_key != self._key(model_path):
            self._wear(self.served.models[model_path])
        return self.model, self.tokenizer

    def reset(self) -> None:
        """Let go of all weights, on the thread that made them."""
        super().reset()
        self._adapters: AdapterSet | None = None

    def _wear(self, one: ServedModel) -> None:
        assert self._adapters is not None
        self._adapters.wear(one.name)
        self.encoder, self.tokenizer = one.encoder, one.encoder.tokenizer
        self.model_key = self._key(one.name)

    def _key(self, name: str) -> tuple[str, str, None]:
        return str(self.served.base.path), name, None


class PromptCaches(LRUPromptCache):
    """mlx-lm's caches, but never one of a whole prompt: its server stops at an empty rest."""

    def fetch_nearest_cache(self, model: Any, tokens: list[int]) -> tuple[Any, list[int]]:
        cache, rest = super().fetch_nearest_cache(model, tokens)
        if rest or cache is None:
            return cache, rest
        if not can_trim_prompt_cache(cache):
            return None, tokens
        trim(cache, 1)
        return cache, tokens[-1:]


class AdapterGenerator(ResponseGenerator):
    """mlx-lm's one thread that computes, with prompts written as the training wrote them."""

    model_provider: AdapterProvider

    def __init__(self, provider: AdapterProvider) -> None:
        self._running: set[Any] = set()
        super().__init__(provider, PromptCaches(_UPSTREAM["prompt_cache_size"]))

    def _run_generate(self) -> None:
        try:
            super()._run_generate()
        finally:
            # MLX 0.32 on a CPU aborts the whole process at its end if a thread leaves streams.
            mx.clear_streams()

    def _tokenize(self, tokenizer: Any, request: Any, args: Any) -> tuple[Any, ...]:
        encoder: Encoder = self.model_provider.encoder
        is_text = request.request_type == "text"
        ids = encoder.encode(request.prompt) if is_text else self._chat_ids(encoder, request, args)
        args.max_tokens = longest_answer(len(ids), args.max_tokens, self.model_provider.context)
        state = "normal" if is_text else _initial_state(tokenizer, ids)
        return ids, [ids], ["assistant"], state, None

    def _chat_ids(self, encoder: Encoder, request: Any, args: Any) -> list[int]:
        messages = [dict(message) for message in request.messages]
        process_message_content(messages)
        turns: Any = fold_system(messages) if encoder.folds_system else messages  # type: ignore[arg-type]
        thinks = (args.chat_template_kwargs or {}).get("enable_thinking")
        return encoder.encode(encoder.render(turns, True, thinks, request.tools))

    def generate(
        self, request: Any, generation_args: Any, progress_callback: Any = None
    ) -> tuple[Any, Generator[Any, Any, None]]:
        words = generation_args.stop_words
        asked = replace(generation_args, stop_words=[])
        context, answer = super().generate(request, asked, progress_callback)
        return context, self._counted(context, end_at(words, answer) if words else answer)

    def _counted(self, context: Any, answer: Any) -> Generator[Any, Any, None]:
        self._running.add(context.stop)
        try:
            yield from answer
        finally:
            self._running.discard(context.stop)

    def stop_and_join(self) -> None:
        """End all answers where they are, and the thread."""
        stops: list[Callable[[], None]] = list(self._running)
        for stop in stops:
            stop()
        super().stop_and_join()


def _initial_state(tokenizer: Any, ids: list[int]) -> str:
    """Return whether an answer begins inside a thought, as mlx-lm's server tells it."""
    state = "normal"
    if tokenizer.has_thinking:
        started, ended = tokenizer.rfind_think_start(ids), tokenizer.rfind_think_end(ids)
        state = "reasoning" if started > ended else "normal"
    return tokenizer.response_initial_state or state
