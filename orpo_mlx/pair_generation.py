"""Answers sampled in batches by the user's own model, for pairs that are made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from orpo_mlx import models
from orpo_mlx.chat_template import check_chat_template
from orpo_mlx.data.questions import Question
from orpo_mlx.data.templates import Encoder, TemplateRefused, fold_system
from orpo_mlx.errors import DataError, ModelError
from orpo_mlx.hub_client import OnProgress


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled.

    Attributes:
        temperature: 0 = the likeliest token.
        top_p: share of the probability that is sampled from; 1 = all.
        max_tokens: longest answer.
    """

    temperature: float
    top_p: float
    max_tokens: int


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
        self.folder = models.resolve_model(name, revision, on_progress)
        self.tokenizer = models.load_tokenizer(self.folder, chat_template)
        self.encoder = Encoder(self.tokenizer)
        self.fingerprint = models.fingerprint(self.folder.path)
        self._model: Any = None

    def check_template(self) -> None:
        """Dry-run the chat template.

        Raises:
            ModelError: there is none, or it fails.
        """
        check_chat_template(self.tokenizer, self.folder.name)

    def encode(self, question: Question) -> list[int]:
        """Return the prompt's ids, up to where the answer begins.

        Raises:
            DataError: the template refuses the turns.
        """
        if isinstance(question.prompt, str):
            return self.encoder.encode(question.prompt)
        turns = question.prompt
        if self.encoder.folds_system:
            turns = fold_system(turns)
        thinks = False if self.encoder.switches_thinking else None
        try:
            text = self.encoder.render(turns, True, thinks, question.tools)
        except TemplateRefused as error:
            raise DataError(
                f"{question.source}: the chat template refuses this prompt ({error}).",
                "Remove the row, or give another template with --chat-template.",
            ) from None
        return self.encoder.encode(text)

    def answer(
        self, prompts: Sequence[list[int]], count: int, sampling: Sampling, seed: int
    ) -> list[list[dict[str, Any]]]:
        """Return `count` answers to each prompt as {"text", "is_cut"}.

        The same prompts, settings and seed give the same answers on the same machine.
        """
        if self._model is None:
            self._model = models.load_model(self.folder, self.tokenizer).model
            self._model.eval()
        mx.random.seed(seed)
        repeated = [prompt for prompt in prompts for _ in range(count)]
        found = list(sample_batch(self._model, self.tokenizer, repeated, sampling))
        return [found[i : i + count] for i in range(0, len(found), count)]


def sample_batch(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], sampling: Sampling
) -> Iterator[dict[str, Any]]:
    """Answer prompts side by side, in their order.

    mlx-lm's `batch_generate` keeps the wired-memory limit raised all the time; reports tie that
    limit to kernel panics, so its generator is used by itself and the limit put back at once.

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
        yield {"text": text, "is_cut": cut.get(number, False)}


def batch_seed(seed: int, number: int) -> int:
    """Return the seed of one batch, so that a batch can be repeated by itself."""
    return (seed * 1_000_003 + number) % (1 << 63)
