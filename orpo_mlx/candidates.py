"""Answers that the user's own model writes to prompts, journalled beside OUT."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orpo_mlx import report
from orpo_mlx.data.questions import Question
from orpo_mlx.formatting import format_duration
from orpo_mlx.journal import Journal
from orpo_mlx.pair_request import Request

_REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class Candidates:
    """Answers a model wrote.

    Attributes:
        answers: for each prompt {"text", "is_cut"} each.
        about: the model and its settings, for the provenance.
        date: when the work began.
    """

    answers: list[list[dict[str, Any]]]
    about: dict[str, Any]
    date: str


def write_candidates(request: Request, questions: Sequence[Question]) -> Candidates:
    """Return answers to all prompts, going on where an earlier start of the same work ended."""
    generation = importlib.import_module("orpo_mlx.pair_generation")
    writer = generation.Writer(
        request.model["model"], request.model.get("revision"), request.model.get("chat_template")
    )
    if any(not isinstance(question.prompt, str) for question in questions):
        writer.check_template()
    about = {
        "model": request.model["model"],
        "model_fingerprint": writer.fingerprint,
        **request.sampling,
        "candidates": request.count,
        "batch_size": request.batch,
        "seed": request.seed,
    }
    header = request.header("candidates", questions, **about, date=request.date)
    with Journal(request.sidecar("candidates"), header, free=("date",)) as journal:
        prompts = [writer.encode(question) for question in questions]
        sampling = generation.Sampling(**request.sampling)
        parts = [
            range(i, min(i + request.batch, len(prompts)))
            for i in range(0, len(prompts), request.batch)
        ]
        done = len(journal.entries)
        if done:
            report.print_text(f"going on after {parts[done - 1].stop} of {len(prompts)} prompts\n")
        progress = _Progress(len(prompts), parts[done - 1].stop if done else 0)
        try:
            for number in range(done, len(parts)):
                seed = generation.batch_seed(request.seed, number)
                asked = [prompts[k] for k in parts[number]]
                found = writer.answer(asked, request.count, sampling, seed)
                journal.append({"batch": number, "answers": found})
                progress.show(parts[number].stop)
        except KeyboardInterrupt:
            report.print_error_text("what is answered is kept: the same command goes on")
            raise
        answers = [one for entry in journal.entries for one in entry["answers"]]
        date = journal.header["date"]
    return Candidates(answers, about, date)


class _Progress:
    """Says on stderr how far the answers are, not more often than every few seconds."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._first = total, done
        self._start = self._last = time.monotonic()

    def show(self, done: int) -> None:
        """Tell how many prompts are answered."""
        now = time.monotonic()
        if now - self._last < _REPORT_SECONDS and done < self._total:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = format_duration((self._total - done) / rate) if rate else "?"
        after = f", about {left} left" if done < self._total else ""
        report.print_error_text(f"answered {done} of {self._total} prompts{after}")
