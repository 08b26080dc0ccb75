"""Preference data files as rows: JSONL and JSON, every bad line named.

What a file holds is decided by its content, so a JSON array named `.jsonl` is read as what it is.
Columns are not looked at here; `formats.py` does that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.errors import DataError

CONVERT = "Convert it to JSONL: one object per line with prompt, chosen and rejected."
UNREAD_SUFFIXES = {
    ".csv", ".tsv", ".parquet", ".arrow", ".gz", ".zst", ".bz2", ".xz", ".zip", ".xlsx",
}  # fmt: skip
MAGIC = {b"\x1f\x8b": "a gzip file", b"PAR1": "a Parquet file", b"PK\x03\x04": "a zip file"}
BOM = "\ufeff"
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Row:
    """One object of a data file.

    Attributes:
        values: column names to JSON values.
        source: "file.jsonl:7" (1-based line) or "file.json[6]" (0-based position in a list).
    """

    values: dict[str, Any]
    source: str


class _Refused(ValueError):
    """Valid for Python's JSON reader, not for us; the message is the reason."""


def read_rows(path: str | Path) -> list[Row]:
    """Read a file of preference pairs: JSON lines, a JSON list, or an object holding one list.

    Blank lines and a byte-order mark are passed over.

    Raises:
        DataError: the file is missing, not a regular file, of a kind this version does not read,
            empty, or has bad lines; the first three are named and all are counted.
    """
    file = _require_file(path)
    text = _decode(file)
    if not text.strip():
        found = "it has only blank lines" if text else "it is empty"
        raise DataError(f"{file}: 0 rows; {found}.", "Give a file with preference pairs.")
    found = (
        _read_lines(text, file) if _is_one_object_per_line(text, file) else _read_whole(text, file)
    )
    rows = _checked(found, might_hold_surrogates=SURROGATE_ESCAPE.search(text) is not None)
    if not rows:
        raise DataError(f"{file}: 0 rows; its list is empty.", "Give a file with preference pairs.")
    return rows


def content_hash(path: str | Path) -> str:
    """Return the sha256 of a data file as 64 hex digits.

    Raises:
        DataError: as `read_rows` for a path that cannot be read.
    """
    file = _require_file(path)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def report_problems(problems: list[str], what_to_do: str, noun: str = "lines") -> DataError:
    """Build one error from several: the first three in full, then how many there are."""
    shown = "\n".join(problems[:3])
    count = f" ({len(problems):,} such {noun} in all)" if len(problems) > 1 else ""
    return DataError(shown + count, what_to_do)


