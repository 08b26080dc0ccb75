"""Two sides and their greedy answers to the same held-out prompts, made once and kept.

Of pairs with like prompts one is taken: answers to like prompts are alike, and Wilson's interval
counts independent comparisons. The model's weights are read only if answers are missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.reward_head import require_answers
from orpo_mlx.data.batching.order import draw_some
from orpo_mlx.data.types import Account, TokenPair
from orpo_mlx.errors import AdapterError, ModelError, reason_of
from orpo_mlx.evaluation.held_out import HeldOut
from orpo_mlx.evaluation.subject import Asked, Subject, open_subject
from orpo_mlx.generation.batch import sample_batch
from orpo_mlx.generation.sampling import Sampling
from orpo_mlx.generation.user_turn import PromptReader
from orpo_mlx.judging.ledger import Ask, GivenAnswer, Ledger
from orpo_mlx.judging.thought import opens_thought, without_thought
from orpo_mlx.models.load import read_weights
from orpo_mlx.models.modes import evaluating
from orpo_mlx.storage.regular import open_regular
from orpo_mlx.text.progress import OnProgress

_BATCH = 8


@dataclass(frozen=True)
class ContestPlan:
    """What is compared on.

    Attributes:
        prompts: how many are drawn.
        max_tokens: longest answer.
        seed: of the drawn prompts and of the order in which answers are shown.
        folder: of the journals.
        begin_anew: forget what is kept of this comparison.
    """

    prompts: int
    max_tokens: int
    seed: int
    folder: Path
    begin_anew: bool = False


@dataclass(frozen=True)
class Duel:
    """Two answers to one prompt.

    Attributes:
        prompt: as people read it.
        after_first: whether a person sees the later side's answer first, drawn by seed.
    """

    place: int
    prompt: str
    before: GivenAnswer
    after: GivenAnswer
    after_first: bool

    @property
    def is_same(self) -> bool:
        """Whether both sides gave the same answer, which needs no judge."""
        return self.before.text == self.after.text

    def shown(self, after_first: bool) -> tuple[str, str]:
        """Return both answers as they are shown."""
        texts = self.before.text, self.after.text
        return (texts[1], texts[0]) if after_first else texts

    def ask_person(self, judge: str) -> Ask:
        """Return the one question a person is asked."""
        return Ask(judge, self.place, self.after_first)

    def ask_model(self, judge: str) -> tuple[Ask, Ask]:
        """Return both questions a model is asked."""
        return Ask(judge, self.place, False), Ask(judge, self.place, True)


@dataclass(frozen=True)
class Contest:
    """All duels, and the journal that keeps what is said of them.

    Attributes:
        before, after: the sides: "base" or "other", and "adapter".
        names: what the sides are called.
        available: prompts there were to draw from.
        notes: what the user should know.
        account: of the rows they come from.
        max_seq_length: tokens a pair may have.
    """

    plan: ContestPlan
    before: str
    after: str
    names: dict[str, str]
    duels: list[Duel]
    available: int
    is_held_out: bool
    ledger: Ledger
    notes: tuple[str, ...]
    account: Account
    max_seq_length: int


@contextmanager
def open_contest(
    asked: Asked,
    plan: ContestPlan,
    on_progress: OnProgress | None = None,
    before_answers: Callable[[], None] | None = None,
) -> Iterator[Contest]:
    """Find what is compared and let both sides answer where no answer is kept.

    The model is let go before the contest is yielded.

    Args:
        asked: with an adapter, and no pairs drawn.
        plan: how.
        on_progress: told of the rows and of the answers.
        before_answers: called before the weights are read, if answers are missing; what it raises
            ends it.

    Raises:
        OrpoError: naming what is wrong and what to do.
    """
    for place in filter(None, (asked.adapter, asked.against)):
        require_answers(place.folder)
    subject = open_subject(asked, on_progress, reads_weights=False)
    drawn = draw_some(independent_places(subject.held), plan.prompts, plan.seed)
    pairs = [subject.held.pairs[i] for i in drawn]
    before = "other" if "other" in subject.sides else "base"
    sides = before, "adapter"
    identity = _identity(subject, pairs, sides, plan)
    with Ledger(plan.folder, identity, plan.begin_anew) as ledger:
        places = [(side, place) for side in sides for place in range(len(pairs))]
        if before_answers is not None and not ledger.answers.keys() >= set(places):
            before_answers()
        _answer_all(subject, pairs, sides, plan.max_tokens, ledger, on_progress)
        contest = Contest(
            plan, *sides, _names(subject), _duels(subject, pairs, sides, plan.seed, ledger),
            len(independent_places(subject.held)), subject.held.is_held_out, ledger,
            (*subject.notes, *_notes_on_journal(ledger)), subject.held.account,
            subject.asked.config.max_seq_length,
        )  # fmt: skip
        del subject, pairs
        mx.clear_cache()  # a judge may need the memory
        yield contest


def independent_places(held: HeldOut) -> list[int]:
    """Return the position of the first pair of each group of like prompts."""
    return sorted(np.unique(held.groups, return_index=True)[1].tolist())


def _names(subject: Subject) -> dict[str, str]:
    return {
        "base": subject.folder.name,
        **{side: place.name for side, place in subject.sides.items()},
    }


def _identity(
    subject: Subject, pairs: Sequence[TokenPair], sides: tuple[str, str], plan: ContestPlan
) -> dict[str, Any]:
    """Return all that the answers and the order they are shown in depend on."""
    prompts = hashlib.sha256(repr([list(map(int, pair.prompt)) for pair in pairs]).encode())
    return {
        "work": "judge",
        "model": subject.loaded.fingerprint,
        **{
            side: _adapter_digest(subject.sides[side].folder) if side != "base" else "base"
            for side in sides
        },
        "prompts": prompts.hexdigest(),
        "max_tokens": plan.max_tokens,
        "seed": plan.seed,
    }


def _adapter_digest(folder: Path) -> str:
    """Return a sha256 of an adapter's settings and weights."""
    digest = hashlib.sha256()
    try:
        for path in sorted([*folder.glob("*.safetensors"), *folder.glob("adapter_config.json")]):
            with open_regular(path) as stream:
                while part := stream.read(1 << 20):
                    digest.update(part)
    except OSError as error:
        raise AdapterError(
            f"{folder}: cannot be read ({reason_of(error)}).", "Check the folder."
        ) from error
    return digest.hexdigest()


