"""Everything before the first step: data and model checked, loaded and fingerprinted.

Order matters to the person waiting: what can be wrong is looked at from cheap to dear, so a typo in
the data is reported before gigabytes of weights are read, and before anything is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from orpo_mlx import adapter, adapter_files, batch_plan, fit, fit_plan, models
from orpo_mlx.checkpoint import FoundCheckpoint, require_same
from orpo_mlx.config import TrainConfig, iter_settings
from orpo_mlx.data import split
from orpo_mlx.data.pairs import TokenPair
from orpo_mlx.dropout import dropout_off
from orpo_mlx.errors import ConfigError, ModelError
from orpo_mlx.export import peft_import as peft
from orpo_mlx.fit_search import without_recomputing
from orpo_mlx.hub_client import OnProgress
from orpo_mlx.import_gate import read_json_object
from orpo_mlx.losses import Objective
from orpo_mlx.memory import NOTHING, Savings, available_bytes, frame_shape, own_savings
from orpo_mlx.model_check import CONFIG
from orpo_mlx.model_shape import ModelShape, folder_shape
from orpo_mlx.probe import choose_scoring
from orpo_mlx.scoring import MicroBatch, Scoring
from orpo_mlx.settings.optimisation import KEEPS_STATE
from orpo_mlx.step import checkpoint_layers, recomputing
from orpo_mlx.step_plan import StepPlan, cache_bytes, plan_steps
from orpo_mlx.training_data import (
    PreparedData,
    find_training_data,
    prepare_data,
    template_hash,
)

FINGERPRINTED = (
    "model", "revision", "data", "data_split", "data_subset", "data_revision", "valid_data",
    "init_adapter", "chat_template",
)  # fmt: skip
"""Settings that name content; a resumed run must find the same content, not the same name."""

PLACES = ("run_dir", "runs_dir")
"""Settings that say where a run lies, not what it is."""


@dataclass(frozen=True)
class Prepared:
    """A run ready to start.

    Attributes:
        model: mlx-lm model with the adapter attached and everything else frozen.
        identity: what a resumed run must share; see `checkpoint.require_same`.
        samples: tokenized held-out prompts to answer.
        plan: what is saved on, and the estimated peak; 0 if the model's sizes could not be told.
        available_bytes: memory a run may use here.
        speed: how steps and evaluations are computed.
    """

    config: TrainConfig
    model: Any
    tokenizer: Any
    folder: models.ModelFolder
    fingerprint: str
    spec: adapter.AdapterSpec
    data: PreparedData
    total_steps: int
    identity: dict[str, Any]
    samples: list[list[int]]
    scoring: Scoring
    plan: fit_plan.Plan
    available_bytes: int
    speed: StepPlan

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that visit each training pair once."""
        return batch_plan.steps_per_epoch(self.config, len(self.data.train))


def prepare(
    config: TrainConfig,
    on_progress: OnProgress | None = None,
    resumed: FoundCheckpoint | None = None,
    pinned: dict[str, str] | None = None,
) -> Prepared:
    """Check and load model and data; writes nothing but the Hub cache.

    Args:
        config: the resolved settings.
        on_progress: called with (bytes done, bytes total, label) during a download.
        resumed: the checkpoint to go on from; any difference from what it recorded is refused.
        pinned: commits of Hub datasets to take, by id.

    Raises:
        OrpoError: naming what is wrong and what to do.
    """
    required(config, "data")
    found = find_training_data(config, pinned, on_progress)
    folder = models.resolve_model(required(config, "model"), config.revision, on_progress)
    tokenizer = models.load_tokenizer(folder, config.chat_template)
    vocab_size = read_json_object(folder.path / CONFIG, ModelError).get("vocab_size")
    split_rule = resumed.manifest.get("split", split.SAME_PROMPT) if resumed else split.NEAR_PROMPT
    data = prepare_data(
        config, found, tokenizer, folder.path, vocab_size, folder.name, split_rule, on_progress
    )
    start = resumed.path if resumed else _start_folder(config)
    spec = _starting_spec(start) if start else None
    # Everything is checked by names and shapes before the weights are read.
    mx.reset_peak_memory()  # of whatever this process did before
    loaded = models.load_model(folder, tokenizer, lazy=True)
    hashes = {**data.hashes, "chat_template": template_hash(tokenizer)}
    own_identity = identity(config, loaded.fingerprint, hashes, data.revisions)
    if resumed is not None:
        require_same(own_identity, resumed.manifest)
    spec = spec or adapter.build_adapter_spec(config, loaded.model)
    needs = _MemoryNeeds(config, spec, folder.path, data, resumed)
    plan = needs.require("packed" if config.scoring == "auto" else config.scoring)
    adapter.attach_adapter(loaded.model, spec, config.seed)
    if start and peft.is_peft(start):
        peft.load_peft_into(loaded.model, start)
    elif start:
        adapter_files.load_adapter_into(loaded.model, start, loaded.fingerprint, folder.name)
    models.read_weights(loaded)
    scoring, plan = _scoring(config, loaded.model, data, resumed, needs, plan.savings)
    total_steps = count_steps(config, len(data.train))
    recorded = resumed.manifest.get("compiled") if resumed else None
    speed = _speed(config, loaded.model, scoring, data, total_steps, recorded)
    plan, speed = needs.with_frames(plan, speed)
    needs.note_recomputing(plan, scoring.name)
    return Prepared(
        config=config,
        model=loaded.model,
        tokenizer=tokenizer,
        folder=folder,
        fingerprint=loaded.fingerprint,
        spec=spec,
        data=data,
        total_steps=total_steps,
        identity={
            **own_identity,
            "scoring": scoring.name,
            "savings": asdict(plan.savings),
            "compiled": speed.compiled,
            "split": split_rule,
        },
        samples=[pair.prompt for pair in data.valid[: config.sample_prompts]],
        scoring=scoring,
        plan=plan,
        available_bytes=needs.available,
        speed=speed,
    )


