"""Has it helped, told at the end of a training: base and adapter on the model in memory.

The path is that of `orpo-mlx evaluate`, which loads all of it again. Pairs and neutral prompts are
as many as fit into the time given, by what the first of them take.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.folder import load_into
from orpo_mlx.adapters.lora import adapter_parameters, adapter_switched_off
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.evaluation import DRIFT_TOKENS
from orpo_mlx.data.batching.order import draw_some
from orpo_mlx.data.prepare import PreparedData
from orpo_mlx.data.types import TokenPair
from orpo_mlx.evaluation.drift import SHOWN, DriftMeter, DriftPlan
from orpo_mlx.evaluation.held_out import FEWEST, HeldOut, grouped, notes_of_run, score_gaps
from orpo_mlx.evaluation.judgement import as_json, judge_subject
from orpo_mlx.evaluation.neutral_prompts import draw_prompts, shipped_prompts
from orpo_mlx.evaluation.report.examples import SHOWN as MOST_EXAMPLES
from orpo_mlx.evaluation.report.report import report_page
from orpo_mlx.evaluation.subject import (
    START,
    AdapterPlace,
    Asked,
    Subject,
    notes_on_groups,
    start_of,
)
from orpo_mlx.generation.sampling import Sampling, stream_tokens
from orpo_mlx.models.load import LoadedModel, ModelFolder
from orpo_mlx.models.modes import evaluating
from orpo_mlx.runs.checkpoints import versions
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.scoring.base import Scoring, iter_scores
from orpo_mlx.scoring.batches import valid_parts
from orpo_mlx.storage.atomic import write_atomically
from orpo_mlx.text.formatting import counted, format_duration
from orpo_mlx.text.progress import OnProgress

MOST_SECONDS = 60.0
LEAST_SECONDS = 10.0
SHARE = 0.25
"""Of the time the training took; a run of seconds is not followed by a minute of questions."""
MOST_PAIRS = 2000
"""More would narrow an interval of two points, and take long to draw from."""
MOST_ROWS = 200_000
"""Of data that are read again for the scores of their rows; more would take too long."""
SEED = 0
"""The default of `orpo-mlx evaluate`, so that it draws the same pairs."""
_FOR_DRIFT = 0.4
_FOR_EXAMPLES = 0.2
_TRIAL_SECONDS, _TRIAL_TOKENS = 3.0, 8
"""What the speed is measured by: pairs for so long at most, but one, and an answer of so many
tokens."""
_FEWEST_EXAMPLES = 2
"""One that rose and one that fell."""
_PASSES = 4
"""Of an example pair: both sides read it, and its prompt with each of its answers."""
_PROMPTS, _FEWEST_PROMPTS = 30, 10
_TEXT_TOKENS = 2000
"""Of the shipped plain text, about; both sides read it."""


@dataclass(frozen=True)
class Trained:
    """What a training has at hand at its end.

    Attributes:
        loaded: the model, which wears the adapter.
        scoring: as the training scored, whole sequences.
        seconds: that the training took.
    """

    run: RunDirectory
    config: TrainConfig
    folder: ModelFolder
    loaded: LoadedModel
    data: PreparedData
    scoring: Scoring
    seconds: float

    @property
    def budget(self) -> float:
        """Seconds that the evaluation may take."""
        return min(MOST_SECONDS, max(LEAST_SECONDS, SHARE * self.seconds))


@dataclass(frozen=True)
class Speed:
    """Seconds for each token that is scored, for each that is written, and for a mean pair.

    A reward model writes none: 0.
    """

    scored: float
    written: float
    pair: float


class _TrainedSubject(Subject):
    """A model that wears its adapter already."""

    @contextmanager
    def wearing(self, side: str) -> Iterator[None]:
        model = self.loaded.model
        if side == "base":
            with adapter_switched_off(model):
                yield
        elif side == START and self.start is not None:
            trained = list(adapter_parameters(model).items())
            load_into(model, self.start.folder, self.loaded.fingerprint, self.folder.name)
            try:
                yield
            finally:
                model.load_weights(trained, strict=False)
        else:
            yield


def too_few(trained: Trained) -> str:
    """Return why the held-out pairs allow no verdict, "" if they do."""
    if trained.config.objective == "kto":
        data = "" if trained.config.unpair else " --data PAIRS"
        return (
            "whether it helped is told from pairs, and these are answers with a label each: "
            f"orpo-mlx evaluate {trained.run.argument}{data}"
        )
    count = len(trained.data.valid)
    if count >= FEWEST:
        return ""
    return (
        f"whether it helped cannot be told from {counted(count, 'held-out pair')}: at least "
        f"{FEWEST} are needed, 100 or more to see anything but great changes; with pairs it has "
        f"not seen: orpo-mlx evaluate {trained.run.argument} --data FILE"
    )


@dataclass(frozen=True)
class EndPlan:
    """How much is evaluated.

    Attributes:
        pairs: of those held out.
        prompts: neutral ones; 0 = drift is not measured.
        examples: pairs shown token by token, which are scored once more for it; 0 = none.
        seconds: that it will take from here on, about.
    """

    pairs: int
    prompts: int
    examples: int
    seconds: float


def plan_evaluation(trained: Trained, on_progress: OnProgress) -> EndPlan:
    """Score and write a little, and decide from the time it took how much fits into the rest.

    Args:
        trained: with at least `FEWEST` held-out pairs.
        on_progress: called between pairs; what it raises ends it.
    """
    started = time.perf_counter()
    speed = _measured(trained, on_progress)
    left = trained.budget - (time.perf_counter() - started)
    return _fitting(speed, len(trained.data.valid), left)


def _fitting(speed: Speed, available: int, budget: float) -> EndPlan:
    """Return how much fits into a budget of seconds: the fewest pairs first, then what is besides.

    Args:
        available: pairs held out.
    """
    spare = budget - 2 * FEWEST * speed.pair
    prompts = _prompts_within(min(_FOR_DRIFT * budget, spare), speed) if speed.written else 0
    drift = _drift_seconds(prompts, speed) if prompts else 0.0
    examples = _examples_within(min(_FOR_EXAMPLES * budget, spare - drift), speed)
    besides = drift + _PASSES * examples * speed.pair
    fitting = int((budget - besides) / (2 * speed.pair))
    pairs = min(available, max(FEWEST, min(fitting, MOST_PAIRS)))
    return EndPlan(pairs, prompts, examples, besides + 2 * pairs * speed.pair)


def _examples_within(seconds: float, speed: Speed) -> int:
    """Return how many pairs are shown token by token; a reward model has no tokens to show."""
    if not speed.written:
        return 0
    fitting = int(seconds / (_PASSES * speed.pair))
    return min(MOST_EXAMPLES, fitting) if fitting >= _FEWEST_EXAMPLES else 0


def _measured(trained: Trained, on_progress: OnProgress) -> Speed:
    """Time a pair of usual length; where that is quick the fewest, together as they will be."""
    scoring, drawn = trained.scoring, draw_some(trained.data.valid, MOST_PAIRS, SEED)
    costs = np.array([scoring.cost([pair]) for pair in drawn])
    usual = np.argsort(np.abs(costs - np.median(costs)), kind="stable")[:FEWEST].tolist()
    timed = usual[:1]
    seconds = _seconds_scored(trained, [drawn[i] for i in timed], on_progress)
    if FEWEST * seconds < _TRIAL_SECONDS:
        timed = usual
        seconds = _seconds_scored(trained, [drawn[i] for i in timed], on_progress)
    scored = seconds / float(costs[timed].sum())
    written = 0.0 if scoring.rates else _seconds_written(trained.loaded, drawn[usual[0]].prompt)
    return Speed(scored, written, scored * float(costs.mean()))


def _seconds_scored(trained: Trained, pairs: list[TokenPair], on_progress: OnProgress) -> float:
    """Return the seconds it takes to score pairs, in batches as they are evaluated in."""
    scoring, started = trained.scoring, time.perf_counter()
    parts = valid_parts(trained.config, scoring, pairs)
    batches = [scoring.lay_out(pairs, part) for part in parts]
    for _, scores in iter_scores(trained.loaded.model, batches, scoring):
        mx.eval(scores)
        on_progress(0, 0, "trying", "rows")
    return time.perf_counter() - started


def _seconds_written(loaded: LoadedModel, prompt: Sequence[int]) -> float:
    """Return the seconds of each token of an answer to a prompt about as long as neutral ones."""
    started, sampling = time.perf_counter(), Sampling(max_tokens=_TRIAL_TOKENS)
    with evaluating(loaded.model):
        stream = stream_tokens(
            loaded.model, loaded.tokenizer, list(prompt[-DRIFT_TOKENS:]), sampling
        )
        written = sum(1 for _ in stream)
    return (time.perf_counter() - started) / written


def _drift_seconds(prompts: int, speed: Speed) -> float:
    written = (prompts + 2 * SHOWN) * DRIFT_TOKENS
    return speed.written * written + speed.scored * 2 * (_TEXT_TOKENS + 2 * DRIFT_TOKENS * prompts)


def _prompts_within(seconds: float, speed: Speed) -> int:
    fixed, whole = _drift_seconds(0, speed), _drift_seconds(_PROMPTS, speed)
    fitting = int(_PROMPTS * (seconds - fixed) / (whole - fixed))
    return min(_PROMPTS, fitting) if fitting >= _FEWEST_PROMPTS else 0


def evaluate_trained(trained: Trained, plan: EndPlan, on_progress: OnProgress) -> dict[str, Any]:
    """Compare the adapter with its base and write both files into the run's folder.

    Args:
        trained: as it is after its last step.
        plan: how much.
        on_progress: called between batches and answers; what it raises ends it.

    Returns:
        What `orpo-mlx evaluate --json` prints.

    Raises:
        NotFiniteError: a score is no number.
        OSError: a file cannot be written.
    """
    subject = _subject(trained, plan)
    meter = _meter(subject, plan, on_progress)
    done = judge_subject(subject, on_progress, meter)
    content = as_json(done, versions())
    if meter is not None:
        content["drift"] = meter.as_json()
    page = report_page(content, done, on_progress, plan.examples)
    write_evaluation(trained.run, content, page)
    return content


def write_evaluation(run: RunDirectory, content: dict[str, Any], page: str) -> None:
    """Write what came out into the run's folder; each file whole or not at all.

    Raises:
        OSError: a file cannot be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(run.report_file, page.encode("utf-8", "replace"))
    write_atomically(run.evaluation_file, text.encode("utf-8", "replace"))