def _notes_on_journal(ledger: Ledger) -> list[str]:
    notes = []
    if ledger.damaged:
        notes.append(
            f"{ledger.path}: {ledger.damaged} damaged lines were passed over; what they held is "
            "made or asked again"
        )
    if ledger.is_new and ledger.others:
        notes.append(
            f"a new journal is begun, {ledger.path}: the {ledger.others} there were are of other "
            "models, data or settings, and stay"
        )
    return notes


# Answers


def _answer_all(
    subject: Subject, pairs: Sequence[TokenPair], sides: tuple[str, str], max_tokens: int,
    ledger: Ledger, on_progress: OnProgress | None,
) -> None:  # fmt: skip
    """Let the sides answer what is missing in the journal."""
    parts = [range(i, min(i + _BATCH, len(pairs))) for i in range(0, len(pairs), _BATCH)]
    has_weights = False
    for number, side in enumerate(sides):
        # All of a batch again, also if one is missing: numbers may depend on the neighbours.
        missing = [part for part in parts if any((side, k) not in ledger.answers for k in part)]
        if not missing:
            continue
        if not has_weights:
            read_weights(subject.loaded)
            has_weights = True
        with subject.wearing(side):
            for part in missing:
                if on_progress is not None:
                    done = number * len(pairs) + part.start
                    on_progress(done, len(sides) * len(pairs), "answering prompts", "rows")
                answers = _answer(subject, [list(pairs[k].prompt) for k in part], max_tokens)
                for place, answer in zip(part, answers, strict=True):
                    if (side, place) not in ledger.answers:
                        ledger.keep_answer(side, place, answer)


def _answer(subject: Subject, prompts: list[list[int]], max_tokens: int) -> list[GivenAnswer]:
    model, tokenizer = subject.loaded.model, subject.loaded.tokenizer
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
    with evaluating(model):
        found = list(sample_batch(model, tokenizer, prompts, sampling))
    inside = [opens_thought(tokenizer.decode(prompt)) for prompt in prompts]
    return [
        GivenAnswer(without_thought(one["text"], thinks), one["tokens"], one["is_cut"])
        for one, thinks in zip(found, inside, strict=True)
    ]


def _duels(
    subject: Subject, pairs: Sequence[TokenPair], sides: tuple[str, str], seed: int, ledger: Ledger
) -> list[Duel]:
    firsts = np.random.Generator(np.random.PCG64(seed)).integers(0, 2, len(pairs)).tolist()
    duels, reader = [], PromptReader(subject.loaded.tokenizer)
    for place, pair in enumerate(pairs):
        before, after = (ledger.answers[side, place] for side in sides)
        words = reader.talk(pair.prompt)
        duels.append(Duel(place, words, before, after, bool(firsts[place])))
    if all(not duel.before.text and not duel.after.text for duel in duels):
        raise ModelError(
            f"{subject.folder.name}: both sides answer nothing to all {len(duels)} prompts.",
            "Give more --max-tokens to one that thinks; Test in the app shows what it says.",
        )
    return duels
