"""Drift along a training: at each look the same answers of the base to the same neutral prompts.

The base is the model with its adapter switched off, so it answers the same at any step: the answers
are drawn once, by the run's seed, and kept in the run's folder for a process that takes it up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.evaluation import DRIFT_TOKENS
from orpo_mlx.evaluation.drift import DriftMeter, DriftPlan
from orpo_mlx.evaluation.interval import Interval
from orpo_mlx.evaluation.neutral_prompts import draw_prompts, shipped_prompts
from orpo_mlx.models.load import LoadedModel
from orpo_mlx.models.modes import evaluating
from orpo_mlx.storage.atomic import write_atomically
from orpo_mlx.storage.regular import read_regular

PROMPTS, TOKENS = 12, DRIFT_TOKENS
CHEAP = 0.03
"""Share of a run's time that drift nobody asked for may add."""
SHORT_SECONDS = 120.0
"""A run that takes no longer is over before drift is of use; not even the cost is looked at."""
_SIDE = "adapter"


@dataclass
class DriftCourse:
    """Measures when it is told to.

    Attributes:
        loaded: the model, which wears the adapter.
        file: keeps the answers.
        between: called after each answer.
    """

    loaded: LoadedModel
    config: TrainConfig
    file: Path
    between: Callable[[], None]
    _meter: DriftMeter | None = None

    @property
    def prompts(self) -> int:
        """How many are answered."""
        return len(self._ready().plan.prompts)

    def _ready(self) -> DriftMeter:
        if self._meter is None:
            drawn = draw_prompts(shipped_prompts(), PROMPTS, self.config.seed)
            plan = DriftPlan(drawn, TOKENS, self.config.seed, "the shipped list")
            self._meter = DriftMeter(self.loaded, self.config, plan, lambda *_: self.between())
        return self._meter

    def cost(self, run_seconds: float, times: int) -> float:
        """Return the share of a run's time that drift would add, from one answer; 1 if it is short.

        Args:
            run_seconds: that the whole run takes, about.
            times: drift would be measured.
        """
        if run_seconds <= SHORT_SECONDS:
            return 1.0
        with evaluating(self.loaded.model):
            written, compared = self._ready().try_one()
        return PROMPTS * (written + times * compared) / run_seconds

    def measure(self) -> Interval:
        """Return the mean KL per token from the base, in nats.

        Raises:
            NotFiniteError: it is no number.
            OSError: the answers cannot be kept.
        """
        meter = self._ready()
        with evaluating(self.loaded.model):
            if not meter.answers:
                meter.answers = self._kept_answers()
            if not meter.answers:
                meter.sample_answers()
                self._keep(meter.answers)
            meter.compare(_SIDE)
        return meter.divergence_of(_SIDE)

    def _keep(self, answers: list[list[int]]) -> None:
        write_atomically(self.file, json.dumps(self._content(answers)).encode())

    def _content(self, answers: list[list[int]]) -> dict[str, Any]:
        plan = self._ready().plan
        return {
            "prompts": [prompt.text for prompt in plan.prompts],
            "tokens": plan.tokens,
            "seed": plan.seed,
            "answers": answers,
        }

    def _kept_answers(self) -> list[list[int]]:
        """Return what was kept, [] if there is nothing usable: the same is drawn again then."""
        try:
            raw = json.loads(read_regular(self.file))
            answers = raw["answers"]
            is_ours = raw == self._content(answers) and len(answers) == len(raw["prompts"])
            words = len(self.loaded.tokenizer)
            known = all(
                answer and all(type(i) is int and 0 <= i < words for i in answer)
                for answer in answers
            )
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            return []
        return answers if is_ours and known else []
