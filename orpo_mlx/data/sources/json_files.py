"""JSON lines, a JSON list, or an object that holds one list: rows, every bad line named.

What a file holds is decided by its content, so a list named `.jsonl` is read as what it is. Lines
and lists are read piece by piece; only an object around a list is read whole.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from orpo_mlx.data.sources.rows import Problems, Row, kind_of
from orpo_mlx.errors import DataError

Open = Callable[[], BinaryIO]
"""Opens the same bytes again, from the start."""

BOM = "\ufeff"
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
MAX_ROW_BYTES = 64 << 20
MAX_WHOLE_BYTES = 1 << 30
_PIECE = 1 << 20
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_BLANK_BYTES = b" \t\r\n\xef\xbb\xbf"
CORRECT = "Correct or remove what is named; nothing was read."


class _Refused(ValueError):
    """Valid for Python's JSON reader, not for us; the message is the reason."""


def read_json(open_bytes: Open, path: str, name: str, is_named_json: bool) -> list[Row]:
    """Read rows from JSON in any of its forms. Blank lines and a byte-order mark are passed over.

    Args:
        open_bytes: gives the file's bytes.
        path: of the file, for messages about all of it.
        name: of the file, in the rows' sources.
        is_named_json: whether it is called `.json`, which decides what a damaged file was to be.

    Raises:
        DataError: bad lines (the first three are named, all are counted), no rows, or text that is
            not UTF-8.
    """
    first, is_alone = _first_line(open_bytes, path)
    try:
        line = first.decode("utf-8").strip(f" \t\r\n{BOM}")
    except UnicodeDecodeError:
        return _read_lines(open_bytes, name)  # every such line is named there
    ends = line.rstrip(",")[-1:]
    if line[0] == "[":
        rows = _read_list(open_bytes, name, might_be_lines=ends == "]")
    elif _is_one_object(open_bytes, path, line, is_alone) if line[0] == "{" else is_named_json:
        rows = _read_whole(open_bytes, path, name)
    else:
        rows = _read_lines(open_bytes, name)
    if not rows:
        raise DataError(f"{path}: 0 rows; its list is empty.", "Give a file with preference pairs.")
    return rows


def _first_line(open_bytes: Open, path: str) -> tuple[bytes, bool]:
    """Return the first line that is not blank, its beginning if it is long, and if it is alone."""
    with open_bytes() as stream:
        is_empty = True
        while raw := stream.readline(MAX_ROW_BYTES):
            is_empty = False
            if line := raw.strip(_BLANK_BYTES):
                break
        else:
            found = "it is empty" if is_empty else "it has only blank lines"
            raise DataError(f"{path}: 0 rows; {found}.", "Give a file with preference pairs.")
        if len(raw) == MAX_ROW_BYTES:
            # A list or object in one long line; anything else is too long for a row.
            return line[: 1 if line[:1] in b"[{" else None], True
        while raw := stream.readline(_PIECE):
            if raw.strip(_BLANK_BYTES):
                return line, False
    return line, True


def _is_one_object(open_bytes: Open, path: str, first: str, is_alone: bool) -> bool:
    """Tell one object in many lines from JSON lines, damaged ones included."""
    try:
        _parse(first)
    except PARSE_ERRORS:
        pass
    else:
        return is_alone
    if first.rstrip(",")[-1:] != "}":
        return True
    try:
        _parse(_whole_text(open_bytes, path))
    except PARSE_ERRORS:
        return False
    return True


# Parsing ------------------------------------------------------------------------------------------


def _unique_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(items)
    if len(values) < len(items):
        names = [name for name, _ in items]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"key {twice!r} stands twice in one object")
    return values


