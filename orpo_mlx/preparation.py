"""Everything before the first step: data and model checked, loaded and fingerprinted.

Order matters to the person waiting: what can be wrong is looked at from cheap to dear, so a typo in
the data is reported before gigabytes of weights are read, and before anything is written.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from orpo_mlx import adapter, adapter_files, fit, models
from orpo_mlx.chat_template import check_chat_template
from orpo_mlx.checkpoint import FoundCheckpoint, require_same
from orpo_mlx.config import TrainConfig, iter_settings
from orpo_mlx.data import batches, formats, sources, tokens
from orpo_mlx.data.pairs import Account, TokenPair
from orpo_mlx.dropout import set_dropout_key
from orpo_mlx.errors import ConfigError, DataError, ModelError
from orpo_mlx.export import peft
from orpo_mlx.hub import OnProgress
from orpo_mlx.import_gate import read_json_object
from orpo_mlx.losses import Objective
from orpo_mlx.memory import available_bytes
from orpo_mlx.model_check import CONFIG
from orpo_mlx.model_shape import folder_shape
from orpo_mlx.probe import choose_scoring
from orpo_mlx.scoring import MicroBatch, Scoring
from orpo_mlx.step import checkpoint_layers

FINGERPRINTED = ("model", "revision", "data", "valid_data", "init_adapter", "chat_template")
"""Settings that name content; a resumed run must find the same content, not the same name."""

PLACES = ("run_dir", "runs_dir")
"""Settings that say where a run lies, not what it is."""


@dataclass(frozen=True)
class PreparedData:
    """Token pairs and where every row went."""

    train: list[TokenPair]
    valid: list[TokenPair]
    account: Account
    layout: str
    hashes: dict[str, str]
    notes: list[str]
    """What the user should know about data and template."""


@dataclass(frozen=True)
class Prepared:
    """A run ready to start.

    Attributes:
        model: mlx-lm model with the adapter attached and everything else frozen.
        identity: what a resumed run must share; see `checkpoint.require_same`.
        samples: tokenized held-out prompts to answer.
        estimated_peak_bytes: see memory.py; 0 if the model's sizes could not be told.
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
    estimated_peak_bytes: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that visit each training pair once."""
        return steps_per_epoch(self.config, len(self.data.train))


def prepare(
    config: TrainConfig,
    on_progress: OnProgress | None = None,
    resumed: FoundCheckpoint | None = None,
) -> Prepared:
    """Check and load model and data; writes nothing but the Hub cache.

    Args:
        config: the resolved settings.
        on_progress: called with (bytes done, bytes total, label) during a download.
        resumed: the checkpoint to go on from; any difference from what it recorded is refused.

    Raises:
        OrpoError: naming what is wrong and what to do.
    """
    rows = _read_files(config)
    folder = models.resolve_model(required(config, "model"), config.revision, on_progress)
    tokenizer = models.load_tokenizer(folder, config.chat_template)
    vocab_size = read_json_object(folder.path / CONFIG, ModelError).get("vocab_size")
    data = prepare_data(config, rows, tokenizer, vocab_size, folder.name)
    start = resumed.path if resumed else _start_folder(config)
    spec = _starting_spec(start) if start else None
    # Everything is checked by names and shapes before the weights are read.
    loaded = models.load_model(folder, tokenizer, lazy=True)
    hashes = {**data.hashes, "chat_template": _template_hash(tokenizer)}
    own_identity = identity(config, loaded.fingerprint, hashes)
    if resumed is not None:
        require_same(own_identity, resumed.manifest)
    spec = spec or adapter.build_adapter_spec(config, loaded.model)
    needs = _MemoryNeeds(config, spec, folder.path, data)
    needs.require("packed" if config.scoring == "auto" else config.scoring)
    adapter.attach_adapter(loaded.model, spec, config.seed)
    if start and peft.is_peft(start):
        peft.load_peft_into(loaded.model, start)
    elif start:
        adapter_files.load_adapter_into(loaded.model, start, loaded.fingerprint, folder.name)
    models.read_weights(loaded)
    scoring = _scoring(config, loaded.model, data, resumed)
    # The probe may have found that this model needs another, larger way.
    estimated = needs.require(scoring.name)
    return Prepared(
        config=config,
        model=loaded.model,
        tokenizer=tokenizer,
        folder=folder,
        fingerprint=loaded.fingerprint,
        spec=spec,
        data=data,
        total_steps=count_steps(config, len(data.train)),
        identity={**own_identity, "scoring": scoring.name},
        samples=[pair.prompt for pair in data.valid[: config.sample_prompts]],
        scoring=scoring,
        estimated_peak_bytes=estimated,
    )


class _MemoryNeeds:
    """What this run needs, told before its weights are read."""

    def __init__(
        self, config: TrainConfig, spec: adapter.AdapterSpec, path: Path, data: PreparedData
    ) -> None:
        names = ("rank", "dropout", "num_layers", "dora")
        own: dict[str, Any] = {name: getattr(spec, name) for name in names}
        own["target_modules"] = list(spec.target_modules)
        self.config, self.data = config.model_copy(update=own), data
        self.shape = None
        try:
            self.shape = folder_shape(path)
        except ModelError as error:
            data.notes.append(error.message)

    def require(self, way: str) -> int:
        """Return the estimated peak in bytes, 0 if there is none.

        Raises:
            ConfigError: there is less memory, and overcommitting it is not allowed.
        """
        if self.shape is None:
            return 0
        train, valid = fit.lengths_of(self.data.train), fit.lengths_of(self.data.valid)
        question = fit.Question(self.shape, self.config, train, valid, way)
        return fit.require_fit(question, available_bytes())


def _scoring(
    config: TrainConfig, model: Any, data: PreparedData, resumed: FoundCheckpoint | None
) -> Scoring:
    """Return how pairs are scored; a resumed run scores as it did."""
    if config.grad_checkpoint:
        checkpoint_layers(model.layers)
    wanted = resumed.manifest.get("scoring", config.scoring) if resumed else config.scoring
    pairs = sorted(data.train[:64], key=lambda pair: pair.longest)[:3]
    model.train()
    set_dropout_key(model, mx.random.key(0))
    try:
        return choose_scoring(model, wanted, config.nll_scope, pairs, config.grad_checkpoint)
    finally:
        set_dropout_key(model, None)
        model.eval()


def _start_folder(config: TrainConfig) -> Path | None:
    return Path(config.init_adapter).expanduser() if config.init_adapter else None


def _template_hash(tokenizer: Any) -> str:
    template = getattr(tokenizer, "chat_template", None)
    return hashlib.sha256(repr(template).encode()).hexdigest()


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


def _read_files(config: TrainConfig) -> dict[str, list[sources.Row]]:
    """Read the data files: what is most often wrong, and the cheapest to look at."""
    names = [name for name in ("data", "valid_data") if name == "data" or config.valid_data]
    rows = {name: sources.read_rows(required(config, name)) for name in names}
    for found in rows.values():
        formats.detect_layout(found)
    return rows


def prepare_data(
    config: TrainConfig,
    rows: dict[str, list[sources.Row]],
    tokenizer: Any,
    vocab_size: int | None = None,
    model: str = "the model",
) -> PreparedData:
    """Tokenize, split and count the pairs.

    Args:
        config: names the files for messages and hashes.
        rows: of `data`, and of `valid_data` if there is one.
        tokenizer: of the model.
        vocab_size: rows of the model's embedding.
        model: its name, for messages.

    Raises:
        DataError: too little is left to train on.
        ModelError: the data holds messages and the model has no usable chat template.
    """

    def prepared(name: str) -> tokens.Prepared:
        return tokens.prepare_rows(
            rows[name], tokenizer, config.max_seq_length, vocab_size=vocab_size
        )

    notes = [note for name in rows for note in _check_template(rows[name], tokenizer, model)]
    hashes = {name: sources.content_hash(required(config, name)) for name in rows}
    if hashes["data"] == hashes.get("valid_data"):
        notes.append(
            "--valid-data is the training data itself: good numbers there say nothing about "
            "answers to new prompts"
        )
    whole = prepared("data")
    train, valid = whole.pairs, []
    if config.valid_data:
        held_out = prepared("valid_data")
        valid = held_out.pairs
        if dropped := held_out.account.dropped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
            notes.append(
                f"of the {held_out.account.read} rows of --valid-data {len(valid)} are kept "
                f"(dropped: {reasons})"
            )
    elif config.valid_fraction > 0:
        train, valid = tokens.split_pairs(train, config.valid_fraction, config.seed)
    if len(train) < config.micro_batch_size:
        raise _too_few(config, len(train), len(whole.pairs) - len(train))
    return PreparedData(
        train, valid, whole.account, whole.layout, hashes, list(dict.fromkeys(notes))
    )


def _too_few(config: TrainConfig, left: int, held_out: int) -> DataError:
    """Say what is left for training; a batch is never filled up with copies."""
    are_left = "1 pair is left" if left == 1 else f"{left} pairs are left"
    beside = f" besides {held_out} held out for validation" if held_out else ""
    advice = f"Lower --micro-batch-size to {left} or less" if left else "Add pairs"
    other = ", set --valid-fraction 0, or add pairs." if held_out else ", or add pairs."
    return DataError(
        f"{config.data}: {are_left} for training{beside}; --micro-batch-size is "
        f"{config.micro_batch_size}.",
        advice + other,
    )


def _check_template(rows: list[sources.Row], tokenizer: Any, model: str) -> list[str]:
    """Dry-run the chat template if the data needs one; returns what the user should know."""
    layout = formats.detect_layout(rows)
    if layout.needs_template:
        report = check_chat_template(tokenizer, model)
        if not report.supports_system:
            return [
                "the chat template takes no system message, so system texts are put before the "
                f"first user turn (it says: {report.system_error or 'nothing, it drops them'})"
            ]
    elif tokenizer.has_chat_template and not layout.is_tokenized:
        return [
            "prompt, chosen and rejected are plain text, so this model's chat template is not "
            "used; for chat answers give them as messages (role, content)"
        ]
    return []


def objective(config: TrainConfig) -> Objective:
    """Return the objective the settings describe."""
    return Objective(
        lam=config.lam,
        nll_scope=config.nll_scope,
        nll_reduction=config.nll_reduction,
        nll_weight=config.nll_weight,
        preference=config.preference,
    )


def steps_per_epoch(config: TrainConfig, pairs: int) -> int:
    """Return the number of optimizer steps in one pass over `pairs` pairs."""
    return batches.steps_per_epoch(pairs, config.micro_batch_size, config.grad_accumulation_steps)


def count_steps(config: TrainConfig, pairs: int) -> int:
    """Return the optimizer steps of the whole run: `steps`, or as many as `epochs` take."""
    if config.steps is not None:
        return config.steps
    return max(1, math.ceil(config.epochs * steps_per_epoch(config, pairs)))


def settings_identity(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that a resumed run must share."""
    return {
        "settings": {
            setting.name: getattr(config, setting.name)
            for setting in iter_settings()
            if not setting.may_change and setting.name not in (*FINGERPRINTED, *PLACES)
        }
    }


