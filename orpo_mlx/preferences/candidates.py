"""Answers that the user's own model writes to prompts, journalled as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orpo_mlx.generation.batch import Writer, batch_seed
from orpo_mlx.generation.sampling import Sampling
from orpo_mlx.preferences.questions import PromptAnswers
from orpo_mlx.storage.journal import Journal


@dataclass(frozen=True)
class Candidates:
    """Answers a model wrote.

    Attributes:
        answers: for each prompt some, as `generation.batch.sample_batch` has them.
        about: the model and its settings, for the provenance.
        date: when the work began.
    """

    answers: list[list[dict[str, Any]]]
    about: dict[str, Any]
    date: str


def write_candidates(
    questions: Sequence[PromptAnswers],
    writer: Writer,
    sampling: Sampling,
    *,
    count: int,
    batch: int,
    open_journal: Callable[[dict[str, Any]], Journal],
    on_begin: Callable[[int, int], None],
    on_done: Callable[[int, int], None],
) -> Candidates:
    """Return answers to all prompts, going on where an earlier start of the same work ended.

    Args:
        questions: prompts to answer.
        writer: the model.
        sampling: of each answer.
        count: answers to each prompt.
        batch: prompts answered side by side.
        open_journal: makes the journal of this work, given all that its results depend on.
        on_begin, on_done: told (prompts answered, of how many) at the start and after each batch.
    """
    if any(not isinstance(question.prompt, str) for question in questions):
        writer.check_template()
    about = {
        "model": writer.name,
        "model_fingerprint": writer.fingerprint,
        **asdict(sampling),
        "candidates": count,
        "batch_size": batch,
    }
    with open_journal(about) as journal:
        prompts = [writer.encode(q.prompt, q.tools, q.source) for q in questions]
        parts = [range(i, min(i + batch, len(prompts))) for i in range(0, len(prompts), batch)]
        begun = len(journal.entries)
        on_begin(parts[begun - 1].stop if begun else 0, len(prompts))
        for number in range(begun, len(parts)):
            asked = [prompts[k] for k in parts[number]]
            own = replace(sampling, seed=batch_seed(sampling.seed, number))
            found = writer.answer(asked, count, own)
            journal.append({"batch": number, "answers": found})
            on_done(parts[number].stop, len(prompts))
        answers = [one for entry in journal.entries for one in entry["answers"]]
        date = journal.header["date"]
    return Candidates(answers, about, date)
