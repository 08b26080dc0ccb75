"""Everything before the first step: data and model checked, loaded and fingerprinted.

Four steps, each of which returns a value: the data, the model with its adapter, the plan (memory,
way of scoring, speed), and all of it together. Order matters to the person waiting: what can be
wrong is looked at from cheap to dear, so a typo in the data is reported before gigabytes of weights
are read, and before anything is written.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.dropout import dropout_off
from orpo_mlx.adapters.folder import load_into, read_spec
from orpo_mlx.adapters.lora import (
    AdapterSpec,
    adapter_parameters,
    adapter_switched_off,
    attach_adapter,
    build_adapter_spec,
)
from orpo_mlx.adapters.reward_head import attach_head
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import required
from orpo_mlx.data.batching.order import draw_some, steps_in_epoch
from orpo_mlx.data.prepare import (
    FoundData,
    PreparedData,
    find_training_data,
    prepare_data,
    template_hash,
)
from orpo_mlx.data.types import TokenPair
from orpo_mlx.distributed.peers import ALONE, Peers
from orpo_mlx.errors import CheckpointError, ConfigError, DataError
from orpo_mlx.generation.user_turn import LastTurn, PromptReader
from orpo_mlx.models.load import (
    LoadedModel,
    ModelFolder,
    load_model,
    load_tokenizer,
    read_weights,
    resolve_model,
)
from orpo_mlx.models.precision import choose_float32, has_exact_products, require_float32
from orpo_mlx.models.recompute import checkpoint_layers, recomputing
from orpo_mlx.objectives import build_objective
from orpo_mlx.objectives.base import Objective
from orpo_mlx.objectives.reward import Reward
from orpo_mlx.planning.cadence import Cadence, plan_cadence
from orpo_mlx.planning.course import count_steps, trained_pairs
from orpo_mlx.planning.fit import likely_way
from orpo_mlx.planning.memory import Savings
from orpo_mlx.planning.plan import Plan
from orpo_mlx.runs.checkpoints import FoundCheckpoint, versions
from orpo_mlx.runs.metrics import metric
from orpo_mlx.scoring.base import MicroBatch, Scoring
from orpo_mlx.scoring.batches import scored_of, step_parts, valid_parts
from orpo_mlx.scoring.reference import ReferencedPairs, kept_sums, reference_sums
from orpo_mlx.scoring.remembered import remembered_scoring
from orpo_mlx.scoring.select import choose_scoring
from orpo_mlx.text.formatting import counted
from orpo_mlx.text.progress import OnProgress
from orpo_mlx.training.identity import content_facts, identity, require_same
from orpo_mlx.training.memory import MemoryNeeds, find_needs
from orpo_mlx.training.speed.plan import StepPlan, plan_steps
from orpo_mlx.training.speed.trial import Candidate, Clock, may_pay


@dataclass(frozen=True)
class AdaptedModel:
    """A model in memory with its adapter attached and everything else frozen.

    Attributes:
        loaded: model, tokenizer and fingerprint.
        name: of the base, for messages.
        spec: of the adapter.
        identity: settings and content that a resumed run must share.
        needs: of memory, by how pairs are scored.
        savings: what is saved on if they are scored as most models can.
    """

    loaded: LoadedModel
    name: str
    spec: AdapterSpec
    identity: dict[str, Any]
    needs: MemoryNeeds
    savings: Savings


@dataclass(frozen=True)
class RunPlan:
    """How a run is computed.

    Attributes:
        memory: what is saved on, and the estimated peak; 0 if the model's sizes could not be told.
        scoring: how pairs are scored.
        speed: how steps and evaluations are computed.
        notes: what the user should know of it.
    """

    memory: Plan
    scoring: Scoring
    speed: StepPlan
    notes: tuple[str, ...]


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
    adapted = _load_adapted(config, folder, tokenizer, data, resumed, peers)
    total_steps = count_steps(config, len(data.train))
    say("trying ways of scoring on a few short pairs")

    def try_compiling(candidate: Candidate) -> tuple[Plan, StepPlan]:
        say("trying a compiled step")
        return candidate.tried(clock)

    plan = _plan_together(config, adapted, data, total_steps, resumed, peers, try_compiling)
    data, compared_with = _with_reference(config, adapted, data, plan, resumed, on_progress, peers)
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
            **_recorded(plan),
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
        peers.mark(label)
        peers.check()
        if on_progress is not None:
            on_progress(0, 0, label, "phase")

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


def _load_adapted(
    config: TrainConfig,
    folder: ModelFolder,
    tokenizer: Any,
    data: PreparedData,
    resumed: FoundCheckpoint | None,
    peers: Peers,
) -> AdaptedModel:
    """Load the model and attach its adapter; everything is checked by names and shapes before the
    weights are read."""
    start = resumed.path if resumed else _start_folder(config)
    start = start if peers.is_lead else None  # the others get process 0's
    spec = read_spec(start) if start else None
    mx.reset_peak_memory()  # of whatever this process did before
    loaded = load_model(folder, tokenizer, lazy=True)
    hashes = {**data.hashes, "chat_template": template_hash(tokenizer)}
    own_identity = identity(config, loaded.fingerprint, hashes, data.revisions)
    if resumed is not None:
        require_same(own_identity, resumed.manifest)
    if peers.size > 1:
        peers.agree(content_facts(own_identity, data))
    spec = _shared_spec(spec or build_adapter_spec(config, loaded.model), peers)
    needs = find_needs(config, spec, folder.path, data, resumed)
    savings = needs.require(likely_way(config, needs.train)).savings
    attach_adapter(loaded.model, spec, config.seed)
    if config.objective == Reward.name:
        attach_head(loaded.model, config.seed)
    if start:
        load_into(loaded.model, start, loaded.fingerprint, folder.name)
    read_weights(loaded)
    copy_adapter(loaded.model, peers)
    return AdaptedModel(loaded, folder.name, spec, own_identity, needs, savings)


def _shared_spec(spec: AdapterSpec, peers: Peers) -> AdapterSpec:
    """Return process 0's; who read it from a file keeps its name."""
    fields = peers.share({**asdict(spec), "read_from": None})
    same = {**fields, "target_modules": tuple(fields["target_modules"])}
    return AdapterSpec(**{**same, "read_from": spec.read_from})


