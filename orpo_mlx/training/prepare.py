"""Everything before the first step: data and model checked, loaded and fingerprinted.

Four steps, each of which returns a value: the data, the model with its adapter, the plan (memory,
way of scoring, speed), and all of it together. Order matters to the person waiting: what can be
wrong is looked at from cheap to dear, so a typo in the data is reported before gigabytes of weights
are read, and before anything is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orpo_mlx.adapters.lora import AdapterSpec
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import required
from orpo_mlx.data.batching.order import steps_in_epoch
from orpo_mlx.data.prepare import FoundData, PreparedData, find_training_data, prepare_data
from orpo_mlx.distributed.peers import ALONE, Peers
from orpo_mlx.generation.user_turn import LastTurn, PromptReader
from orpo_mlx.models.load import LoadedModel, ModelFolder, load_tokenizer, resolve_model
from orpo_mlx.models.precision import choose_float32, require_float32
from orpo_mlx.models.recompute import checkpoint_layers
from orpo_mlx.objectives.reward import Reward
from orpo_mlx.planning.cadence import Cadence, plan_cadence
from orpo_mlx.planning.course import count_steps, trained_pairs
from orpo_mlx.planning.plan import Plan
from orpo_mlx.runs.checkpoints import FoundCheckpoint
from orpo_mlx.scoring.base import MicroBatch, Scoring
from orpo_mlx.scoring.batches import step_parts, valid_parts
from orpo_mlx.text.progress import OnProgress, tell_phase
from orpo_mlx.training.preparation.adapted import load_adapted
from orpo_mlx.training.preparation.objective import objective
from orpo_mlx.training.preparation.plan import evaluated, plan_together, recorded
from orpo_mlx.training.preparation.reference import with_margins, with_reference
from orpo_mlx.training.speed.plan import StepPlan
from orpo_mlx.training.speed.trial import Candidate, Clock


@dataclass(frozen=True)
class Prepared:
    """A run ready to start.

    Attributes:
        loaded: the model with the adapter attached and everything else frozen.
        identity: what a resumed run must share; see `identity.require_same`.
        samples: held-out prompts to answer: in words, and all of it tokenized.
        scoring, plan, speed: as in `RunPlan`, `plan` its memory.
        available_bytes: memory a run may use here.
        product_error: relative error of a float32 product in this process.
        cadence: how often it is reported, evaluated, sampled and saved.
        notes: what the user should know before the first step.
    """

    config: TrainConfig
    loaded: LoadedModel
    folder: ModelFolder
    spec: AdapterSpec
    data: PreparedData
    total_steps: int
    identity: dict[str, Any]
    samples: list[tuple[LastTurn, list[int]]]
    scoring: Scoring
    plan: Plan
    available_bytes: int
    product_error: float
    cadence: Cadence
    speed: StepPlan
    notes: tuple[str, ...]

    @property
    def model(self) -> Any:
        """mlx-lm's model."""
        return self.loaded.model

    @property
    def tokenizer(self) -> Any:
        """mlx-lm's wrapper of the tokenizer."""
        return self.loaded.tokenizer

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that visit each training pair once."""
        return steps_in_epoch(self.config, len(self.data.train))


def prepare(
    config: TrainConfig,
    on_progress: OnProgress | None = None,
    resumed: FoundCheckpoint | None = None,
    pinned: dict[str, str] | None = None,
    peers: Peers = ALONE,
    clock: Clock = time.perf_counter,
) -> Prepared:
    """Check and load model and data; writes nothing but caches.

    Args:
        config: the resolved settings.
        on_progress: told of each phase, and how far a download or the tokenizing is.
        resumed: the checkpoint to go on from; any difference from what it recorded is refused.
        pinned: commits of Hub datasets to take, by id.
        peers: other processes of the run, which prepare it too and take what process 0 decides.
        clock: by which steps are timed that are tried one way and another.

    Raises:
        OrpoError: naming what is wrong and what to do.
    """
    objective(config)
    required(config, "data")
    contradicted = choose_float32(config.float32)
    error = require_float32(config.float32)
    say = phases(on_progress, peers)
    say("reading the data")
    found, folder = _find(config, pinned, on_progress, peers)
    say("tokenizing the pairs")
    tokenizer = load_tokenizer(folder, config.chat_template)
    data = prepare_data(
        config, found, tokenizer, folder.path, folder.vocab_size, folder.name, on_progress,
    )  # fmt: skip
    if config.objective == Reward.name:
        data = with_margins(config, data)
    say("loading the weights")
    adapted = load_adapted(config, folder, tokenizer, data, resumed, peers)
    total_steps = count_steps(config, len(data.train))
    say("trying ways of scoring on a few short pairs")

    def try_compiling(candidate: Candidate) -> tuple[Plan, StepPlan]:
        say("trying a compiled step")
        return candidate.tried(clock)

    plan = plan_together(config, adapted, data, total_steps, resumed, peers, try_compiling)
    data, compared_with = with_reference(config, adapted, data, plan, resumed, on_progress, peers)
    if every := plan.memory.savings.recompute_every:
        checkpoint_layers(adapted.loaded.model.layers, every)
    reader = PromptReader(tokenizer)
    return Prepared(
        config=config,
        loaded=adapted.loaded,
        folder=folder,
        spec=adapted.spec,
        data=data,
        total_steps=total_steps,
        identity={
            **adapted.identity,
            **recorded(plan),
            **compared_with,
            "processes": peers.size,
        },
        samples=[
            (reader.read(pair.prompt), pair.prompt)
            for pair in data.valid[: 0 if plan.scoring.rates else config.sample_prompts]
        ],
        scoring=plan.scoring,
        plan=plan.memory,
        available_bytes=adapted.needs.available,
        product_error=error,
        cadence=_cadence(config, data, total_steps),
        speed=plan.speed,
        notes=(*filter(None, [contradicted, folder.note]), *data.notes, *plan.notes),
    )


def phases(on_progress: OnProgress | None, peers: Peers = ALONE) -> Callable[[str], None]:
    """Return what tells that a phase begins; it looks whether all processes are still there."""

    def say(label: str) -> None:
        peers.watch.mark(label)
        peers.watch.check()
        tell_phase(on_progress, label)

    return say


def _find(
    config: TrainConfig,
    pinned: dict[str, str] | None,
    on_progress: OnProgress | None,
    peers: Peers,
) -> tuple[FoundData, ModelFolder]:
    """Find data and model; the others take them of the commits that process 0 has found."""
    commits = {"data": pinned, "model": config.revision}
    if not peers.is_lead:
        commits = peers.share(None)
    found = find_training_data(config, commits["data"], on_progress)
    folder = resolve_model(required(config, "model"), commits["model"], on_progress)
    if peers.is_lead:
        peers.share({"data": found.revisions, "model": folder.revision or config.revision})
    return found, folder


def step_batches(prepared: Prepared, step: int) -> list[MicroBatch]:
    """Return the micro-batches of a step; the same for every process that asks.

    In NumPy alone, so that a thread beside MLX's own may ask.

    Args:
        step: 1-based.
    """
    scoring, pairs = prepared.speed.train, prepared.data.train
    parts = step_parts(prepared.config, scoring, pairs, step)
    return [scoring.lay_out(pairs, part) for part in parts]


def valid_batches(prepared: Prepared) -> list[MicroBatch]:
    """Return the validation pairs in micro-batches, at most `eval_pairs` of them."""
    config, scoring = prepared.config, prepared.speed.valid
    pairs = evaluated(config, prepared.data)
    parts = valid_parts(config, scoring, pairs)
    return [scoring.lay_out(pairs, part) for part in parts]


def _cadence(config: TrainConfig, data: PreparedData, total_steps: int) -> Cadence:
    trained = trained_pairs(config, total_steps, len(data.train))
    return plan_cadence(config, total_steps, trained, len(evaluated(config, data)))
