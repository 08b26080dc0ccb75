"""Answers sampled in batches by the user's own model, for pairs that are made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx

from orpo_mlx.data.tokens.encoder import Encoder, TemplateRefused, fold_system
from orpo_mlx.data.tokens.template_check import check_chat_template
from orpo_mlx.data.types import Message
from orpo_mlx.errors import DataError, ModelError
from orpo_mlx.generation.sampling import Sampling
from orpo_mlx.models import load
from orpo_mlx.text.progress import OnProgress


class Writer:
    """A loaded model that answers.

    Args:
        name: folder or Hub id.
        revision: of a Hub model.
        chat_template: "chatml" or a Jinja file, in place of the model's own.
        on_progress: told of a download.

    Raises:
        ModelError: it cannot be used.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        chat_template: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.name = name
        self.folder = load.resolve_model(name, revision, on_progress)
        self.tokenizer = load.load_tokenizer(self.folder, chat_template)
        self.encoder = Encoder(self.tokenizer)
        self.fingerprint = load.fingerprint(self.folder.path)
        self._model: Any = None

    def check_template(self) -> None:
        """Dry-run the chat template.

        Raises:
            ModelError: there is none, or it fails.
        """
        check_chat_template(self.tokenizer, self.folder.name)

    def encode(
        self, prompt: list[Message] | str, tools: list[dict[str, Any]] | None, source: str
    ) -> list[int]:
        """Return the prompt's ids, up to where the answer begins.

        Args:
            prompt: turns, or text to be continued.
            tools: what the prompt offers as tools.
            source: where it stands, for an error.

        Raises:
            DataError: the template refuses the turns.
        """
        return encode_prompt(self.encoder, prompt, source, tools)

    def answer(
        self, prompts: Sequence[list[int]], count: int, sampling: Sampling
    ) -> list[list[dict[str, Any]]]:
        """Return `count` answers to each prompt as `sample_batch` has them.

        The same prompts and sampling give the same answers on the same machine: its seed is that of
        the whole batch.
        """
        if self._model is None:
            self._model = load.load_model(self.folder, self.tokenizer).model
            self._model.eval()
        mx.random.seed(sampling.seed)
        repeated = [prompt for prompt in prompts for _ in range(count)]
        found = list(sample_batch(self._model, self.tokenizer, repeated, sampling))
        return [found[i : i + count] for i in range(0, len(found), count)]


def encode_prompt(
    encoder: Encoder,
    prompt: list[Message] | str,
    source: str,
    tools: list[dict[str, Any]] | None = None,
) -> list[int]:
    """Return the prompt's ids, up to where the answer begins; as `Writer.encode`."""
    if isinstance(prompt, str):
        return encoder.encode(prompt)
    turns = fold_system(prompt) if encoder.folds_system else prompt
    thinks = False if encoder.switches_thinking else None
    try:
        return encoder.encode(encoder.render(turns, True, thinks, tools))
    except TemplateRefused as error:
        raise DataError(
            f"{source}: the chat template refuses this prompt ({error}).",
            "Remove the row, or give another template with --chat-template.",
        ) from None


def sample_batch(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], sampling: Sampling
) -> Iterator[dict[str, Any]]:
    """Answer prompts side by side, in their order, as {"text", "is_cut", "tokens"}.

    mlx-lm's `batch_generate` keeps the wired-memory limit raised all the time; reports tie that
    limit to kernel panics, so its generator is used by itself and the limit put back at once. All
    answers of a batch are drawn together, from MLX's own generator of random numbers.

    Raises:
        ModelError: mlx-lm cannot generate in batches with this model.
    """
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.sample_utils import make_sampler

    sampler = make_sampler(
        temp=sampling.temperature, top_p=sampling.top_p if sampling.top_p < 1 else 0.0
    )
    stops = [[token] for token in tokenizer.eos_token_ids]
    generator = BatchGenerator(model, stop_tokens=stops, sampler=sampler)
    generator.close()
    try:
        numbers = generator.insert(
            [list(prompt) for prompt in prompts], [sampling.max_tokens] * len(prompts)
        )
        tokens: dict[int, list[int]] = {number: [] for number in numbers}
        cut: dict[int, bool] = {}
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    tokens[response.uid].append(response.token)
                cut[response.uid] = response.finish_reason == "length"
    except (TypeError, AttributeError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"mlx-lm cannot answer in batches with this model ({error}).",
            "Use another model for the answers.",
        ) from error
    for number in numbers:
        text = str(tokenizer.decode(tokens[number], skip_special_tokens=True))
        yield {"text": text, "is_cut": cut.get(number, False), "tokens": len(tokens[number])}


def batch_seed(seed: int, number: int) -> int:
    """Return the seed of one batch, so that a batch can be repeated by itself."""
    return (seed * 1_000_003 + number) % (1 << 63)