def copy_adapter(model: Any, peers: Peers) -> None:
    """Have process 0's adapter, and a reward model's head, in all processes."""
    model.update(peers.copy_arrays(model.trainable_parameters()))


def _plan_together(
    config: TrainConfig,
    adapted: AdaptedModel,
    data: PreparedData,
    total_steps: int,
    resumed: FoundCheckpoint | None,
    peers: Peers,
    try_compiling: Callable[[Candidate], tuple[Plan, StepPlan]],
) -> RunPlan:
    """Have the run computed in the same way by all processes: as process 0 has decided."""
    decided = resumed.manifest if resumed else {}
    if not peers.is_lead:
        decided = peers.share(None)
        adapted = replace(adapted, needs=adapted.needs.as_decided(decided))
    plan = _plan_run(config, adapted, data, total_steps, decided, peers.size, try_compiling)
    if peers.is_lead:
        peers.share(_recorded(plan))
    return plan


def _plan_run(
    config: TrainConfig,
    adapted: AdaptedModel,
    data: PreparedData,
    total_steps: int,
    decided: Mapping[str, Any],
    processes: int,
    try_compiling: Callable[[Candidate], tuple[Plan, StepPlan]],
) -> RunPlan:
    """Decide how the run is computed; the model is tried on a few pairs and left as it was.

    Args:
        decided: what a resumed run, or process 0, has decided before: as `_recorded` returns it.
        processes: that share the run.
        try_compiling: finds out whether compiling pays.
    """
    model, needs = adapted.loaded.model, adapted.needs
    scoring, memory = _choose_way(config, adapted, data, decided.get("scoring", config.scoring))
    with _being_tried(model), recomputing(model.layers, memory.savings.recompute_every):
        speed = plan_steps(
            config, model, scoring, data.train, _evaluated(config, data), total_steps,
            decided.get("compiled"),
        )  # fmt: skip
        memory, speed = needs.with_buckets(memory, speed)
        if not decided and may_pay(config, scoring, total_steps):
            memory, speed = try_compiling(
                Candidate(config, model, needs, memory, speed, data.train, total_steps, processes)
            )
    notes = (*needs.notes_on(memory, scoring.way), *speed.notes)
    if scoring.why:
        notes = (*notes, f"pairs are scored the {scoring.way} way ({scoring.why})")
    return RunPlan(memory, scoring, speed, notes)