def _subject(trained: Trained, plan: EndPlan) -> Subject:
    config, run = trained.config, trained.run
    held = _held(trained, plan.pairs)
    notes = [*filter(None, [trained.folder.note]), *held.notes, *notes_on_groups(held)]
    if len(held.pairs) < held.available:
        notes.append(
            f"{len(held.pairs)} of {held.available} held-out pairs were drawn, which took about "
            f"{format_duration(plan.seconds)}; orpo-mlx evaluate {run.argument} takes all of them"
        )
    besides = (("drift", plan.prompts), ("example pairs", plan.examples))
    missing = [name for name, count in besides if not count]
    if missing and not trained.scoring.rates:
        notes.append(
            f"left out, for it would take long: {' and '.join(missing)}; "
            f"orpo-mlx evaluate {run.argument} --save has them"
        )
    place = AdapterPlace(run.id, run.adapter_folder, run)
    asked = Asked(config, place, pairs=plan.pairs, seed=SEED)
    return _TrainedSubject(
        asked, trained.folder, trained.loaded, held, {"adapter": place}, trained.scoring,
        tuple(notes), start_of(config),
    )  # fmt: skip


def _held(trained: Trained, count: int) -> HeldOut:
    data = trained.data
    pairs: Sequence[TokenPair] = draw_some(data.valid, count, SEED)
    gaps = np.full(len(pairs), np.nan)
    if data.account.read <= MOST_ROWS:
        gaps = score_gaps(trained.config, pairs, data.revisions)
    return HeldOut(
        pairs, grouped(pairs, trained.loaded.tokenizer), gaps, True, len(data.valid),
        data.valid_account or data.account, notes_of_run(data.hashes),
    )  # fmt: skip


def _meter(subject: Subject, plan: EndPlan, on_progress: OnProgress) -> DriftMeter | None:
    if not plan.prompts:
        return None
    prompts = draw_prompts(shipped_prompts(), plan.prompts, SEED)
    plan_of_drift = DriftPlan(prompts, DRIFT_TOKENS, SEED, "the shipped list")
    return DriftMeter(subject.loaded, subject.asked.config, plan_of_drift, on_progress)
