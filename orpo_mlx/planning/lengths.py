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
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import orpo_mlx.models
from orpo_mlx.config import TrainConfig
from orpo_mlx.data import pipeline
from orpo_mlx.data.batching.shape import Lengths
from orpo_mlx.data.prepare import FoundData, data_key, hash_sources, read_source
from orpo_mlx.data.tokens import cache
from orpo_mlx.data.tokens.store import pair_lengths
from orpo_mlx.data.tokens.template_check import read_template
from orpo_mlx.data.unpaired import rows_for, step_rows
from orpo_mlx.planning.plan import LONGEST
from orpo_mlx.storage.atomic import replace_file
from orpo_mlx.storage.cache import cache_folder, forget_old
from orpo_mlx.text.progress import OnProgress

MAX_BYTES = 64 << 20
"""Room of all entries; a pair takes 12 bytes."""
_SUFFIX = ".lengths"


@dataclass
class PairLengths:
    """Tokens of the pairs, uncut.

    Attributes:
        train: of `data`, those that would be held out included.
        valid: of pairs that are for validation alone.
        notes: what the user should know.
    """

    train: list[Lengths] = field(default_factory=list)
    valid: list[Lengths] = field(default_factory=list)
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
        part += _lengths_of(config, found, name, files, lengths.notes)
    return lengths


def _tokenizer_folder(config: TrainConfig) -> Path:
    from orpo_mlx.models.download import download_settings

    path = Path(str(config.model)).expanduser()
    return path if path.exists() else download_settings(str(config.model), config.revision)


def _lengths_of(
    config: TrainConfig, found: FoundData, name: str, files: Path, notes: list[str]
) -> Iterator[Lengths]:
    rules = replace(pipeline.rules_of(config), max_seq_length=LONGEST)
    entry = folder() / f"{_key(config, data_key(found, name, config), rules, files)}{_SUFFIX}"
    table = _load(entry)
    if table is None:
        table = _tokenize(config, found, name, files, rules)
        notes += _save(entry, table)
    if config.objective == "kto" and config.kto_loss == "kto" and name == "data":
        notes.append(_kl_note(table))
    return (Lengths(*row) for row in table.tolist())


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
) -> np.ndarray:
    """Return tokens of prompt, chosen and rejected as [N, 3]."""
    from orpo_mlx.models import load

    encoder = pipeline.encoder_for(config, load.load_tokenizer(files, config.chat_template))
    pairs = pipeline.prepare_members(read_source(found, name, config), encoder, rules).pairs
    return pair_lengths(rows_for(pairs, config))


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


def _load(entry: Path) -> np.ndarray | None:
    """Return an entry; None if there is none or it is damaged (then it is made anew)."""
    try:
        content = entry.read_bytes()
    except OSError:
        return None
    digest, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != digest or len(body) % 12:
        return None
    with contextlib.suppress(OSError):
        os.utime(entry)  # it was used
    return np.frombuffer(body, np.int32).reshape(-1, 3)


def _save(entry: Path, table: np.ndarray) -> list[str]:
    """Keep the lengths; return why that could not be, if it could not."""
    body = np.ascontiguousarray(table, np.int32).tobytes()
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