def _with_reference(
    config: TrainConfig,
    adapted: AdaptedModel,
    data: PreparedData,
    plan: RunPlan,
    resumed: FoundCheckpoint | None,
    on_progress: OnProgress | None,
    peers: Peers,
) -> tuple[PreparedData, dict[str, str]]:
    """Give each pair the log-probs that the objective compares with, if it does.

    Returns:
        The data, and a digest of the values, which a resumed run must find again.

    Raises:
        CheckpointError: a resumed run would compare with something else.
    """
    if not objective(config).needs_reference or config.objective == Reward.name:
        return data, {}
    pairs = [*data.train, *data.valid]
    model, scoring = adapted.loaded.model, plan.scoring

    def tell(done: int) -> None:
        if on_progress is not None:
            on_progress(done, len(pairs), "log-probs of the reference", "rows")

    def find() -> np.ndarray:
        parts = valid_parts(config, scoring, pairs)
        return reference_sums(model, pairs, parts, scoring, tell, peers)

    with _as_reference(config, adapted, resumed, peers) as start:
        content = [adapted.loaded.fingerprint, start, versions(), str(mx.default_device())]
        content += [scoring.way.name, scoring.nll_scope, scoring.chunk, config.batching]
        content += [config.micro_batch_size, config.tokens_per_batch, has_exact_products()]
        sums = kept_sums(content, pairs, find, peers)
    model.eval()
    digest = hashlib.sha256(sums.tobytes()).hexdigest()
    if resumed and resumed.manifest.get("reference") != digest:
        raise CheckpointError(
            "the run cannot be resumed: the reference's log-probs are not those it began with",
            "Resume it on the machine and with the versions it began with, or start a new run from "
            "this adapter: --init-adapter.",
        )
    count = len(data.train)
    both = [
        ReferencedPairs(part, values)
        for part, values in ((data.train, sums[:count]), (data.valid, sums[count:]))
    ]
    return replace(data, train=both[0], valid=both[1]), {"reference": digest}


def with_margins(config: TrainConfig, data: PreparedData) -> PreparedData:
    """Have the rewards of each pair compared with its margin, or with 0 if margins are not used.

    Raises:
        DataError: some pairs have none.
    """
    parts = []
    for name, pairs in (("data", data.train), ("valid_data", data.valid)):
        margins = np.zeros((len(pairs), 2), np.float32)
        parts.append(ReferencedPairs(pairs, margins))
        if not config.use_margin:
            continue
        without = [pair.source for pair in pairs if pair.margin is None]
        if without:
            given = getattr(config, name) or config.data
            raise DataError(
                f"--use-margin: {len(without)} of {counted(len(pairs), 'pair')} of {given} have no "
                f"margin (first: {without[0]}); each needs a number in a column margin, or in "
                "score_chosen and score_rejected.",
                "Add the column, name it with --map margin=COLUMN, or leave out --use-margin.",
            )
        margins[:, 0] = [pair.margin for pair in pairs]
    return replace(data, train=parts[0], valid=parts[1])


@contextmanager
def _as_reference(
    config: TrainConfig, adapted: AdaptedModel, resumed: FoundCheckpoint | None, peers: Peers
) -> Iterator[str]:
    """Have the model as the reference is; gives what tells it from other ones.

    That is the base, or the adapter that the run began with.
    """
    model, start = adapted.loaded.model, _start_folder(config)
    if config.reference == "base" or start is None:
        with adapter_switched_off(model):
            yield "base"
        return
    if resumed:
        load_into(model, start, adapted.loaded.fingerprint, adapted.name)
    copy_adapter(model, peers)
    yield digest_of_adapter(model)
    if resumed:
        load_into(model, resumed.path, adapted.loaded.fingerprint, adapted.name)
    copy_adapter(model, peers)


