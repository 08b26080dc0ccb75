"""How far an adapter has moved a model on what it was not trained on: forgetting, as numbers.

The base answers neutral prompts by chance, seeded. At each token of these answers the KL divergence
of the adapted model from the base is taken over the whole vocabulary: what the base would have gone
on to say, and how much of it the adapter still would. It is 0 for the base itself and knows nothing
of better or worse. Beside it stands the NLL of plain text under both, and greedy answers of both to
the prompts on which they are furthest apart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.lora import adapter_switched_off
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.pipeline import encoder_for
from orpo_mlx.data.prompts import WrittenPrompt
from orpo_mlx.errors import NotFiniteError
from orpo_mlx.evaluation.divergence import divergences, logprobs_of
from orpo_mlx.evaluation.interval import Interval, Resampling, Sums
from orpo_mlx.evaluation.neutral_prompts import plain_paragraphs
from orpo_mlx.generation.batch import encode_prompt
from orpo_mlx.generation.greedy import answer
from orpo_mlx.generation.sampling import Sampling, stream_tokens
from orpo_mlx.models.load import LoadedModel
from orpo_mlx.models.modes import evaluating
from orpo_mlx.scoring.logprobs import token_logps
from orpo_mlx.text.progress import OnProgress

SHOWN = 5
_LONGEST_PARAGRAPH = 512
_ANSWERING = "drift: answering"
METHOD = (
    "KL(base || adapter) in nats per token, over the vocabulary, on answers the base samples at "
    "temperature 1; interval from a bootstrap over prompts; NLL in nats per token, over paragraphs"
)


@dataclass(frozen=True)
class DriftPlan:
    """What drift is measured on.

    Attributes:
        prompts: to answer.
        tokens: of the longest answer.
        seed: of the answers.
        origin: where the prompts come from, in words.
    """

    prompts: list[WrittenPrompt]
    tokens: int
    seed: int
    origin: str


@dataclass
class DriftMeter:
    """Measures while the model is a side: the base first, as `judge_subject` goes.

    Attributes:
        config: of the run, or made from options.
        answers: what the base sampled, as ids, for each prompt.
        divergence: by side, for each prompt the KL divergence at each token of the answer.
        text: by side, nats of each paragraph of plain text.
        greedy: by side, the greedy answers to the prompts furthest apart, by their position.
    """

    loaded: LoadedModel
    config: TrainConfig
    plan: DriftPlan
    on_progress: OnProgress | None = None
    answers: list[list[int]] = field(default_factory=list)
    divergence: dict[str, list[np.ndarray]] = field(default_factory=dict)
    text: dict[str, np.ndarray] = field(default_factory=dict)
    greedy: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        encoder = encoder_for(self.config, self.loaded.tokenizer)
        is_chat = encoder.has_chat_template
        self._prompts = [
            encode_prompt(encoder, p.turns if is_chat else p.text, p.source)
            for p in self.plan.prompts
        ]
        parts = [encoder.encode(text)[:_LONGEST_PARAGRAPH] for text in plain_paragraphs()]
        self._paragraphs = [ids for ids in parts if len(ids) > 1]

    def __call__(self, side: str) -> None:
        """Measure the model as it is now, which is this side."""
        model = self.loaded.model
        with evaluating(model):
            self.text[side] = self._read_text(side)
            if side == "base":
                self.sample_answers()
            else:
                self.compare(side)
                self.greedy[side] = self._greedy_answers(side)

    def sample_answers(self) -> None:
        """Let the base answer all prompts by chance; an adapter there is is switched off."""
        self._tell(0, _ANSWERING)
        with adapter_switched_off(self.loaded.model):
            self.answers = [self._sampled(i) for i in range(len(self._prompts))]

    def compare(self, side: str) -> None:
        """Take the divergence from the base at each token of its answers.

        Raises:
            NotFiniteError: it is no number.
        """
        self._tell(0, f"drift: comparing, {side}")
        self.divergence[side] = [self._apart(side, i) for i in range(len(self._prompts))]

    def try_one(self) -> tuple[float, float]:
        """Write and compare one answer; returns the seconds of each. Nothing is kept."""
        started = time.perf_counter()
        with adapter_switched_off(self.loaded.model):
            self.answers = [self._sampled(0)]
        written = time.perf_counter()
        self._apart("adapter", 0)
        self.answers = []
        return written - started, time.perf_counter() - written

    def _tell(self, done: int, label: str, total: int | None = None) -> None:
        if self.on_progress is not None:
            total = len(self._prompts) if total is None else total
            self.on_progress(done, total, label, "rows")

    def _read_text(self, side: str) -> np.ndarray:
        """Return the nats of each paragraph of plain text."""
        label, count, nats = f"drift: plain text, {side}", len(self._paragraphs), []
        self._tell(0, label, count)
        for ids in self._paragraphs:
            nats.append(_nll(self.loaded.model, ids))
            self._tell(len(nats), label, count)
        return np.array(nats)

    def _sampled(self, i: int) -> list[int]:
        """Let the model answer a prompt by chance; the end of turn belongs to the answer."""
        loaded, plan = self.loaded, self.plan
        sampling = Sampling(1.0, 1.0, plan.tokens, seed=_seed_of(plan.seed, i))
        stream = stream_tokens(loaded.model, loaded.tokenizer, self._prompts[i], sampling)
        found = [token.id for token in stream]
        self._tell(i + 1, _ANSWERING)
        return found

    def _apart(self, side: str, i: int) -> np.ndarray:
        """Return the KL divergence from the base at each token of an answer."""
        model, prompt = self.loaded.model, self._prompts[i]
        ids, first = [*prompt, *self.answers[i]][:-1], len(prompt) - 1
        with adapter_switched_off(model):
            base = logprobs_of(model, ids, first)
            mx.eval(base)
        found = np.array(divergences(base, logprobs_of(model, ids, first)), np.float64)
        if not np.isfinite(found).all():
            raise NotFiniteError(
                f"{side}: the divergence from the base on {self.plan.prompts[i].source} is NaN or "
                "infinite",
                "The adapter's weights are broken, or far too large: try an earlier checkpoint.",
            )
        self._tell(i + 1, f"drift: comparing, {side}")
        return np.maximum(found, 0.0)  # rounding leaves -1e-9 where both say the same

    def _greedy_answers(self, side: str) -> dict[int, tuple[str, str]]:
        """Return (base, side) greedy answers to the prompts furthest apart per token."""
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        means = [-float(values.mean()) for values in self.divergence[side]]
        places = np.argsort(means, kind="stable")[:SHOWN].tolist()
        label, found = f"drift: greedy answers, {side}", dict[int, tuple[str, str]]()
        self._tell(0, label, len(places))
        for place in places:
            prompt, tokens = self._prompts[place], self.plan.tokens
            with adapter_switched_off(model):
                base = answer(model, tokenizer, prompt, tokens)
            found[place] = base, answer(model, tokenizer, prompt, tokens)
            self._tell(len(found), label, len(places))
        return found

    # The result

    def as_json(self) -> dict[str, Any]:
        """Return what was measured as plain values."""
        tokens = [len(ids) for ids in self.answers]
        side = next(reversed(self.divergence), None)
        return {
            "prompts": len(self.answers),
            "prompts_from": self.plan.origin,
            "longest_answer": self.plan.tokens,
            "answer_tokens": sum(tokens),
            "kl_per_token": {
                name: self.divergence_of(name).as_dict() for name in self.divergence
            },
            "kl_by_kind": {name: self._by_kind(name) for name in self.divergence},
            "kl_by_position": {name: self._by_position(name) for name in self.divergence},
            "text_nll": self._text_nll(),
            "text_tokens": sum(len(ids) - 1 for ids in self._paragraphs),
            "answers": [] if side is None else self._shown(side),
            "method": METHOD,
        }  # fmt: skip

    def divergence_of(self, side: str) -> Interval:
        """Return the mean KL divergence per token, in nats."""
        parts = self.divergence[side]
        sums = Sums(
            np.array([values.sum() for values in parts]), np.array([len(v) for v in parts], float)
        )
        return Resampling(np.arange(len(parts)), self.plan.seed).interval(sums)

    def _by_kind(self, side: str) -> dict[str, float]:
        kinds = dict.fromkeys(prompt.kind for prompt in self.plan.prompts if prompt.kind)
        pairs = list(zip(self.plan.prompts, self.divergence[side], strict=True))
        return {
            kind: float(np.concatenate([v for p, v in pairs if p.kind == kind]).mean())
            for kind in kinds
        }

    def _by_position(self, side: str) -> list[float]:
        """Return the mean at each place in an answer, over the answers that reach it."""
        parts = self.divergence[side]
        longest = max(map(len, parts))
        return [float(np.mean([v[i] for v in parts if len(v) > i])) for i in range(longest)]

    def _text_nll(self) -> dict[str, Any]:
        under = np.array([len(ids) - 1 for ids in self._paragraphs], float)
        sums = {side: Sums(nats, under) for side, nats in self.text.items()}
        draws = Resampling(np.arange(len(under)), self.plan.seed)
        found: dict[str, Any] = {s: draws.interval(one).as_dict() for s, one in sums.items()}
        side = next(reversed(sums))
        if side != "base":
            found["difference"] = draws.difference(sums["base"], sums[side])[0].as_dict()
        return found

    def _shown(self, side: str) -> list[dict[str, Any]]:
        return [
            {
                "prompt": self.plan.prompts[place].text,
                "kind": self.plan.prompts[place].kind,
                "kl_per_token": float(self.divergence[side][place].mean()),
                "base": base,
                side: own,
            }
            for place, (base, own) in self.greedy[side].items()
        ]


def _seed_of(seed: int, prompt: int) -> int:
    """Return the seed of one answer, of 31 bits: it is the upper half of a key."""
    return (seed * 100_003 + prompt) % (1 << 31)


def _nll(model: Any, ids: list[int]) -> float:
    """Return the nats of a text after its first token."""
    logits = model(mx.array(ids[:-1])[None])[0]
    return -float(token_logps(logits, mx.array(ids[1:])).sum().item())  # type: ignore[arg-type]
