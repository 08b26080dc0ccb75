"""The data of a training: found and read early, tokenized once the tokenizer is there.

What was tokenized before comes from the cache; then the rows are not even read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.data import pipeline, split, unpaired
from orpo_mlx.data.sources.rows import Row
from orpo_mlx.data.sources.source import (
    Source,
    TrainingSources,
    describe_choice,
    find_sources,
    read_members,
)
from orpo_mlx.data.tokens import cache
from orpo_mlx.data.tokens.template_check import template_notes
from orpo_mlx.data.types import Account, TokenPair
from orpo_mlx.text.progress import OnProgress

_SHOWN_FROM_ROWS = 2000
"""Fewer rows are tokenized before anyone asks how long it takes."""


@dataclass(frozen=True)
class PreparedData:
    """Token pairs and where every row went.

    Attributes:
        hashes: of the content of data and validation data.
        revisions: the commit of each Hub dataset.
        notes: what the user should know about data and template.
        facts: which parts of folders and Hub datasets are used.
        valid_account: of the rows of validation data, None where pairs were held out or none.
    """

    train: Sequence[TokenPair]
    valid: Sequence[TokenPair]
    account: Account
    layout: str
    hashes: dict[str, str]
    notes: list[str]
    revisions: dict[str, str] = field(default_factory=dict)
    facts: list[str] = field(default_factory=list)
    valid_account: Account | None = None


@dataclass
class FoundData:
    """Data that can be read, before the model is looked at.

    Attributes:
        hashes: of the content, by setting ("data", "valid_data").
        rows: by setting, for each member; absent if the cache may know the tokens.
        shares: by setting, what was drawn of each member of a mixture.
    """

    sources: TrainingSources
    hashes: dict[str, str]
    rows: dict[str, list[list[Row]]]
    shares: dict[str, list[str]] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, Source]:
        """The sources by setting."""
        valid = {"valid_data": self.sources.valid} if self.sources.valid else {}
        return {"data": self.sources.data, **valid}

    @property
    def revisions(self) -> dict[str, str]:
        """The commit of each Hub dataset."""
        return {repo: commit for s in self.named.values() for repo, commit in s.revisions.items()}


def find_training_data(
    config: TrainConfig,
    pinned: dict[str, str] | None = None,
    on_progress: OnProgress | None = None,
) -> FoundData:
    """Find, hash and read the data: what is most often wrong, and the cheapest to look at.

    Args:
        config: with `data` set.
        pinned: commits of Hub datasets that a resumed run goes on with.
        on_progress: told of a download.

    Raises:
        DataError: it cannot be found or read, or has no known layout.
    """
    found = hash_sources(config, pinned, on_progress)
    rules = pipeline.rules_of(config)
    for name in found.named:
        if not cache.holds_data(data_key(found, name, config)):
            found.rows[name] = read_source(found, name, config)
            parts = pipeline.with_layouts(found.rows[name], rules)
            unpaired.require_kind({layout.is_labelled for _, layout in parts}, config)
    return found


def hash_sources(
    config: TrainConfig,
    pinned: dict[str, str] | None = None,
    on_progress: OnProgress | None = None,
) -> FoundData:
    """Find and hash the data as `find_training_data` does, but read no row yet."""
    found = FoundData(find_sources(config, pinned, on_progress), {}, {})
    found.hashes.update((name, source.content_hash()) for name, source in found.named.items())
    return found


def read_source(found: FoundData, name: str, config: TrainConfig) -> list[list[Row]]:
    """Return the rows of a source, for each member, and note what was drawn of it."""
    found.shares[name] = []
    return read_members(found.named[name].members, config.seed, found.shares[name])


def prepare_data(
    config: TrainConfig,
    found: FoundData,
    tokenizer: Any,
    model_path: Path,
    vocab_size: int | None = None,
    model: str = "the model",
    on_progress: OnProgress | None = None,
) -> PreparedData:
    """Tokenize, split and count the pairs.

    Args:
        config: the settings.
        found: of `find_training_data`; its rows are let go.
        tokenizer: of the model.
        model_path: folder of the model.
        vocab_size: rows of the model's embedding.
        model: its name, for messages.
        on_progress: told of the rows while many are tokenized.

    Raises:
        DataError: too little is left to train on.
        ModelError: the data holds messages and the model has no usable chat template.
    """
    work = _Tokenization(config, found, tokenizer, model_path, vocab_size, model, on_progress)
    whole = work.tokens("data")
    notes = [*found.sources.notes, *whole.notes]
    train, valid, valid_account = whole.pairs, whole.pairs[:0], None
    if "valid_data" in found.named:
        held_out = work.tokens("valid_data")
        valid, valid_account = held_out.pairs, held_out.account
        notes += [*held_out.notes, *notes_on_valid(found.hashes, held_out.account)]
    elif config.valid_fraction > 0:
        train, valid = split.hold_out(train, config.valid_fraction, config.seed, tokenizer, notes)
    train, valid = (unpaired.rows_for(pairs, config) for pairs in (train, valid))
    if config.objective == "kto":
        unpaired.require_both_labels(train, config)
        weights = config.desirable_weight, config.undesirable_weight
        notes += filter(None, [unpaired.weights_note(*unpaired.count_labels(train), weights)])
    if len(train) < config.micro_batch_size:
        held = len(valid)
        smallest = config.micro_batch_size
        raise pipeline.too_few(str(config.data), len(train), held, smallest, whole.account)
    return PreparedData(
        train,
        valid,
        whole.account,
        whole.layout,
        found.hashes,
        list(dict.fromkeys(notes)),
        found.revisions,
        [text for source in found.named.values() for text in describe_choice(source)],
        valid_account,
    )


def notes_on_valid(hashes: dict[str, str], account: Account) -> list[str]:
    """Return what the user should know about a validation file.

    Args:
        hashes: of both files, as in `FoundData`.
        account: of the rows of the validation file.
    """
    notes = []
    if hashes["data"] == hashes["valid_data"]:
        notes.append(
            "--valid-data is the training data itself: good numbers there say nothing about "
            "answers to new prompts"
        )
    if account.dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in account.dropped.items())
        notes.append(
            f"of the {account.read} rows of --valid-data {account.kept} are kept "
            f"(dropped: {reasons})"
        )
    return notes


@dataclass
class _Tokenization:
    config: TrainConfig
    found: FoundData
    tokenizer: Any
    model_path: Path
    vocab_size: int | None
    model: str
    on_progress: OnProgress | None

    def tokens(self, name: str) -> cache.Cached:
        """Return the tokens of a source from the cache, or make and keep them."""
        rules = pipeline.rules_of(self.config, self.vocab_size)
        key = cache.Key.of(
            data_key(self.found, name, self.config),
            {
                "rules": asdict(rules),
                "thinking": self.config.thinking,
                "escape_special": self.config.escape_special,
                "tokenizer": cache.tokenizer_hash(self.model_path),
                "template": template_hash(self.tokenizer),
            },
        )
        return cache.load(key) or self._make(name, rules, key)

    def _make(self, name: str, rules: pipeline.Rules, key: cache.Key) -> cache.Cached:
        rows = self.found.rows.pop(name, None)
        if rows is None:
            rows = read_source(self.found, name, self.config)
        layouts = [layout for _, layout in pipeline.with_layouts(rows, rules)]
        notes = [note for x in layouts for note in template_notes(x, self.tokenizer, self.model)]
        notes = [*self.found.shares[name], *notes]
        encoder = pipeline.encoder_for(self.config, self.tokenizer)
        made = pipeline.prepare_members(rows, encoder, rules, self._row_counter(rows))
        content = cache.Cached(made.pairs, made.account, made.layout, notes)
        if problem := cache.save(key, content):
            content.notes.append(problem)
        return content

    def _row_counter(self, rows: list[list[Row]]) -> Any:
        total, show = sum(map(len, rows)), self.on_progress
        if show is None or total < _SHOWN_FROM_ROWS:
            return None

        def count(done: int) -> None:
            if done % 100 == 0 or done == total:
                show(min(done, total), total, "tokenizing", "rows")

        return count


def template_hash(tokenizer: Any) -> str:
    """Return a hash of the chat template in use."""
    template = getattr(tokenizer, "chat_template", None)
    return hashlib.sha256(repr(template).encode()).hexdigest()


def data_key(found: FoundData, name: str, config: TrainConfig) -> str:
    """Return a hash of the rows a source gives: its content, how it is read, what is drawn."""
    members = found.named[name].members
    labels = [[file.label for file in member.files] for member in members]
    draws = config.seed if any(member.weight is not None for member in members) else None
    return cache.hash_of([found.hashes[name], labels, draws, config.layout, config.map])
