"""CSV and Parquet: rows through pyarrow, a piece at a time.

A cell of a CSV is text. It becomes a number only in columns named like scores, and a list of
messages only where it is one in JSON; so "42" stays an answer.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from orpo_mlx.data.sources.json_files import (
    MAX_ROW_BYTES,
    SURROGATE_ESCAPE,
    Open,
    refuse_other_encodings,
)
from orpo_mlx.data.sources.rows import Problems, Row
from orpo_mlx.data.sources.unpacking import unpacked_limit
from orpo_mlx.errors import DataError, reason_of
from orpo_mlx.text.formatting import format_bytes

PARQUET_MAGIC = b"PAR1"
SCORE_COLUMN = re.compile(r"score|rating|reward|strength|label|votes|^rank$", re.IGNORECASE)
_ROWS_AT_A_TIME = 512
_BATCH_BYTES = 512 << 20
"""What the rows read at a time may unpack to at worst."""
_ROW_BYTES = 256
"""Least memory of a row in Python, however little it says."""
_VALUE_BYTES = 8
_CSV_BLOCK = 16 << 20


def _pyarrow(path: str) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise DataError(
            f"{path}: CSV and Parquet are read with pyarrow, which is not installed.",
            "pip install 'pyarrow>=18'",
        ) from None
    return pyarrow


# Parquet ------------------------------------------------------------------------------------------


def read_parquet(open_bytes: Open, path: str, name: str) -> list[Row]:
    """Read all rows of a Parquet file.

    Raises:
        DataError: it is damaged, incomplete or empty, unpacks to far more than it is, or pyarrow is
            not installed.
    """
    pyarrow = _pyarrow(path)
    with open_bytes() as stream:
        _require_whole(stream, path)
        try:
            rows = [
                Row(values, f"{name}:row {number}")
                for number, values in enumerate(_iter_parquet(stream, path), start=1)
            ]
        except DataError:
            raise
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            raise _damaged_parquet(path, reason_of(error)) from None
    if not rows:
        raise DataError(
            f"{path}: 0 rows; its table is empty.", "Give a file with preference pairs."
        )
    return rows


def _iter_parquet(stream: Any, path: str) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    limit = unpacked_limit(stream.seek(0, io.SEEK_END))
    stream.seek(0)
    file = parquet.ParquetFile(stream)
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    _require_bounded(sum(map(_footer_bytes, groups)), limit, path, "by its footer")
    unpacked = 0
    for number, group in enumerate(groups):
        # A dictionary says a long text once for all rows: no size in the footer foretells that.
        rows = _BATCH_BYTES // max(
            1, *(column.total_uncompressed_size for column in _columns(group))
        )
        batches = file.iter_batches(
            min(max(rows, 1), _ROWS_AT_A_TIME), row_groups=[number], use_threads=False
        )
        for batch in batches:
            unpacked += batch.nbytes + _ROW_BYTES * batch.num_rows
            _require_bounded(unpacked, limit, path, f"in row group {number + 1} of {len(groups)}")
            yield from batch.to_pylist()


def _columns(group: Any) -> list[Any]:
    return [group.column(i) for i in range(group.num_columns)]


def _footer_bytes(group: Any) -> int:
    """Return what a row group takes at least, as far as the footer says."""
    columns = _columns(group)
    said = max(group.total_byte_size, sum(column.total_uncompressed_size for column in columns))
    return said + _VALUE_BYTES * sum(column.num_values for column in columns)


def _require_bounded(size: int, limit: int, path: str, where: str) -> None:
    if size > limit:
        raise DataError(
            f"{path}: unpacks to {format_bytes(size)} and more ({where}); at most "
            f"{format_bytes(limit)} is read of a file of this size.",
            "Text does not pack so tightly. If you trust it, write it as JSON lines, one object "
            "per line, and give that.",
        )


def _require_whole(stream: Any, path: str) -> None:
    """Refuse what lacks the mark that Parquet files begin and end with."""
    start = stream.read(4)
    end = b""
    if start == PARQUET_MAGIC and stream.seek(0, io.SEEK_END) >= 12:
        stream.seek(-4, io.SEEK_END)
        end = stream.read(4)
    stream.seek(0)
    if start != PARQUET_MAGIC:
        raise _damaged_parquet(path, "it does not begin like one")
    if end != PARQUET_MAGIC:
        raise _damaged_parquet(path, "its end is missing")


def _damaged_parquet(path: str, reason: str) -> DataError:
    return DataError(
        f"{path}: not a complete Parquet file: {reason}.",
        "Download or write it again; a text file must not be named .parquet.",
    )


# CSV ----------------------------------------------------------------------------------------------


def read_csv(open_bytes: Open, path: str, name: str) -> list[Row]:
    """Read all rows of a CSV file with a header; commas, semicolons or tabs between the cells.

    Quoted cells may hold line breaks; rows are numbered as rows, the header not counted.

    Raises:
        DataError: rows with too few or too many cells (the first three are named, all are
            counted), two columns of one name, no rows, text that is not UTF-8, or pyarrow is not
            installed.
    """
    pyarrow = _pyarrow(path)
    columns, separator = _header(open_bytes, path, name)
    # Not left to pyarrow: of a refused row that is not UTF-8 it prints a traceback of its own.
    refuse_other_encodings(open_bytes, name)
    problems = Problems("Put cells that hold separators or line breaks in double quotes.")
    try:
        rows = [
            Row({column: _value(column, cell) for column, cell in cells.items()}, "")
            for cells in _iter_csv(open_bytes, columns, separator, name, problems)
        ]
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        refuse_other_encodings(open_bytes, name)
        raise DataError(
            f"{path}: not a sound CSV file: {reason_of(error)}",
            "Look for a quote that is never closed; write the file again with quoted cells.",
        ) from None
    problems.raise_any("rows")
    if not rows:
        raise DataError(
            f"{path}: 0 rows; it has only a header.", "Give a file with preference pairs."
        )
    return [Row(row.values, f"{name}:row {i}") for i, row in enumerate(rows, start=1)]


def _header(open_bytes: Open, path: str, name: str) -> tuple[list[str], str]:
    """Return the columns and what stands between them."""
    with open_bytes() as stream:
        raw = stream.readline(MAX_ROW_BYTES)
        while raw and not raw.strip():
            raw = stream.readline(MAX_ROW_BYTES)
    if not raw:
        raise DataError(f"{path}: 0 rows; it is empty.", "Give a file with preference pairs.")
    try:
        line = raw.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        refuse_other_encodings(open_bytes, name)
        raise
    separator = max(",;\t", key=line.count)
    try:
        columns = next(csv.reader([line], delimiter=separator))
    except csv.Error as error:
        raise DataError(
            f"{name}:1: the header cannot be read ({reason_of(error)}).",
            "Write the file again with columns in the first line and line ends as usual.",
        ) from None
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise DataError(
            f"{name}: two columns are named {twice!r}.", "Rename or remove one of them."
        )
    return columns, separator


def _iter_csv(
    open_bytes: Open, columns: list[str], separator: str, name: str, problems: Problems
) -> Iterator[dict[str, str]]:
    import pyarrow
    from pyarrow import csv as arrow_csv

    def refuse(row: Any) -> str:
        where = f"{name}:row {row.number - 1}" if row.number else name
        problems.add(
            f"{where}: {row.actual_columns} cells; the header has {row.expected_columns} columns"
        )
        return "skip"

    with open_bytes() as stream:
        reader = arrow_csv.open_csv(
            stream,
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
            parse_options=arrow_csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=refuse
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types={column: pyarrow.string() for column in columns},
                strings_can_be_null=False,
            ),
        )
        for batch in reader:
            yield from batch.to_pylist()


def _value(column: str, cell: str) -> Any:
    if SCORE_COLUMN.search(column):
        return _number(cell)
    if cell.startswith(("[{", "{")):
        return _messages(cell)
    return cell


def _number(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell or None


def _messages(cell: str) -> Any:
    """Return the turns a cell holds in JSON, or the cell itself."""
    try:
        value = json.loads(cell)
        if SURROGATE_ESCAPE.search(cell):  # half a character stays an escape in a text
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return cell
    turns = value if isinstance(value, list) else [value]
    return value if turns and all(map(_is_turn, turns)) else cell


def _is_turn(value: Any) -> bool:
    names = set(value) if isinstance(value, dict) else set()
    return {"role", "content"} <= names or {"from", "value"} <= names
