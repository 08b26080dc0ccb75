"""How often a run is reported, evaluated, sampled and saved: as set, or by the run's own size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orpo_mlx.config import TrainConfig

FEW_STEPS = 100
"""A run of at most so many steps reports each."""
SLOW_SECONDS = 1.0
"""A step that takes longer is reported by itself."""
TIMES = 10
"""Evaluations and checkpoints of a run, besides those at its start."""
SAVE_SECONDS = 600.0
"""Work that a crash may cost at most, where the user did not set how often to save."""
MOST_EVALUATING = 0.25
"""Share of the training time that evaluations nobody asked for may add."""
_FORWARD = 1 / 3
"""What scoring a pair takes of what training on it takes: no backward pass."""


@dataclass(frozen=True)
class Cadence:
    """Every how many steps something is done, besides the start and the end; 0 = only there.

    Attributes:
        reports_slow: whether each slow step is reported, too.
        saves_by_time: whether a checkpoint is also made after `SAVE_SECONDS` of work.
        drift_if_cheap: whether drift is left out where it would cost much.
    """

    report: int
    evaluate: int
    sample: int
    save: int
    reports_slow: bool
    saves_by_time: bool
    drift: int = 0
    drift_if_cheap: bool = False

    def saves(self, steps: int) -> int:
        """Return the most checkpoints of a run of so many steps.

        At the start and the end, every `save` steps, and at each best evaluation; by time, perhaps
        after each step.
        """
        if self.saves_by_time:
            return steps + 1
        often = 2 + sum(steps // every for every in (self.save, self.evaluate) if every)
        return min(often, steps + 1)

    def is_report_due(self, step: int, seconds: float, is_last: bool) -> bool:
        """Tell whether a step that took so long is reported; the first always is."""
        is_slow = self.reports_slow and seconds > SLOW_SECONDS
        return step == 1 or is_slow or is_due(step, self.report, is_last)

    def is_save_due(self, step: int, seconds: float, is_last: bool) -> bool:
        """Tell whether to save, `seconds` of work after the last checkpoint."""
        is_late = self.saves_by_time and seconds >= SAVE_SECONDS
        return is_late or is_due(step, self.save, is_last)


def is_due(step: int, every: int, is_last: bool) -> bool:
    """Tell whether what is done every so many steps, and at the end, is done now."""
    return is_last or (every > 0 and step % every == 0)


def plan_cadence(config: TrainConfig, steps: int, trained: int, evaluated: int) -> Cadence:
    """Decide how often; what the user set wins.

    Args:
        config: the settings.
        steps: of the whole run.
        trained: pairs it trains on, each counted as often as it is seen.
        evaluated: pairs of one evaluation.
    """
    tenth = math.ceil(steps / TIMES)
    report = 1 if steps <= FEW_STEPS else 10
    evaluations = MOST_EVALUATING * trained / (_FORWARD * evaluated) if evaluated else 0
    evaluate = math.ceil(steps / min(TIMES, evaluations)) if evaluations >= 1 else 0
    if config.eval_every is not None:
        evaluate = config.eval_every
    drift = evaluate or (tenth if config.stop_drift else 0)
    if config.objective == "reward":  # it writes no answers
        drift = 0
    return Cadence(
        report=config.report_every or report,
        evaluate=evaluate,
        sample=evaluate if config.sample_every is None else config.sample_every,
        save=tenth if config.save_every is None else config.save_every,
        reports_slow=config.report_every is None,
        saves_by_time=config.save_every is None,
        drift=drift if config.drift_every is None else config.drift_every,
        drift_if_cheap=config.drift_every is None and drift > 0 and not config.stop_drift,
    )
