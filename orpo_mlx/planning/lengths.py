"""How long the pairs of a run are: all that an estimate of its memory asks of the data.

Lengths are kept on disk, so that asking again with another rank, batch size or limit of length
tokenizes nothing. Their key is a hash of the data's bytes, the tokenizer's and template's files,
the settings that change rows or tokens, the libraries, and this package's own code: an entry is
never stale, what changed has another key. Entries are checked by a sha256 when they are read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import orpo_mlx.models
from orpo_mlx.config import TrainConfig
from orpo_mlx.data import pipeline
from orpo_mlx.data.accounting import account_json, account_of
from orpo_mlx.data.batching.shape import Lengths
from orpo_mlx.data.prepare import FoundData, data_key, hash_sources, read_source
from orpo_mlx.data.tokens import cache
from orpo_mlx.data.tokens.store import pair_lengths
from orpo_mlx.data.tokens.template_check import read_template
from orpo_mlx.data.types import Account
from orpo_mlx.data.unpaired import rows_for, step_rows
from orpo_mlx.planning.plan import LONGEST
from orpo_mlx.storage.atomic import replace_file
from orpo_mlx.storage.cache import cache_folder, forget_old
from orpo_mlx.text.progress import OnProgress

MAX_BYTES = 64 << 20
"""Room of all entries; a pair takes 12 bytes."""
_SUFFIX = ".lengths"
_FORM = "an account as JSON in a line, then the table"
"""Of an entry, as part of its key: what was kept in another form is made anew."""


@dataclass
class PairLengths:
    """Tokens of the pairs, uncut.

    Attributes:
        train: of `data`, those that would be held out included.
        valid: of pairs that are for validation alone.
        accounts: of the rows by setting ("data", "valid_data"), before any is too long.
        notes: what the user should know.
    """

    train: list[Lengths] = field(default_factory=list)
    valid: list[Lengths] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def folder() -> Path:
    """Return where entries lie; it may be deleted at any time."""
    return cache_folder("lengths")


def read_lengths(config: TrainConfig, on_progress: OnProgress | None = None) -> PairLengths:
    """Return the lengths of the pairs the settings name, none without `data`.

    Raises:
        DataError: the data cannot be read.
        ModelError: the tokenizer cannot be read.
    """
    lengths = PairLengths()
    if not config.data:
        return lengths
    found = hash_sources(config, on_progress=on_progress)
    files = _tokenizer_folder(config)
    for name in found.named:
        part = lengths.train if name == "data" else lengths.valid
        kept = _lengths_of(config, found, name, files, lengths.notes)
        lengths.accounts[name] = kept.account
        part += (Lengths(*row) for row in kept.table.tolist())
    return lengths


def _tokenizer_folder(config: TrainConfig) -> Path:
    from orpo_mlx.models.download import download_settings

    path = Path(str(config.model)).expanduser()
    return path if path.exists() else download_settings(str(config.model), config.revision)


@dataclass(frozen=True)
class _Kept:
    """Tokens of prompt, chosen and rejected as [N, 3], and the account of the rows."""

    table: np.ndarray
    account: Account


def _lengths_of(
    config: TrainConfig, found: FoundData, name: str, files: Path, notes: list[str]
) -> _Kept:
    rules = replace(pipeline.rules_of(config), max_seq_length=LONGEST)
    entry = folder() / f"{_key(config, data_key(found, name, config), rules, files)}{_SUFFIX}"
    kept = _load(entry)
    if kept is None:
        kept = _tokenize(config, found, name, files, rules)
        notes += _save(entry, kept)
    if config.objective == "kto" and config.kto_loss == "kto" and name == "data":
        notes.append(_kl_note(kept.table))
    return kept


def _kl_note(table: np.ndarray) -> str:
    """Say what KTO's KL costs, from the tokens [N, 3] of prompts and of both answers."""
    more = table[:, 2].sum() / table[:, :2].sum()
    return (
        f"kto computes an answer to another prompt beside each row, for its KL: {more:.0%} more "
        "tokens; a step of several micro-batches is also scored once before its gradient "
        "(--kto-loss apo_zero_unpaired needs neither)"
    )


def _tokenize(
    config: TrainConfig, found: FoundData, name: str, files: Path, rules: pipeline.Rules
) -> _Kept:
    from orpo_mlx.models import load

    encoder = pipeline.encoder_for(config, load.load_tokenizer(files, config.chat_template))
    made = pipeline.prepare_members(read_source(found, name, config), encoder, rules)
    table = np.ascontiguousarray(pair_lengths(rows_for(made.pairs, config)), np.int32)
    return _Kept(table, account_of(account_json(made.account)))


def _key(config: TrainConfig, data: str, rules: pipeline.Rules, files: Path) -> str:
    template = config.chat_template
    return cache.hash_of(
        [
            data,
            asdict(rules),
            config.thinking,
            config.escape_special,
            _rows_key(config),
            cache.tokenizer_hash(files),
            template and read_template(template),
            cache.code_hash(),
            _code_hash(),
            _FORM,
        ]
    )


def _rows_key(config: TrainConfig) -> list[Any]:
    """Return what else decides which answers belong to one row."""
    if config.objective != "kto":
        return []
    names = ("objective", "kto_loss", "unpair", "order", "seed", "max_seq_length")
    return [step_rows(config), *(getattr(config, name) for name in names)]


@functools.cache
def _code_hash() -> str:
    """Return a hash of the code that finds and loads tokenizer and template."""
    digest = hashlib.sha256()
    for path in sorted(Path(orpo_mlx.models.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _load(entry: Path) -> _Kept | None:
    """Return an entry; None if there is none or it is damaged (then it is made anew)."""
    try:
        content = entry.read_bytes()
    except OSError:
        return None
    digest, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    with contextlib.suppress(OSError):
        os.utime(entry)  # it was used
    account, _, table = body.partition(b"\n")
    kept = np.frombuffer(table, np.int32).reshape(-1, 3)
    return _Kept(kept, account_of(json.loads(account)))


def _save(entry: Path, kept: _Kept) -> list[str]:
    """Keep the lengths; return why that could not be, if it could not."""
    account = json.dumps(account_json(kept.account)).encode()
    body = account + b"\n" + kept.table.tobytes()
    content = hashlib.sha256(body).digest() + body

    def write(aside: Path) -> None:
        aside.write_bytes(content)

    try:
        folder().mkdir(parents=True, exist_ok=True)
        replace_file(entry, write, is_synced=False)
        forget_old(folder(), _SUFFIX, MAX_BYTES, keep=entry)
    except OSError as error:
        return [f"the lengths could not be kept for the next question ({error.strerror})"]
    return []