class _MemoryNeeds:
    """What this run needs, told before its weights are read."""

    def __init__(
        self,
        config: TrainConfig,
        spec: adapter.AdapterSpec,
        path: Path,
        data: PreparedData,
        resumed: FoundCheckpoint | None,
    ) -> None:
        names = ("rank", "dropout", "num_layers", "dora")
        own: dict[str, Any] = {name: getattr(spec, name) for name in names}
        own["target_modules"] = list(spec.target_modules)
        self.config, self.data = config.model_copy(update=own), data
        self.shape, self.available = None, available_bytes()
        # What was saved on may decide the last bits of a number, so a resumed run keeps it.
        recorded = resumed.manifest.get("savings") if resumed else None
        self.recorded = Savings(**recorded) if recorded else None
        self.was_compiled = bool(resumed and resumed.manifest.get("compiled"))
        try:
            self.shape = folder_shape(path)
        except ModelError as error:
            data.notes.append(error.message)

    def require(self, way: str) -> fit_plan.Plan:
        """Return what is saved on, and what the run needs then.

        Raises:
            ConfigError: there is less memory, and overcommitting it is not allowed.
        """
        if self.shape is None:
            return fit_plan.Plan(self.recorded or own_savings(self.config), NOTHING)
        return fit.require_fit(self._question(self.shape, way), self.recorded)

    def note_recomputing(self, plan: fit_plan.Plan, way: str) -> None:
        """Note that blocks are recomputed for want of memory, and what would do without."""
        every = plan.savings.recompute_every
        if self.shape is None or self.config.grad_checkpoint != "auto" or not every:
            return
        of = "all adapted blocks are" if every == 1 else f"one of {every} adapted blocks is"
        note = f"{of} computed again in the backward pass, so that the memory suffices"
        better = None if self.recorded else without_recomputing(self._question(self.shape, way))
        self.data.notes.append(f"{note}; {better.flags} would do without" if better else note)

    def with_frames(self, plan: fit_plan.Plan, speed: StepPlan) -> tuple[fit_plan.Plan, StepPlan]:
        """Count what batches are filled up with; shapes for which there is no room are given up.

        Raises:
            ConfigError: there is no room, and a resumed run must keep them.
        """
        if self.shape is None or speed.train.ladder is None:
            return plan, speed
        way, scope, frames = speed.train.name, self.config.nll_scope, speed.train.ladder.frames
        filled = tuple(frame_shape(frame, way, scope) for frame in frames)
        question = replace(self._question(self.shape, way), frames=filled, _batches={})
        if self.was_compiled:
            return fit.require_fit(question, plan.savings), speed
        larger = question.plan(plan.savings)
        if larger.estimate.total <= self.available or plan.estimate.total > self.available:
            return larger, speed
        note = "the step is not compiled: for batches of a few shapes there is too little memory"
        speed = replace(
            speed, compiled=False, train=replace(speed.train, ladder=None),
            notes=(*speed.notes, note),
        )  # fmt: skip
        return plan, speed

    def _question(self, shape: ModelShape, way: str) -> fit_plan.Question:
        train, valid = fit_plan.lengths_of(self.data.train), fit_plan.lengths_of(self.data.valid)
        evaluated = valid[: self.config.eval_pairs] if self.config.eval_pairs else valid
        # As `scoring.input_tokens` counts: the prompt once, no response's last token.
        sizes = [sum(lengths) - 1 for lengths in (*train, *evaluated)]
        beside = cache_bytes(self.config, sizes, shape.hidden, shape.float_bytes)
        return fit_plan.Question(shape, self.config, train, valid, way, self.available, beside)


