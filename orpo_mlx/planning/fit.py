"""Does a run fit into memory? `orpo-mlx fit`, and the check before a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.shape import Lengths
from orpo_mlx.data.tokens.tokenize import PROMPT_CUT, RESPONSE_TOO_LONG
from orpo_mlx.data.types import Account
from orpo_mlx.errors import ConfigError
from orpo_mlx.models.shape import ModelShape, read_shape
from orpo_mlx.planning.batch_shape import some_batches
from orpo_mlx.planning.course import RunCourse, plan_course
from orpo_mlx.planning.lengths import PairLengths, read_lengths
from orpo_mlx.planning.memory import MEASURED, Estimate, Grid, Savings
from orpo_mlx.planning.plan import Plan, Question, clipped
from orpo_mlx.planning.processes import ProcessPlan, plan_processes
from orpo_mlx.planning.search import Suggestion, first_fit, suggest
from orpo_mlx.runs.listing import memory_shares
from orpo_mlx.text.formatting import format_bytes
from orpo_mlx.text.progress import OnProgress

if TYPE_CHECKING:
    from orpo_mlx.scoring.base import Way


def require_fit(question: Question, savings: Savings | None = None) -> Plan:
    """Return what the run saves on and needs.

    Args:
        question: the run, and the memory there is.
        savings: those of a resumed run, which keeps them.

    Raises:
        ConfigError: the memory does not suffice, and overcommitting it is not allowed.
    """
    found = question.plan(savings)
    needed = found.estimate.total
    if needed <= question.limit or question.config.allow_overcommit:
        return found
    parts = {name: size for name, size in found.estimate.parts().items() if size}
    shown = ", ".join(f"{name.replace('_', ' ')} {format_bytes(n)}" for name, n in parts.items())
    better = first_fit("instead", question)
    advice = f"These settings would fit: {better.flags}" if better else "Take a smaller model"
    if savings:
        advice = "Close other programs or resume it where there is more memory"
    raise ConfigError(
        f"this run needs about {format_bytes(needed)} of memory and "
        f"{format_bytes(question.limit)} are there ({shown}).",
        f"{advice}. `orpo-mlx fit` shows more; --allow-overcommit trains all the same.",
    )


# The command


@dataclass(frozen=True)
class FitAnswer:
    """What `orpo-mlx fit` found.

    Attributes:
        plan: of the settings as given.
        limit: bytes there are, without those taken.
        suggestions: settings that fit, the least costly change first.
        way: of scoring that was assumed.
        pairs: training pairs the lengths are from; 0: the worst the settings allow.
        past: peak / estimate of finished runs on this machine, sorted.
        grid: the same of a grid of small models.
        time: what three steps took, if they were asked for.
        untimed: why they were not taken, though asked for.
        notes: what else the user should know.
        taken: bytes that trainings which are going on may take.
        course: how the run will go; None where the pairs are not known.
        processes: what several processes need; None where one was asked for.
        accounts: of the rows by setting ("data", "valid_data").
        max_seq_length: tokens a pair may have.
    """

    plan: Plan
    limit: int
    suggestions: Sequence[Suggestion]
    way: str = "packed"
    pairs: int = 0
    past: Sequence[float] = ()
    grid: Grid = MEASURED
    time: MeasuredTime | None = None
    untimed: str = ""
    notes: Sequence[str] = ()
    taken: int = 0
    course: RunCourse | None = None
    processes: ProcessPlan | None = None
    accounts: Mapping[str, Account] = field(default_factory=dict)
    max_seq_length: int = 0

    @property
    def estimate(self) -> Estimate:
        """The peak memory of the settings as given, by parts."""
        return self.plan.estimate

    @property
    def process_bytes(self) -> int:
        """What each process of the run needs."""
        return self.processes.process_bytes if self.processes else self.estimate.total

    @property
    def fits(self) -> bool:
        """Whether the settings as given fit, each process on a machine of its own."""
        return self.process_bytes <= self.limit


def answer(
    config: TrainConfig, limit: int, on_progress: OnProgress | None = None, processes: int = 1
) -> FitAnswer:
    """Estimate a run and look for settings that fit into `limit` bytes.

    Args:
        config: the settings; `data` may be missing.
        limit: bytes there are.
        on_progress: told of a download of data.
        processes: of the run.

    Raises:
        ModelError: there is no such model, or its sizes cannot be told.
        ConfigError: more blocks are to be adapted than it has.
        DataError: the data cannot be read.
    """
    shape = read_shape(config.model or "", config.revision)
    _require_blocks(config, len(shape.blocks))
    pairs = read_lengths(config, on_progress)
    train, valid = pairs.train, pairs.valid
    way = likely_way(config, train)
    beside = _kept_bytes(config, [*train, *valid], shape)
    question = Question(shape, config, way, train, valid, limit, beside)
    plan = question.plan()
    # What is longer than the limit is dropped, and trains nothing.
    left, held_out = (len(clipped(part, config.max_seq_length)) for part in (train, valid))
    course = plan_course(config, left, held_out, plan.estimate.adapter) if left else None
    several = None
    if processes > 1:
        trained = train[: course.pairs] if course else ()
        peak = plan.estimate.total
        several = plan_processes(config, processes, shape, way, trained, peak)
    return FitAnswer(
        plan=plan,
        limit=limit,
        suggestions=suggest(question),
        way=way.name,
        pairs=left,
        past=memory_shares(config.runs_dir),
        notes=pairs.notes,
        course=course,
        processes=several,
        accounts=_accounts(pairs, config.max_seq_length),
        max_seq_length=config.max_seq_length,
    )


def _accounts(found: PairLengths, limit: int) -> dict[str, Account]:
    """Return where every row goes in a training with this limit of tokens."""
    sides = {"data": found.train, "valid_data": found.valid}
    return {name: _limited(own, sides[name], limit) for name, own in found.accounts.items()}


def _limited(account: Account, lengths: Sequence[Lengths], limit: int) -> Account:
    fitted = [(pair, clipped([pair], limit)) for pair in lengths]
    dropped, noted = dict(account.dropped), dict(account.noted)
    too_long = sum(not kept for _, kept in fitted)
    if too_long and len(lengths) == account.kept:
        dropped[RESPONSE_TOO_LONG] = too_long
    elif too_long:  # KTO has taken pairs apart: what is left out is an answer
        noted[f"one answer left out, {RESPONSE_TOO_LONG}"] = too_long
    if cut := sum(kept != [pair] for pair, kept in fitted) - too_long:
        noted[PROMPT_CUT] = cut
    left = account.read - sum(dropped.values())
    return replace(account, kept=left, dropped=dropped, noted=noted)


def likely_way(config: TrainConfig, pairs: Sequence[Lengths]) -> Way:
    """Return the way of scoring that is set, or the one most models take.

    Args:
        config: the settings.
        pairs: lengths of the training pairs; they tell whether rows are long.
    """
    from orpo_mlx.scoring.packed import wants_causal
    from orpo_mlx.scoring.select import WAYS

    if config.scoring != "auto":
        return WAYS[config.scoring]
    packed = WAYS["packed"]
    batches = some_batches(clipped(pairs[:LOOKED_AT], config.max_seq_length), config, packed)
    return WAYS["causal"] if batches and wants_causal(batches) else packed


LOOKED_AT = 1024
"""Pairs whose lengths are looked at."""


def _require_blocks(config: TrainConfig, count: int) -> None:
    """Refuse what a training refuses: more blocks than there are, unless nobody asked for them."""
    default = TrainConfig.model_fields["num_layers"].default
    if config.num_layers > count and config.num_layers != default and not config.init_adapter:
        raise ConfigError(
            f"--num-layers {config.num_layers}: this model has {count} blocks.",
            f"Give a number from 1 to {count}, or -1 for all.",
        )


def _kept_bytes(config: TrainConfig, pairs: Sequence[Lengths], shape: ModelShape) -> int:
    if config.trunk_cache != "memory":
        return 0
    from orpo_mlx.planning.memory import cache_bytes

    sizes = [sum(pair) for pair in pairs] or [1 << 40]  # unknown pairs fill it
    return cache_bytes(config, sizes, shape.hidden, shape.float_bytes)


def as_planned(config: TrainConfig, plan: Plan) -> TrainConfig:
    """Return the settings with what `auto` would choose for the memory that was asked about."""
    if config.grad_checkpoint != "auto":
        return config
    every = plan.savings.recompute_every
    own = {"grad_checkpoint": "on" if every else "off", "grad_checkpoint_every": every or 1}
    return config.model_copy(update=own)


@dataclass(frozen=True)
class MeasuredTime:
    """What the steps took, and what follows for the run.

    Attributes:
        seconds_per_step, seconds_total: of the run's `steps`, evaluations, samples and checkpoints
            not included. Scaled by tokens from the longest batch, whose tokens cost most, so the
            run is rather faster.
        peak_memory_bytes: the most MLX held, loading included.
        estimated_bytes: what was expected for the run.
        process_bytes: what the process held afterwards.
        batch_pairs, batch_tokens, batch_seconds: of the longest batch.
        tokens_per_second: computed in it, the prompt of a pair counted as often as it is computed.
        scoring: how the pairs are computed.
    """

    steps: int
    seconds_per_step: float
    seconds_total: float
    peak_memory_bytes: int
    estimated_bytes: int
    process_bytes: int
    batch_pairs: int
    batch_tokens: int
    batch_seconds: float
    tokens_per_second: float
    scoring: str
