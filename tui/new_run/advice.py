"""What is doubtful about planned settings; pure.

Nothing here stops a start. Every sentence names the flags it is about, so that it stands at all of
their fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.order import steps_per_epoch
from tui.new_run.draft import OF_THE_ADAPTER, SETTINGS, Draft, Problem, named_settings

HIGH_RATE, LOW_RATE = 5e-4, 1e-6
"""Learning rates beyond which adapters mostly diverge, or hardly change, with adamw or lion."""
LOW_LAM, HIGH_LAM = 0.05, 0.5
MANY_EPOCHS = 10


def warnings(draft: Draft) -> list[Problem]:
    """Return what is doubtful in a draft; nothing while a setting cannot be used at all."""
    if draft.problems():
        return []
    config = draft.config()
    steps = total_steps(config, draft.pairs)
    found = [
        *_on_rates(config, steps, draft.is_demo_model),
        *_on_objective(config, draft),
        *_on_steps(config, steps, draft.pairs),
        *_on_validation(config, steps, draft),
        *_without_effect(config, draft),
    ]
    return [Problem(named_settings(sentence), sentence) for sentence in found]


def total_steps(config: TrainConfig, pairs: int) -> int:
    """Return the steps of the run; 0 if they follow from pairs that are not known."""
    if config.steps is not None or not pairs:
        return config.steps or 0
    a_pass = steps_per_epoch(pairs, config.micro_batch_size, config.grad_accumulation_steps)
    return max(1, math.ceil(config.epochs * a_pass))


def _on_rates(config: TrainConfig, steps: int, is_tiny: bool) -> Iterator[str]:
    rate, usual = config.learning_rate, SETTINGS["learning_rate"].usual
    # The built-in model is so small that it needs what would ruin a real one.
    if config.optimizer != "sgd" and not is_tiny:
        if rate > HIGH_RATE:
            yield f"--learning-rate {rate:g} is high: the loss may turn unstable; usual: {usual}"
        if rate < LOW_RATE:
            yield f"--learning-rate {rate:g} is low: it may learn next to nothing; usual: {usual}"
    if steps and config.warmup >= steps:
        yield (
            f"--warmup {config.warmup:g} takes all {_source(config, steps)}: the full learning "
            "rate is not reached before the end; below 1 it is a share of the steps"
        )
    elif 0.5 <= config.warmup < 1:
        yield f"--warmup {config.warmup:g}: more than half of the steps are below the full rate"


def _source(config: TrainConfig, steps: int) -> str:
    return f"steps (--{'epochs' if config.steps is None else 'steps'}: {steps:,})"


def _on_objective(config: TrainConfig, draft: Draft) -> Iterator[str]:
    if config.objective != "orpo":
        return
    lam, usual = config.lam, SETTINGS["lam"].usual
    if config.preference == "none":
        if "lam" in draft.own:
            yield f"--lam {lam:g} does nothing with --preference none"
    elif lam == 0:
        yield "--lam 0: the rejected side is not learned from; --preference none says the same"
    elif not LOW_LAM <= lam <= HIGH_LAM:
        yield f"--lam {lam:g} is out of the usual range: {usual}"


def _on_steps(config: TrainConfig, steps: int, pairs: int) -> Iterator[str]:
    in_step = config.micro_batch_size * config.grad_accumulation_steps
    if pairs and in_step > pairs:
        yield (
            f"--micro-batch-size {config.micro_batch_size} times --grad-accumulation-steps "
            f"{config.grad_accumulation_steps} is more than the {pairs:,} training pairs: "
            "each step takes them all"
        )
    elif pairs and config.steps and steps * in_step > MANY_EPOCHS * pairs:
        passes = steps * in_step / pairs
        yield f"--steps {steps:,} pass {passes:.0f} times over the pairs: it may learn by heart"


def _on_validation(config: TrainConfig, steps: int, draft: Draft) -> Iterator[str]:
    # A folder or Hub dataset may bring a split of its own, unless a fraction is given.
    if config.valid_data is None and config.valid_fraction == 0:
        for name in ("eval_every", "sample_every"):
            if value := getattr(config, name):
                flag = SETTINGS[name].flag
                yield f"{flag} {value} does nothing with --valid-fraction 0: no pairs are held out"
    elif config.valid_data is None and config.valid_fraction > 0.5:
        yield f"--valid-fraction {config.valid_fraction:g}: more pairs judge than are learned from"
    # A preset's interval may be longer than a short run; that is no mistake of the user's.
    every = config.eval_every or 0
    if steps and every > steps and "eval_every" in draft.own:
        yield (
            f"--eval-every {every} is more than all {_source(config, steps)}: it "
            "evaluates at start and end only"
        )
    if steps and config.early_stop and config.early_stop * every >= steps:
        yield (
            f"--early-stop {config.early_stop} with --eval-every {every} never stops: "
            f"there are {steps:,} steps"
        )


def _without_effect(config: TrainConfig, draft: Draft) -> Iterator[str]:
    own = draft.own
    if config.batching == "fixed" and "tokens_per_batch" in own:
        yield "--tokens-per-batch does nothing with --batching fixed"
    if config.schedule == "constant" and "final_lr_fraction" in own:
        yield "--final-lr-fraction does nothing with --schedule constant"
    if config.init_adapter:
        said = [SETTINGS[name].flag for name in OF_THE_ADAPTER if name in own]
        if said:
            yield f"--init-adapter brings its own: {', '.join(said)} would do nothing"