def identity(config: TrainConfig, fingerprint: str, hashes: dict[str, str]) -> dict[str, Any]:
    """Return what makes this run this run: settings that matter, and fingerprints of content."""
    return {**settings_identity(config), "content": {"model": fingerprint, **hashes}}


def step_batches(prepared: Prepared, step: int) -> list[MicroBatch]:
    """Return the micro-batches of a step; the same for every process that asks.

    Args:
        step: 1-based.
    """
    config, pairs = prepared.config, prepared.data.train
    epoch, index = batches.locate(step, prepared.steps_per_epoch)
    plan = _epoch_plan(
        len(pairs),
        config.seed,
        epoch,
        config.order,
        config.micro_batch_size,
        config.grad_accumulation_steps,
    )
    return [prepared.scoring.build(pairs, part) for part in _regroup(prepared, pairs, plan[index])]


@functools.lru_cache(maxsize=1)
def _epoch_plan(
    n: int,
    seed: int,
    epoch: int,
    order: Literal["shuffled", "file"],
    micro_batch_size: int,
    grad_accumulation_steps: int,
) -> list[batches.Step]:
    """Plan an epoch once, not once per step: at 60,000 pairs it takes longer than a small step."""
    positions = batches.epoch_order(n, seed, epoch, order)
    return batches.plan_epoch(positions, micro_batch_size, grad_accumulation_steps)


def valid_batches(prepared: Prepared) -> list[MicroBatch]:
    """Return the validation pairs in micro-batches, at most `eval_pairs` of them."""
    config, pairs = prepared.config, prepared.data.valid
    pairs = pairs[: config.eval_pairs] if config.eval_pairs else pairs
    if not pairs:
        return []
    (whole,) = batches.plan_epoch(range(len(pairs)), config.micro_batch_size, len(pairs))
    return [prepared.scoring.build(pairs, part) for part in _regroup(prepared, pairs, whole)]


def _regroup(
    prepared: Prepared, pairs: list[TokenPair], step: batches.Step
) -> Sequence[batches.MicroBatch]:
    """Divide the pairs of a step by tokens instead of by number, if the settings say so."""
    if prepared.config.batching == "fixed":
        return step
    members = [index for part in step for index in part]
    cost = prepared.scoring.cost
    return batches.split_by_tokens(members, pairs, cost, prepared.config.tokens_per_batch)