def kind_of(value: Any) -> str:
    """Name the JSON kind of a value for a message: "a number", "null", ..."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)


def _require_file(path: str | Path) -> Path:
    """Return the path of a regular file; nothing else is opened (a FIFO would block for ever)."""
    file = Path(path).expanduser()
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(str(path)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}.", "Check path and rights.") from None
    if stat.S_ISDIR(mode):
        raise _folder(file)
    if not stat.S_ISREG(mode):
        raise DataError(f"{file}: not a regular file.", "Give a .jsonl or .json file.")
    if file.suffix.lower() in UNREAD_SUFFIXES:
        raise DataError(f"{file}: {file.suffix} files are not read by this version.", CONVERT)
    if not os.access(file, os.R_OK):
        raise DataError(f"{file}: permission denied.", "Make the file readable.")
    return file


def _missing(path: str) -> DataError:
    looks_like_hub_id = HUB_ID.fullmatch(path) and Path(path).suffix not in {".json", ".jsonl"}
    if not looks_like_hub_id:
        return DataError(f"{path}: no such file.", "Check the path; give a .jsonl or .json file.")
    return DataError(
        f"{path}: no such file. If a Hub dataset is meant: this version does not read those, "
        "and the Hub was not asked.",
        f"Download it (hf download {path} --repo-type dataset) and give a .jsonl or .json file.",
    )


def _folder(folder: Path) -> DataError:
    marks = ("config.json", "adapter_config.json", "run.lock")
    if any((folder / mark).is_file() for mark in marks):
        return DataError(
            f"{folder}: a folder with a model, an adapter or a run, not preference pairs.",
            "Give a .jsonl or .json file as --data; a model belongs to --model.",
        )
    names = sorted(p.name for p in folder.iterdir() if p.suffix in {".json", ".jsonl"})
    if not names:
        return DataError(f"{folder}: a folder without .jsonl or .json files.", "Name one file.")
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return DataError(
        f"{folder}: a folder; it holds {', '.join(names[:3])}{more}.",
        f"Name one file, such as {folder / names[0]}.",
    )


def _decode(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error}.", "Check the file.") from None
    for magic, kind in MAGIC.items():
        if data.startswith(magic):
            raise DataError(f"{file}: this is {kind}; not read by this version.", CONVERT)
    try:
        return data.decode("utf-8").lstrip(BOM)
    except UnicodeDecodeError:
        raise _not_utf8(data, file) from None


def _not_utf8(data: bytes, file: Path) -> DataError:
    # Files said to be Latin-1 are Windows-1252 in practice.
    encoding = "UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "WINDOWS-1252"
    problems, offset = [], 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            at = offset + error.start
            byte = f"0x{data[at]:02x}"
            problems.append(f"{file.name}:{number}: not UTF-8 ({byte} at byte offset {at})")
        offset += len(line) + 1
    return report_problems(
        problems, f"Convert the file to UTF-8; if it is {encoding}: iconv -f {encoding} -t UTF-8."
    )


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)


def _unique_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(items)
    if len(values) < len(items):
        names = [name for name, _ in items]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"key {twice!r} stands twice in one object")
    return values


def _refuse_constant(name: str) -> None:
    raise _Refused(f"{name} is not JSON")


PARSE_ERRORS = (ValueError, RecursionError)


def _reason(error: Exception) -> str:
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not isinstance(error, json.JSONDecodeError):
        return "a number has too many digits"
    before = error.doc[: error.pos].rstrip()
    if before.endswith(",") and error.doc[error.pos : error.pos + 1] in ("}", "]"):
        return "not JSON: trailing comma"
    return f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}"


def _non_blank_lines(text: str) -> Iterator[tuple[int, str]]:
    # Only "\n" ends a line: JSON text may hold U+2028 and the like, which splitlines() breaks at.
    for number, line in enumerate(text.split("\n"), start=1):
        if line := line.strip(f" \t\r{BOM}"):
            yield number, line


def _is_one_object_per_line(text: str, file: Path) -> bool:
    """Tell JSON lines from one JSON value, damaged ones included."""
    lines = _non_blank_lines(text)
    _, first = next(lines)
    try:
        starts_with_object = isinstance(_parse(first), dict)
    except PARSE_ERRORS:
        starts_with_object = False
    if starts_with_object:
        return next(lines, None) is not None
    try:
        _parse(text)
    except PARSE_ERRORS:
        pass
    else:
        return False
    ends = first.rstrip(",")[-1:]
    if first[0] in "{[":
        return ends == {"{": "}", "[": "]"}[first[0]]
    return file.suffix.lower() != ".json"


Found = Iterator[tuple[str, Any]]


def _read_lines(text: str, file: Path) -> Found:
    """Yield source and value of each line; for a bad line the value is a `_Refused`."""
    for number, line in _non_blank_lines(text):
        source = f"{file.name}:{number}"
        try:
            yield source, _parse(line)
        except json.JSONDecodeError as error:
            yield source, _Refused(f"column {error.colno}: {_reason(error)}")
        except PARSE_ERRORS as error:
            yield source, _Refused(_reason(error))


def _read_whole(text: str, file: Path) -> Found:
    try:
        value = _parse(text)
    except json.JSONDecodeError as error:
        where = f"{file.name}:{error.lineno}"
        yield where, _Refused(f"column {error.colno}: {_reason(error)}")
        return
    except PARSE_ERRORS as error:
        yield file.name, _Refused(_reason(error))
        return
    held = _held_list(value)
    if held is None:
        yield f"{file.name}:1", value
        return
    for index, item in enumerate(held):
        yield f"{file.name}[{index}]", item


def _held_list(value: Any) -> list[Any] | None:
    """Return a list itself, or the list in {"data": [...]}; None for a single row."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or "chosen" in value:
        return None
    lists = [v for v in value.values() if isinstance(v, list)]
    return lists[0] if len(lists) == 1 else None


def _checked(found: Found, might_hold_surrogates: bool) -> list[Row]:
    rows, problems = [], []
    for source, value in found:
        if isinstance(value, _Refused):
            joint = ", " if str(value).startswith("column") else ": "
            problems.append(f"{source}{joint}{value}")
        elif not isinstance(value, dict):
            problems.append(f"{source}: expected an object, found {kind_of(value)}")
        elif might_hold_surrogates and (field := _field_with_surrogate(value)):
            problems.append(f"{source}: {field} is not valid text (half of a surrogate pair)")
        else:
            rows.append(Row(value, source))
    if problems:
        raise report_problems(problems, "Correct or remove what is named; nothing was read.")
    return rows


def _field_with_surrogate(values: dict[str, Any]) -> str | None:
    for name, value in values.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode("utf-8")
        except (UnicodeEncodeError, RecursionError):
            return repr(name)
    return None
