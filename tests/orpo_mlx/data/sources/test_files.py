"""One file as rows: CSV, Parquet, gzip, and JSON that is too large to hold."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from orpo_mlx.data.sources import json_files, tables, unpacking
from orpo_mlx.data.sources.files import read_file
from orpo_mlx.errors import DataError

Write = Callable[..., Path]
GOOD = {"prompt": "a", "chosen": "b", "rejected": "c"}
CHAT = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_file(path)
    assert caught.value.what_to_do
    assert len(str(caught.value).splitlines()) <= 4
    return str(caught.value)


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


# Parquet ------------------------------------------------------------------------------------------


def test_parquet_gives_lists_of_messages_and_numbered_rows(write_file: Write) -> None:
    row = {"prompt": "Hi?", "chosen": CHAT, "rejected": CHAT, "score_chosen": 4.5}
    rows = read_file(write_file(as_parquet([row] * 3), "a.parquet"))
    assert [r.source for r in rows] == ["a.parquet:row 1", "a.parquet:row 2", "a.parquet:row 3"]
    assert rows[2].values == row


def test_parquet_is_recognised_by_its_content(write_file: Write) -> None:
    assert len(read_file(write_file(as_parquet([GOOD]), "a.jsonl"))) == 1


def test_row_28_a_cut_parquet_file_is_called_incomplete(write_file: Write) -> None:
    path = write_file(as_parquet([GOOD] * 50)[:-40], "a.parquet")
    assert f"{path}: not a complete Parquet file: its end is missing" in refusal(path)


def test_row_28_a_text_file_named_parquet_is_called_so(write_file: Write) -> None:
    message = refusal(write_file(json.dumps(GOOD), "a.parquet"))
    assert "not a complete Parquet file: it does not begin like one" in message
    assert "a text file must not be named .parquet" in message


@pytest.mark.parametrize("at", [20, 60, 300, -9])
def test_a_damaged_parquet_file_is_an_error_or_rows(write_file: Write, at: int) -> None:
    content = bytearray(as_parquet([GOOD] * 50))
    content[at] ^= 0xFF
    path = write_file(bytes(content), "a.parquet")
    problem, rows = "", []
    try:
        rows = read_file(path)
    except DataError as error:
        problem = str(error)
    assert "a.parquet" in problem if problem else len(rows) == 50


def test_row_29_without_pyarrow_the_command_that_installs_it_is_given(
    write_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    for name in ("a.parquet", "a.csv"):
        message = refusal(write_file(as_parquet([GOOD]) if "parquet" in name else "a\nb\n", name))
        assert "pyarrow, which is not installed" in message
        assert "pip install 'pyarrow" in message


# CSV ----------------------------------------------------------------------------------------------


def test_a_csv_keeps_text_and_reads_scores_and_messages(write_file: Write) -> None:
    chat = json.dumps(CHAT).replace('"', '""')
    text = f'prompt,chosen,rejected,score_chosen\n42,"{chat}",NA,4.5\nnull,x,"[1, 2]",\n'
    rows = read_file(write_file(text, "a.csv"))
    assert rows[0].values == {
        "prompt": "42", "chosen": CHAT, "rejected": "NA", "score_chosen": 4.5,
    }  # fmt: skip
    assert rows[1].values == {
        "prompt": "null", "chosen": "x", "rejected": "[1, 2]", "score_chosen": None,
    }  # fmt: skip


def test_rows_of_a_csv_with_line_breaks_in_cells_are_numbered_as_rows(write_file: Write) -> None:
    text = 'prompt,chosen,rejected\n"one\ntwo\n\nthree",b,c\n\nlast,e,f\n'
    rows = read_file(write_file(text, "a.csv"))
    assert [(r.source, r.values["prompt"]) for r in rows] == [
        ("a.csv:row 1", "one\ntwo\n\nthree"),
        ("a.csv:row 2", "last"),
    ]


@pytest.mark.parametrize(("separator", "name"), [(";", "a.csv"), ("\t", "a.tsv"), ("\t", "a.csv")])
def test_other_separators_are_seen_in_the_header(
    write_file: Write, separator: str, name: str
) -> None:
    text = f"prompt{separator}chosen{separator}rejected\na, b{separator}b{separator}c\n"
    assert read_file(write_file(text, name))[0].values == {**GOOD, "prompt": "a, b"}


def test_a_byte_order_mark_of_a_csv_is_passed_over(write_file: Write) -> None:
    text = b"\xef\xbb\xbfprompt,chosen,rejected\na,b,c\n"
    assert read_file(write_file(text, "a.csv"))[0].values == GOOD


def test_rows_with_a_wrong_number_of_cells_are_named_and_counted(write_file: Write) -> None:
    good = '"x\ny",b,c\n'
    text = "prompt,chosen,rejected\n" + good * 4 + "only,two\n" + good + "a,b,c,d\n" * 3
    message = refusal(write_file(text, "a.csv"))
    assert message.startswith("a.csv:row 5: 2 cells; the header has 3 columns\na.csv:row 7: 4")
    assert "(4 such rows in all)" in message


def test_a_csv_that_is_not_utf8_names_line_and_encoding(write_file: Write) -> None:
    message = refusal(write_file(b"prompt,chosen,rejected\na,caf\xe9,c\n", "a.csv"))
    # The header has 23 bytes; the bad one is number 5 of the next line.
    assert "a.csv:2: not UTF-8 (0xe9 at byte offset 28)" in message
    assert "WINDOWS-1252" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 rows"),
        ("\n\n", "0 rows"),
        ("prompt,chosen\n", "0 rows; it has only a header"),
        ("prompt,prompt\na,b\n", "two columns are named 'prompt'"),
        ('prompt,chosen\n"never closed,b\nc,d\n', "a.csv"),
    ],
)
def test_odd_csv_files_are_refused(write_file: Write, text: str, said: str) -> None:
    assert said in refusal(write_file(text, "a.csv"))


# gzip ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", (json.dumps(GOOD) + "\n").encode() * 2),
        ("a.json.gz", json.dumps([GOOD] * 2).encode()),
        ("a.csv.gz", b"prompt,chosen,rejected\na,b,c\na,b,c\n"),
        ("a.parquet.gz", as_parquet([GOOD] * 2)),
        ("a.jsonl", (json.dumps(GOOD) + "\n").encode() * 2),
    ],
)
def test_every_kind_is_also_read_packed(write_file: Write, name: str, content: bytes) -> None:
    rows = read_file(write_file(gzip.compress(content), name))
    assert [row.values for row in rows] == [GOOD] * 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "header only"])
def test_a_damaged_gzip_file_is_called_so(write_file: Write, damage: str) -> None:
    lines = "".join(json.dumps({**GOOD, "prompt": os.urandom(9).hex()}) + "\n" for _ in range(90))
    packed = bytearray(gzip.compress(lines.encode()))
    if damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    path = write_file(bytes(packed[: {"cut": -30, "header only": 5}.get(damage)]), "a.jsonl.gz")
    assert f"{path}: not a complete gzip file" in refusal(path)


def test_a_gzip_file_inside_another_is_refused(write_file: Write) -> None:
    path = write_file(gzip.compress(gzip.compress(b"{}")), "a.jsonl.gz")
    assert "a gzip file inside another" in refusal(path)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.parquet.gz"])
def test_what_unpacks_to_far_more_than_text_does_is_stopped(
    write_file: Write, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(unpacking, "MAX_UNPACKED_FLOOR", 1 << 16)
    start = {"a.csv.gz": b"a,b\n", "a.parquet.gz": b"PAR1", "a.json.gz": b"[\n"}.get(name, b"")
    path = write_file(gzip.compress(start + b"\n" * (4 << 20)), name)
    assert path.stat().st_size < 1 << 13
    message = refusal(path)
    assert "unpacks to more than 200 times its size" in message
    assert "gunzip" in message


def packed(table: dict[str, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(
        pyarrow.table(table), stream, compression="zstd", write_statistics=False, **options
    )
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "where"),
    [
        # 4 MB of one letter in pages that say so.
        (packed({"chosen": ["x" * 4000] * 1000}, use_dictionary=False), "by its footer"),
        # The same once in a dictionary, and a number for each row: the footer speaks of 4 kB.
        (packed({"chosen": ["x" * 4000] * 1000}), "in row group 1 of 1"),
        (packed({"chosen": ["x" * 4000] * 1000}, row_group_size=100), "in row group 2 of 10"),
        # Rows that hold nothing.
        (packed({"chosen": pyarrow.nulls(10**6, pyarrow.string())}), "by its footer"),
        (packed({"chosen": [[None] * 10**6]}), "by its footer"),
    ],
    ids=["pages", "dictionary", "row groups", "rows", "elements"],
)
def test_parquet_that_unpacks_without_bound_is_stopped(
    write_file: Write, monkeypatch: pytest.MonkeyPatch, content: bytes, where: str
) -> None:
    monkeypatch.setattr(unpacking, "MAX_UNPACKED_FLOOR", 1 << 19)
    path = write_file(content, "a.parquet")
    assert path.stat().st_size < 1 << 14
    message = refusal(path)
    assert "a.parquet: unpacks to" in message
    assert where in message
    assert "at most" in message
    assert "JSON lines" in message


def test_what_a_batch_of_rows_may_be_is_bounded_by_the_longest_text_it_may_hold(
    write_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded at once the dictionary of this file would be a hundred times what is allowed."""
    monkeypatch.setattr(tables, "_BATCH_BYTES", 1 << 20)
    sizes: list[int] = []
    monkeypatch.setattr(tables, "_require_bounded", lambda size, *_: sizes.append(size))
    rows = read_file(write_file(packed({"chosen": ["x" * (1 << 18)] * 400}), "a.parquet"))
    assert len(rows) == 400
    steps = [after - before for before, after in itertools.pairwise(sizes[1:])]
    assert max(steps) < 1.1 * (1 << 20)