def digest_of_adapter(model: Any) -> str:
    """Return a sha256 of an adapter's names and values."""
    digest = hashlib.sha256()
    for name, array in sorted(adapter_parameters(model).items()):
        digest.update(name.encode())
        digest.update(np.array(array.astype(mx.float32)).tobytes())
    return digest.hexdigest()


def _choose_way(
    config: TrainConfig, adapted: AdaptedModel, data: PreparedData, wanted: str
) -> tuple[Scoring, Plan]:
    """Choose how pairs are scored and what is saved on.

    The probe may find that this model needs another, larger way than was assumed.
    """
    needs = adapted.needs
    scope = scored_of(config)
    scoring = _probe(adapted, wanted, scope, data, adapted.savings.recompute_every)
    try:
        plan = needs.require(scoring.way)
    except ConfigError:
        if wanted != "auto" or config.grad_checkpoint != "auto" or scoring.way.can_recompute:
            raise
        # Ways that cannot recompute do not fit; those that can may.
        scoring = _probe(adapted, wanted, scope, data, 1)
        plan = needs.require(scoring.way)
    return replace(scoring, chunk=plan.savings.head_chunk), plan


def _probe(
    adapted: AdaptedModel, wanted: str, nll_scope: str, data: PreparedData, every: int
) -> Scoring:
    """Try the ways of scoring on a few pairs, with one of `every` blocks recomputed."""
    model = adapted.loaded.model
    pairs = sorted(data.train[:64], key=lambda pair: pair.longest)[:3]
    needs = adapted.needs
    row = likely_way(needs.config, needs.train).name

    def choose() -> Scoring:
        with _being_tried(model), recomputing(model.layers, every):
            return choose_scoring(model, wanted, nll_scope, pairs, every > 0, row)

    if wanted != "auto":
        return choose()
    device = str(mx.default_device())
    spec = asdict(replace(adapted.spec, read_from=None))
    content = [adapted.loaded.fingerprint, spec, versions(), device, every > 0]
    content += [has_exact_products(), row]
    return remembered_scoring(content, nll_scope, choose)


def _cadence(config: TrainConfig, data: PreparedData, total_steps: int) -> Cadence:
    trained = trained_pairs(config, total_steps, len(data.train))
    return plan_cadence(config, total_steps, trained, len(_evaluated(config, data)))


def _recorded(plan: RunPlan) -> dict[str, Any]:
    """Return what a checkpoint keeps of a plan, so that a resumed run has the same."""
    return {
        "scoring": plan.scoring.way.name,
        "savings": asdict(plan.memory.savings),
        "compiled": plan.speed.compiled,
    }


@contextmanager
def _being_tried(model: Any) -> Iterator[None]:
    """Have the model as it is in a step, but without dropout: its masks follow the shape of a
    batch, so that no two ways of scoring would have the same gradient."""
    model.train()
    try:
        with dropout_off(model):
            yield
    finally:
        model.eval()


def _start_folder(config: TrainConfig) -> Path | None:
    return Path(config.init_adapter).expanduser() if config.init_adapter else None


def objective(config: TrainConfig) -> Objective:
    """Return the objective the settings describe.

    Raises:
        ConfigError: there is none of this name, or it cannot tell which evaluation is best.
    """
    found = build_objective(config.objective, config.model_dump())
    judging = [name for name in found.metrics if metric(name).better]
    if best_metric(config, found.metrics) not in judging:
        raise ConfigError(
            f"--best-metric: found {config.best_metric!r}, needs one of {', '.join(judging)} "
            f"(what --objective {config.objective} measures and one wants high or low)",
            "Correct it and start again; --help lists all settings.",
        )
    return found


def best_metric(config: TrainConfig, measured: Sequence[str]) -> str:
    """Return the metric by which evaluations are judged: as set, or that of the responses."""
    if config.best_metric != "auto":
        return config.best_metric
    return "response_nll" if "response_nll" in measured else "loss"


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
    pairs = _evaluated(config, prepared.data)
    parts = valid_parts(config, scoring, pairs)
    return [scoring.lay_out(pairs, part) for part in parts]


def _evaluated(config: TrainConfig, data: PreparedData) -> Sequence[TokenPair]:
    return draw_some(data.valid, config.eval_pairs, config.seed)