def _scoring(
    config: TrainConfig,
    model: Any,
    data: PreparedData,
    resumed: FoundCheckpoint | None,
    needs: _MemoryNeeds,
    savings: Savings,
) -> tuple[Scoring, fit_plan.Plan]:
    """Choose how pairs are scored and what is saved on, and prepare the model's blocks for it.

    The probe may find that this model needs another, larger way than was assumed. A resumed run
    scores as it did.
    """
    wanted = resumed.manifest.get("scoring", config.scoring) if resumed else config.scoring
    scoring = _probe(model, wanted, config.nll_scope, data, savings.recompute_every)
    try:
        plan = needs.require(scoring.name)
    except ConfigError:
        if wanted != "auto" or config.grad_checkpoint != "auto" or scoring.name not in KEEPS_STATE:
            raise
        # Ways that cannot recompute do not fit; those that can may.
        scoring = _probe(model, wanted, config.nll_scope, data, 1)
        plan = needs.require(scoring.name)
    if plan.savings.recompute_every:
        checkpoint_layers(model.layers, plan.savings.recompute_every)
    return replace(scoring, chunk=plan.savings.head_chunk), plan


def _probe(model: Any, wanted: str, nll_scope: str, data: PreparedData, every: int) -> Scoring:
    """Try the ways of scoring on a few pairs, with one of `every` blocks recomputed."""
    pairs = sorted(data.train[:64], key=lambda pair: pair.longest)[:3]
    with _being_tried(model), recomputing(model.layers, every):
        return choose_scoring(model, wanted, nll_scope, pairs, recomputes=every > 0)


def _speed(
    config: TrainConfig,
    model: Any,
    scoring: Scoring,
    data: PreparedData,
    total_steps: int,
    was_compiled: bool | None,
) -> StepPlan:
    """Decide how to be fast; a resumed run is compiled if it was."""
    valid = _evaluated(config, data)
    with _being_tried(model):
        return plan_steps(config, model, scoring, data.train, valid, total_steps, was_compiled)


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


def _starting_spec(folder: Path) -> adapter.AdapterSpec:
    """Return how an adapter to start from is attached; read before the weights of the model."""
    if peft.is_peft(folder):
        return peft.read_peft_spec(folder)
    return adapter_files.read_adapter_spec(folder)


def required(config: TrainConfig, name: str) -> str:
    """Return a setting that has no default.

    Raises:
        ConfigError: it is not set.
    """
    value = getattr(config, name)
    if not value:
        raise ConfigError(
            f"--{name}: is not set", "Give --model and --data, or try --demo, which has both."
        )
    return value


def objective(config: TrainConfig) -> Objective:
    """Return the objective the settings describe."""
    return Objective(
        lam=config.lam,
        nll_scope=config.nll_scope,
        nll_reduction=config.nll_reduction,
        nll_weight=config.nll_weight,
        preference=config.preference,
    )


def count_steps(config: TrainConfig, pairs: int) -> int:
    """Return the optimizer steps of the whole run: `steps`, or as many as `epochs` take."""
    if config.steps is not None:
        return config.steps
    return max(1, math.ceil(config.epochs * batch_plan.steps_per_epoch(config, pairs)))


def settings_identity(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that a resumed run must share."""
    return {
        "settings": {
            setting.name: _recorded(getattr(config, setting.name))
            for setting in iter_settings()
            if not setting.may_change and setting.name not in (*FINGERPRINTED, *PLACES)
        }
    }


def _recorded(value: Any) -> Any:
    """Return a table as one text: a name that is in one of two tables only is a difference."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def identity(
    config: TrainConfig, fingerprint: str, hashes: dict[str, str], revisions: dict[str, str]
) -> dict[str, Any]:
    """Return what makes this run this run: settings that matter, and fingerprints of content."""
    content = {"model": fingerprint, **hashes, "data_revision": revisions}
    return {**settings_identity(config), "content": content}


def step_batches(prepared: Prepared, step: int) -> list[MicroBatch]:
    """Return the micro-batches of a step; the same for every process that asks.

    In NumPy alone, so that a thread beside MLX's own may ask.

    Args:
        step: 1-based.
    """
    scoring, pairs = prepared.speed.train, prepared.data.train
    parts = batch_plan.step_parts(prepared.config, scoring, pairs, step)
    return [scoring.lay_out(pairs, part) for part in parts]


def valid_batches(prepared: Prepared) -> list[MicroBatch]:
    """Return the validation pairs in micro-batches, at most `eval_pairs` of them."""
    config, scoring = prepared.config, prepared.speed.valid
    pairs = _evaluated(config, prepared.data)
    parts = batch_plan.valid_parts(config, scoring, pairs)
    return [scoring.lay_out(pairs, part) for part in parts]


def _evaluated(config: TrainConfig, data: PreparedData) -> Sequence[TokenPair]:
    return data.valid[: config.eval_pairs] if config.eval_pairs else data.valid