def test_parquet_that_packs_as_text_does_is_read(write_file: Write) -> None:
    rows = [{**GOOD, "chosen": f"An answer of {n} words."} for n in range(20_000)]
    assert len(read_file(write_file(as_parquet(rows), "a.parquet"))) == 20_000


# Large JSON ---------------------------------------------------------------------------------------


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read lists in pieces of a few bytes, so that every item is cut somewhere."""
    monkeypatch.setattr(json_files, "_PIECE", 7)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_read_in_small_pieces_is_the_same_list(
    write_file: Write, small_pieces: None, indent: int | None
) -> None:
    items = [
        {"a": 'quote " and \\ slash', "n": [-1.5e3, 123456789, True, None]},
        {"b": "日本語 🙂\n", "empty": {}, "list": []},
        {},
    ]
    path = write_file(json.dumps(items, indent=indent, ensure_ascii=False), "a.json")
    assert [row.values for row in read_file(path)] == items


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[\n{"a": 1},\n{"a" 2}\n]', "a.json:3, column 6: not JSON: expecting ':' delimiter"),
        ('[{"a": 1},\n {"a": 2},\n]', "a.json:3, column 1: not JSON: trailing comma"),
        ('[{"a": 1}\n{"a": 2}]', "a.json:2, column 1: not JSON: expecting ',' delimiter"),
        ("[123456789, 2]", "a.json[0]: expected an object, found a number\na.json[1]: expected"),
        ('[\n{"a": 1}]\nmore', "a.json:3, column 1: not JSON: extra data"),
        ('[{"a": 1},\n  {"a": "cut', "a.json:2, column 9: not JSON: unterminated string"),
    ],
)
def test_a_fault_in_a_list_is_named_with_line_and_column(
    write_file: Write, small_pieces: None, text: str, said: str
) -> None:
    assert refusal(write_file(text, "a.json")).startswith(said)


def test_a_line_too_long_for_a_row_is_refused(
    write_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_files, "MAX_ROW_BYTES", 100)
    line = json.dumps(GOOD) + "\n"
    message = refusal(write_file(line * 2 + json.dumps({"a": "x" * 200}) + "\n"))
    assert message.startswith("train.jsonl:3: a line of more than")


def test_a_list_in_one_long_line_is_read(
    write_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_files, "MAX_ROW_BYTES", 100)
    assert len(read_file(write_file(json.dumps([GOOD] * 20), "a.json"))) == 20


def test_an_object_too_large_to_hold_says_how_to_make_lines(
    write_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_files, "MAX_WHOLE_BYTES", 100)
    path = write_file(json.dumps({"data": [GOOD] * 20}, indent=1), "a.json")
    assert "jq -c" in refusal(path)