def _refuse_constant(name: str) -> None:
    raise _Refused(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
PARSE_ERRORS = (ValueError, RecursionError)


def _parse(text: str) -> Any:
    return _DECODER.decode(text)


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


def _refusal(error: Exception) -> _Refused:
    if isinstance(error, json.JSONDecodeError):
        return _Refused(f"column {error.colno}: {_reason(error)}")
    return _Refused(_reason(error))


# Lines --------------------------------------------------------------------------------------------


def _numbered_lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, byte offset and content of each line, a line of any length refused."""
    # Only "\n" ends a line: JSON text may hold U+2028 and the like.
    number, offset = 1, 0
    while raw := stream.readline(MAX_ROW_BYTES + 1):
        if len(raw) > MAX_ROW_BYTES:
            raise DataError(
                f"{name}:{number}: a line of more than {MAX_ROW_BYTES >> 20} MB; "
                "a preference pair is not that long.",
                "Check what the file holds; give one pair per line.",
            )
        yield number, offset, raw
        number, offset = number + 1, offset + len(raw)


def _read_lines(open_bytes: Open, name: str) -> list[Row]:
    """Read one object per line; every bad line is counted, text that is not UTF-8 first of all."""
    rows: list[Row] = []
    problems, undecodable = Problems(CORRECT), None
    with open_bytes() as stream:
        for number, offset, raw in _numbered_lines(stream, name):
            try:
                line = raw.decode("utf-8").strip(f" \t\r\n{BOM}")
            except UnicodeDecodeError as error:
                undecodable = undecodable or Problems(_encoding_advice(open_bytes))
                undecodable.add(_bad_byte(name, number, offset, raw, error))
                continue
            if line and not undecodable:
                _take(f"{name}:{number}", _parsed(line), line, rows, problems)
    if undecodable:
        undecodable.raise_any()
    problems.raise_any()
    return rows


def _parsed(line: str) -> Any:
    try:
        return _parse(line)
    except PARSE_ERRORS as error:
        return _refusal(error)


def _take(source: str, value: Any, text: str | None, rows: list[Row], problems: Problems) -> None:
    """Keep a value as a row, or say what is wrong with it.

    Args:
        text: what the value was parsed from, if known: only an escape can make half a character.
    """
    might_be_half = text is None or ("\\u" in text and SURROGATE_ESCAPE.search(text) is not None)
    if isinstance(value, _Refused):
        joint = ", " if str(value).startswith("column") else ": "
        problems.add(f"{source}{joint}{value}")
    elif not isinstance(value, dict):
        problems.add(f"{source}: expected an object, found {kind_of(value)}")
    elif might_be_half and (field := _field_with_surrogate(value)):
        problems.add(f"{source}: {field} is not valid text (half of a surrogate pair)")
    else:
        rows.append(Row(value, source))


def _field_with_surrogate(values: dict[str, Any]) -> str | None:
    for name, value in values.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode("utf-8")
        except (UnicodeEncodeError, RecursionError):
            return repr(name)
    return None


# Encoding -----------------------------------------------------------------------------------------


def _encoding_advice(open_bytes: Open) -> str:
    with open_bytes() as stream:
        start = stream.read(4096)
    is_utf16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not is_utf16 and _NO_TEXT.search(start):
        return "It is no text in any usual encoding; check what it is, or download it again."
    # Files said to be Latin-1 are Windows-1252 in practice.
    encoding = "UTF-16" if is_utf16 else "WINDOWS-1252"
    return f"Convert the file to UTF-8; if it is {encoding}: iconv -f {encoding} -t UTF-8."


def _bad_byte(name: str, number: int, offset: int, raw: bytes, error: UnicodeDecodeError) -> str:
    at = offset + error.start
    return f"{name}:{number}: not UTF-8 (0x{raw[error.start]:02x} at byte offset {at})"


def refuse_other_encodings(open_bytes: Open, name: str) -> None:
    """Name every line that is not UTF-8.

    Raises:
        DataError: there are such lines.
    """
    problems = None
    with open_bytes() as stream:
        for number, offset, raw in _numbered_lines(stream, name):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                problems = problems or Problems(_encoding_advice(open_bytes))
                problems.add(_bad_byte(name, number, offset, raw, error))
    if problems:
        problems.raise_any()


# One value ----------------------------------------------------------------------------------------


def _whole_text(open_bytes: Open, path: str) -> str:
    with open_bytes() as stream:
        data = stream.read(MAX_WHOLE_BYTES + 1)
    if len(data) > MAX_WHOLE_BYTES:
        raise DataError(
            f"{path}: one JSON object of more than {MAX_WHOLE_BYTES >> 30} GB.",
            "Convert it to JSONL, which is read line by line: jq -c '.data[]' FILE > FILE.jsonl",
        )
    return data.decode("utf-8").lstrip(BOM)


def _read_whole(open_bytes: Open, path: str, name: str) -> list[Row]:
    problems, rows = Problems(CORRECT), []
    try:
        value = _parse(_whole_text(open_bytes, path))
    except DataError:
        raise
    except UnicodeDecodeError:
        refuse_other_encodings(open_bytes, name)
        raise
    except json.JSONDecodeError as error:
        raise DataError(f"{name}:{error.lineno}, {_refusal(error)}", CORRECT) from None
    except PARSE_ERRORS as error:
        raise DataError(f"{name}: {_refusal(error)}", CORRECT) from None
    held = _held_list(value)
    if held is None:
        _take(f"{name}:1", value, None, rows, problems)
    for index, item in enumerate(held or []):
        _take(f"{name}[{index}]", item, None, rows, problems)
    problems.raise_any()
    return rows


ROW_COLUMNS = {"chosen", "prompt", "question", "instruction", "messages", "conversations"}
"""An object with one of these is a row, though it may hold a list, too."""


def _held_list(value: Any) -> list[Any] | None:
    """Return a list itself, or the list in {"data": [...]}; None for a single row."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or not value.keys().isdisjoint(ROW_COLUMNS):
        return None
    lists = [v for v in value.values() if isinstance(v, list)]
    if len(lists) != 1:
        return None
    # Beside other columns, a list of texts or numbers is a column of one row.
    holds_rows = len(value) == 1 or not lists[0] or isinstance(lists[0][0], dict)
    return lists[0] if holds_rows else None


def _read_list(open_bytes: Open, name: str, might_be_lines: bool) -> list[Row]:
    """Read a list without ever holding its text.

    Args:
        might_be_lines: whether a damaged list is taken for JSON lines.
    """
    problems, rows = Problems(CORRECT), []
    with open_bytes() as stream:
        window = _Window(stream)
        try:
            for index, item in enumerate(window.items()):
                _take(f"{name}[{index}]", item, None, rows, problems)
        except DataError:
            raise
        except UnicodeDecodeError:
            refuse_other_encodings(open_bytes, name)
            raise
        except PARSE_ERRORS as error:
            if might_be_lines:
                return _read_lines(open_bytes, name)
            line, column = window.place(error)
            problems.add(f"{name}:{line}, column {column}: {_reason(error)}")
    problems.raise_any()
    return rows


class _Window:
    """The part of a JSON list that is looked at now."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._is_at_end = False
        self._text, self._at = "", 0
        self._line, self._column = 1, 0
        self._size = _PIECE

    def items(self) -> Iterator[Any]:
        """Yield item after item.

        Raises:
            ValueError, RecursionError: of the JSON reader.
        """
        self._fill()
        self._text = self._text.removeprefix(BOM)
        self._skip_blanks()
        self._at += 1  # the opening bracket
        if self._skip_blanks() == "]":
            return self._require_end()
        while True:
            yield self._item()
            mark = self._skip_blanks()
            if mark == "]":
                return self._require_end()
            if mark != ",":
                raise json.JSONDecodeError("Expecting ',' delimiter", self._text, self._at)
            self._at += 1
            after = self._skip_blanks()
            if after == "]":
                raise _Refused("not JSON: trailing comma")
            if not after:
                raise json.JSONDecodeError("Expecting value", self._text, self._at)

    def place(self, error: Exception) -> tuple[int, int]:
        """Return line and column of an error in the file, both from 1; at least of its item."""
        at = error.pos if isinstance(error, json.JSONDecodeError) else self._at
        before = self._text[:at]
        if "\n" in before:
            return self._line + before.count("\n"), at - before.rindex("\n")
        return self._line, self._column + at + 1

    def _item(self) -> Any:
        while True:
            try:
                item, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Cut off by the window, unless the fault is well inside.
                is_cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - 16
                if self._is_at_end or not is_cut or len(self._text) - self._at > MAX_ROW_BYTES:
                    raise
            else:
                if end < len(self._text) or self._is_at_end:
                    self._at = end
                    return item
            self._size *= 2
            self._fill()

    def _skip_blanks(self) -> str:
        """Go to the next character that is not blank and return it, "" at the end."""
        while True:
            while self._text[self._at : self._at + 1] in (" ", "\n", "\r", "\t"):
                self._at += 1
            if self._at < len(self._text) or self._is_at_end:
                return self._text[self._at : self._at + 1]
            self._size = _PIECE
            self._fill()

    def _require_end(self) -> None:
        self._at += 1
        if self._skip_blanks():
            raise json.JSONDecodeError("Extra data", self._text, self._at)

    def _fill(self) -> None:
        """Forget what was read and read on."""
        gone, self._text = self._text[: self._at], self._text[self._at :]
        self._at = 0
        if "\n" in gone:
            self._line += gone.count("\n")
            self._column = len(gone) - gone.rindex("\n") - 1
        else:
            self._column += len(gone)
        data = self._stream.read(self._size)
        self._is_at_end = len(data) < self._size
        self._text += self._decode(data, self._is_at_end)
