"""Everything before the first step: data and model checked, loaded and fingerprinted.

Order matters to the person waiting: what can be wrong is looked at from cheap to dear, so a typo in
the data is reported before gigabytes of weights are read, and before anything is written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx import adapter, adapter_files, models
from orpo_mlx.chat_template import check_chat_template
from orpo_mlx.checkpoint import require_same
from orpo_mlx.config import TrainConfig, iter_settings
from orpo_mlx.data import batches, formats, sources, tokens
from orpo_mlx.data.pairs import Account, Batch, TokenPair
from orpo_mlx.errors import ConfigError, DataError, ModelError
from orpo_mlx.export import peft
from orpo_mlx.hub import OnProgress
from orpo_mlx.import_gate import read_json_object
from orpo_mlx.losses import Objective
from orpo_mlx.model_check import CONFIG

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

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that visit each training pair once."""
        return steps_per_epoch(self.config, len(self.data.train))


def prepare(
    config: TrainConfig,
    on_progress: OnProgress | None = None,
    same_as: dict[str, Any] | None = None,
) -> Prepared:
    """Check and load model and data; writes nothing but the Hub cache.

    Args:
        config: the resolved settings.
        on_progress: called with (bytes done, bytes total, label) during a download.
        same_as: what a checkpoint recorded; any difference is refused.

    Raises:
        OrpoError: naming what is wrong and what to do.
    """
    rows = _read_files(config)
    folder = models.resolve_model(required(config, "model"), config.revision, on_progress)
    tokenizer = models.load_tokenizer(folder, config.chat_template)
    vocab_size = read_json_object(folder.path / CONFIG, ModelError).get("vocab_size")
    data = prepare_data(config, rows, tokenizer, vocab_size, folder.name)
    start = Path(config.init_adapter).expanduser() if config.init_adapter else None
    spec = _starting_spec(start) if start else None
    # Everything is checked by names and shapes before the weights are read.
    loaded = models.load_model(folder, tokenizer, lazy=True)
    own_identity = identity(config, loaded.fingerprint, data.hashes)
    if same_as is not None:
        require_same(own_identity, same_as)
    spec = spec or adapter.build_adapter_spec(config, loaded.model)
    adapter.attach_adapter(loaded.model, spec, config.seed)
    if start and peft.is_peft(start):
        peft.load_peft_into(loaded.model, start)
    elif start:
        adapter_files.load_adapter_into(loaded.model, start, loaded.fingerprint, folder.name)
    models.read_weights(loaded)
    return Prepared(
        config=config,
        model=loaded.model,
        tokenizer=tokenizer,
        folder=folder,
        fingerprint=loaded.fingerprint,
        spec=spec,
        data=data,
        total_steps=count_steps(config, len(data.train)),
        identity=own_identity,
        samples=[pair.prompt for pair in data.valid[: config.sample_prompts]],
    )


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
        valid = prepared("valid_data").pairs
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
    if formats.needs_template(rows):
        report = check_chat_template(tokenizer, model)
        if not report.supports_system:
            return [
                "the chat template takes no system message, so system texts are put before the "
                f"first user turn (it says: {report.system_error or 'nothing, it drops them'})"
            ]
    elif tokenizer.has_chat_template and not formats.is_tokenized(rows):
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


def step_batches(prepared: Prepared, step: int) -> list[Batch]:
    """Return the micro-batches of a step; the same for every process that asks.

    Args:
        step: 1-based.
    """
    config, pairs = prepared.config, prepared.data.train
    epoch, index = batches.locate(step, prepared.steps_per_epoch)
    order = batches.epoch_order(len(pairs), config.seed, epoch, config.order)
    plan = batches.plan_epoch(order, config.micro_batch_size, config.grad_accumulation_steps)
    pad = pad_id(prepared.tokenizer)
    return [batches.build_batch(pairs, indices, pad) for indices in plan[index]]


def valid_batches(prepared: Prepared) -> list[Batch]:
    """Return the validation pairs in micro-batches, at most `eval_pairs` of them."""
    config, pairs = prepared.config, prepared.data.valid
    pairs = pairs[: config.eval_pairs] if config.eval_pairs else pairs
    plan = batches.plan_epoch(list(range(len(pairs))), config.micro_batch_size, 1)
    pad = pad_id(prepared.tokenizer)
    return [batches.build_batch(pairs, indices, pad) for step in plan for indices in step]


def pad_id(tokenizer: Any) -> int:
    """Return an id to fill rows with; what it is never matters to a number."""
    return getattr(tokenizer, "pad_token_id", None) or 0
