"""Tokenized datasets on disk, found again by the content they were made from.

The key is a hash of everything that decides the result: the data files' bytes, the tokenizer's and
template's files, the settings that change rows or tokens, the code of this package's `data` folder
and the versions of the libraries that render and tokenize. So an entry is never stale; what changed
has another key. Entries are written aside and renamed, so writers do not disturb each other, and
checked by a sha256 when they are read. Beyond `MAX_BYTES` those used least recently go.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import orpo_mlx.data
from orpo_mlx.data.tokens.store import TokenPairs
from orpo_mlx.data.types import Account
from orpo_mlx.storage.atomic import replace_file
from orpo_mlx.storage.cache import cache_folder, forget_old

MAX_BYTES = 2 << 30
SMALLEST_ROWS = 1000
"""Fewer rows are tokenized sooner than they would be worth a file."""
LIBRARIES = ("tokenizers", "transformers", "mlx-lm", "jinja2", "pyarrow")

_MAGIC = b"orpo-mlx tokens 1\n"
_SUFFIX = ".tokens"


@dataclass(frozen=True)
class Cached:
    """A tokenized dataset.

    Attributes:
        account: of all its rows.
        layout: of the rows, for display.
        notes: what the user should know of data and template.
    """

    pairs: TokenPairs
    account: Account
    layout: str
    notes: list[str]


def folder() -> Path:
    """Return where entries lie; it may be deleted at any time."""
    return cache_folder("tokens")


def hash_of(parts: Any) -> str:
    """Return a hash of plain values, as 64 hex digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()


def tokenizer_hash(model_folder: Path) -> str:
    """Return a hash of all files of a model but its weights: tokenizer, template, stop tokens."""
    digest = hashlib.sha256()
    named_templates = model_folder.glob("*/*.jinja")
    for path in sorted([*model_folder.iterdir(), *named_templates]):
        if path.suffix in (".json", ".jinja", ".model", ".txt", ".tiktoken") and path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@functools.cache
def code_hash() -> str:
    """Return a hash of the code and libraries that turn rows into tokens."""
    digest = hashlib.sha256()
    for path in sorted(Path(orpo_mlx.data.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in LIBRARIES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "none"
        digest.update(f"{name} {version}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Key:
    """What an entry was made from: `data` alone, and `data` with everything else."""

    data: str
    rest: str = ""

    @classmethod
    def of(cls, data: str, settings: Mapping[str, Any]) -> Key:
        """Return the key of a dataset's hash under settings, code and libraries as they are."""
        return cls(data, hash_of([code_hash(), dict(settings)]))

    @property
    def path(self) -> Path:
        """The file of the entry."""
        return folder() / f"{self.data[:32]}-{self.rest[:32]}{_SUFFIX}"


def holds_data(data: str) -> bool:
    """Whether a dataset was tokenized before, with any model and by this code: it can be read."""
    return any(
        _read_header(path).get("code") == code_hash()
        for path in folder().glob(f"{data[:32]}-*{_SUFFIX}")
    )


def load(key: Key) -> Cached | None:
    """Return an entry; None if there is none or it is damaged (then it is deleted)."""
    path = key.path
    try:
        found = _read(path, key)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError):
        path.unlink(missing_ok=True)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it was used
    return found


def save(key: Key, content: Cached) -> str:
    """Keep a dataset; return why that could not be, "" if it could or is not worth it."""
    if content.account.read < SMALLEST_ROWS:
        return ""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        replace_file(key.path, lambda aside: _write(aside, key, content), is_synced=False)
        forget_old(folder(), _SUFFIX, MAX_BYTES, keep=key.path)
    except OSError as error:
        return f"the tokens could not be kept for the next start ({error.strerror})"
    return ""


def _write(path: Path, key: Key, content: Cached) -> None:
    pairs = content.pairs
    starts = np.ascontiguousarray(pairs.starts, np.int64)
    header = {
        "data": key.data, "rest": key.rest, "code": code_hash(), "pairs": len(pairs),
        "ids": len(pairs.ids), "sources": list(pairs.sources), "notes": list(pairs.notes),
        "margins": list(pairs.margins), "labels": list(pairs.labels),
        "account": asdict(content.account), "layout": content.layout, "said": content.notes,
    }  # fmt: skip
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-(len(_MAGIC) + 8 + len(text)) % 64)
    digest = hashlib.sha256()
    with path.open("xb") as stream:
        for part in (
            _MAGIC + len(text).to_bytes(8, "little") + text,
            starts.data.cast("B") if len(starts) else b"",
            np.ascontiguousarray(pairs.ids, np.int32).data.cast("B") if len(pairs.ids) else b"",
        ):
            digest.update(part)
            stream.write(part)
        stream.write(digest.digest())


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return _parse_header(stream.read(len(_MAGIC) + 8), stream.read)[0]
    except (OSError, ValueError):
        return {}


def _parse_header(start: bytes, read: Any) -> tuple[dict[str, Any], int]:
    """Return the header and where it ends."""
    length = int.from_bytes(start[len(_MAGIC) :], "little")
    if not start.startswith(_MAGIC) or length > MAX_BYTES:
        raise ValueError("not a file of tokens")
    return json.loads(read(length)), len(start) + length


def _read(path: Path, key: Key) -> Cached:
    with path.open("rb") as stream:
        header, at = _parse_header(stream.read(len(_MAGIC) + 8), stream.read)
    whole = np.memmap(path, np.uint8, "r")
    if hashlib.sha256(whole.data[:-32]).digest() != whole[-32:].tobytes():
        raise ValueError("damaged")
    if (header["data"], header["rest"]) != (key.data, key.rest):
        raise ValueError("another entry under this name")
    middle = at + 32 * header["pairs"]
    starts = whole[at:middle].view(np.int64).reshape(-1, 4)
    ids = whole[middle : middle + 4 * header["ids"]].view(np.int32)
    notes = [tuple(note) for note in header["notes"]]
    margins, labels = header["margins"], header["labels"]
    pairs = TokenPairs(ids, starts, header["sources"], notes, margins, labels)
    return Cached(pairs, Account(**header["account"]), header["layout"], header["said"])
