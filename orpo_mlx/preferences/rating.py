"""A reward model rates answers: one number for each, higher is better.

A number means something beside others of the same prompt; with centring also beside those of other
prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from orpo_mlx.adapters.folder import load_into, read_spec
from orpo_mlx.adapters.lora import attach_adapter
from orpo_mlx.adapters.reward_head import attach_head, holds_head
from orpo_mlx.config.train_config import required
from orpo_mlx.data.batching.order import split_by_tokens
from orpo_mlx.data.layouts.turns import answer
from orpo_mlx.data.pipeline import encoder_for
from orpo_mlx.data.tokens.tokenize import tokenize_pair
from orpo_mlx.data.types import Drop, PreferencePair, TokenPair
from orpo_mlx.errors import ConfigError
from orpo_mlx.evaluation.subject import AdapterPlace, adapter_of
from orpo_mlx.models.load import load_model, load_tokenizer, read_weights, resolve_model
from orpo_mlx.models.precision import choose_float32
from orpo_mlx.preferences.questions import PromptAnswers
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.scoring.base import Scoring, iter_scores
from orpo_mlx.scoring.head import REWARD
from orpo_mlx.scoring.plain import Plain
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.text.progress import OnProgress, tell_phase


def reward_place(run: RunDirectory) -> AdapterPlace:
    """Return the reward model a run has made, before anything is loaded.

    Raises:
        ConfigError: it has made something else.
        RunError: it is being trained, or has saved nothing yet.
    """
    place = adapter_of(run)
    if not holds_head(place.folder):
        raise ConfigError(
            f"run {run.id}: trained with --objective {run.read_config().objective}, which has no "
            "reward head; a reward model is needed to rate answers.",
            "Give a run of `orpo-mlx train --objective reward`; `orpo-mlx runs` lists all.",
        )
    return place


class Rater:
    """A reward model in memory.

    Args:
        run: that made it.
        place: of `reward_place`.
        on_progress: told of a download, and that weights are read.

    Raises:
        OrpoError: model or adapter cannot be used.
    """

    def __init__(
        self, run: RunDirectory, place: AdapterPlace, on_progress: OnProgress | None = None
    ) -> None:
        self.config = config = run.read_config()
        choose_float32(config.float32)
        folder = resolve_model(required(config, "model"), config.revision, on_progress)
        tokenizer = load_tokenizer(folder, config.chat_template)
        loaded = load_model(folder, tokenizer, lazy=True)
        attach_adapter(loaded.model, read_spec(place.folder), seed=0)
        attach_head(loaded.model, seed=0)
        load_into(loaded.model, place.folder, loaded.fingerprint, folder.name)
        tell_phase(on_progress, "loading the weights")
        read_weights(loaded)
        self._model, self._encoder = loaded.model, encoder_for(config, tokenizer)
        way = WAYS.get(str((place.manifest or {}).get("scoring")), Plain())
        self._scoring = Scoring(way, REWARD)

    def rate(
        self,
        questions: Sequence[PromptAnswers],
        on_done: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[list[float | Drop]]:
        """Return the reward of each answer, or why it has none.

        Args:
            questions: prompts with their answers.
            on_done: told of (answers rated, of how many).
        """
        asked = [(q, text) for q in questions for text in q.answers]
        tokens = [self._tokens(question, text) for question, text in asked]
        usable = [i for i, found in enumerate(tokens) if isinstance(found, TokenPair)]
        pairs: list[Any] = [tokens[i] for i in usable]
        found: list[float | Drop] = [one if isinstance(one, Drop) else 0.0 for one in tokens]
        budget = self.config.tokens_per_batch
        parts = split_by_tokens(range(len(pairs)), pairs, self._scoring.cost, budget)
        batches = [self._scoring.lay_out(pairs, part) for part in parts]
        done = 0
        on_done(done, len(pairs))
        for batch, scores in iter_scores(self._model, batches, self._scoring):
            rewards: Any = scores.chosen_sum.tolist()
            for place, reward in zip(batch.indices, rewards, strict=True):
                found[usable[place]] = reward
            done += batch.pairs
            on_done(done, len(pairs))
        rest = iter(found)
        return [[next(rest) for _ in question.answers] for question in questions]

    def _tokens(self, question: PromptAnswers, text: str) -> TokenPair | Drop:
        """Return an answer as the chosen side of a pair, as training tokenizes it."""
        # The other side is not asked for; a short one costs next to nothing.
        chosen: Any = text
        rejected: Any = "." if text.strip() != "." else "-"
        if not isinstance(question.prompt, str):
            chosen, rejected = answer(chosen), answer(rejected)
        pair = PreferencePair(
            question.prompt, chosen, rejected, question.source, tools=question.tools
        )
        return tokenize_pair(pair, self._encoder, self.config.max_seq_length)
