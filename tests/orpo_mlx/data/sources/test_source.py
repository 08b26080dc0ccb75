"""Files to rows, and what a user is told about files that cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orpo_mlx.data.sources.source import Choice, content_hash, find_data, read_members, read_rows
from orpo_mlx.errors import DataError

Write = Callable[..., Path]
GOOD = {"prompt": "a", "chosen": "b", "rejected": "c"}
LINE = json.dumps(GOOD)


def refusal(path: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert caught.value.what_to_do
    assert len(str(caught.value).splitlines()) <= 4
    return str(caught.value)


def test_json_lines_carry_their_line_number_and_blank_lines_are_passed_over(
    write_file: Write,
) -> None:
    rows = read_rows(write_file(f"{LINE}\n\n  \n{LINE}\r\n{LINE}"))
    assert [row.source for row in rows] == ["train.jsonl:1", "train.jsonl:4", "train.jsonl:5"]
    assert all(row.values == GOOD for row in rows)


def test_a_json_list_carries_positions(write_file: Write) -> None:
    rows = read_rows(write_file(json.dumps([GOOD, GOOD], indent=2), "set.json"))
    assert [row.source for row in rows] == ["set.json[0]", "set.json[1]"]


def test_a_json_list_named_jsonl_is_read_as_what_it_is(write_file: Write) -> None:
    assert len(read_rows(write_file(json.dumps([GOOD, GOOD])))) == 2


def test_json_lines_named_json_are_read_as_what_they_are(write_file: Write) -> None:
    rows = read_rows(write_file(f"{LINE}\n{LINE}\n", "set.json"))
    assert [row.source for row in rows] == ["set.json:1", "set.json:2"]


def test_an_object_that_holds_one_list_is_unpacked(write_file: Write) -> None:
    rows = read_rows(write_file(json.dumps({"version": 1, "data": [GOOD]}), "set.json"))
    assert [(row.source, row.values) for row in rows] == [("set.json[0]", GOOD)]


def test_a_single_row_with_a_list_of_turns_is_a_row(write_file: Write) -> None:
    row = {"conversations": [{"from": "human", "value": "a"}], "chosen": {}, "rejected": {}}
    assert [r.values for r in read_rows(write_file([row]))] == [row]


def test_a_byte_order_mark_is_accepted_silently(write_file: Write) -> None:
    rows = read_rows(write_file(b"\xef\xbb\xbf" + LINE.encode() + b"\n" + LINE.encode()))
    assert [row.values for row in rows] == [GOOD, GOOD]


def test_unusual_line_separators_inside_text_do_not_end_a_line(write_file: Write) -> None:
    row = {**GOOD, "prompt": "a\u2028b\x85c"}
    assert [r.values for r in read_rows(write_file([row, row]))] == [row, row]


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    assert "absent.jsonl: no such file" in refusal(tmp_path / "absent.jsonl")


def test_row_13_what_looks_like_a_hub_id_says_why_the_hub_did_not_help() -> None:
    message = refusal("argilla/dpo-mix-7k")
    assert "argilla/dpo-mix-7k: not in the cache, and HF_HUB_OFFLINE is set" in message


@pytest.mark.parametrize("content", ["", "\n \n\t\n", "[]"])
def test_a_file_without_rows_says_0_rows(write_file: Write, content: str) -> None:
    assert "train.jsonl: 0 rows" in refusal(write_file(content))


def test_a_trailing_comma_is_named_with_line_and_column(write_file: Write) -> None:
    message = refusal(write_file(f'{LINE}\n{{"prompt": "a",}}\n'))
    # {"prompt": "a",}   the brace after the comma is the 16th character
    assert "train.jsonl:2, column" in message
    assert "trailing comma" in message


def test_a_bad_first_line_is_still_a_line(write_file: Write) -> None:
    message = refusal(write_file(f'{{"prompt": "a" "b"}}\n{LINE}\n'))
    assert message.startswith("train.jsonl:1, column 16: not JSON")


def test_a_damaged_json_list_names_its_line(write_file: Write) -> None:
    message = refusal(write_file('[\n{"prompt": "a"},\n{"prompt" "b"}\n]', "set.json"))
    assert message.startswith("set.json:3, column 11: not JSON")


@pytest.mark.parametrize(
    ("line", "kind"), [("[1, 2]", "a list"), ("7", "a number"), ('"x"', "text")]
)
def test_a_line_that_is_no_object_is_named(write_file: Write, line: str, kind: str) -> None:
    message = refusal(write_file(f"{LINE}\n{line}\n"))
    assert f"train.jsonl:2: expected an object, found {kind}" in message


def test_an_item_that_is_no_object_is_named(write_file: Write) -> None:
    message = refusal(write_file("[[1], 2]"))
    assert "train.jsonl[0]: expected an object, found a list" in message


def test_the_first_three_bad_lines_are_shown_with_the_count(write_file: Write) -> None:
    message = refusal(write_file(f"{LINE}\n" + "x\n" * 5))
    assert [line.split(",")[0] for line in message.splitlines()[:3]] == [
        "train.jsonl:2",
        "train.jsonl:3",
        "train.jsonl:4",
    ]
    assert "5 such lines in all" in message


def test_invalid_utf8_names_line_byte_offset_and_an_encoding(write_file: Write) -> None:
    line = b'{"a": 1}\n'  # 9 bytes
    message = refusal(write_file(line + line + b'{"a": "caf\xe9"}\n'))
    # Two lines of 9 bytes, then {"a": "caf is 10 bytes: the bad byte is number 28.
    assert "train.jsonl:3: not UTF-8 (0xe9 at byte offset 28)" in message
    assert "iconv -f WINDOWS-1252" in message


def test_what_is_no_text_at_all_is_not_said_to_be_windows_1252(write_file: Write) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(write_file(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"))
    assert "no text in any usual encoding" in caught.value.what_to_do


def test_utf16_is_recognised(write_file: Write) -> None:
    assert "UTF-16" in refusal(write_file(LINE.encode("utf-16")))


def test_a_lone_surrogate_is_not_valid_text(write_file: Write) -> None:
    message = refusal(write_file(f'{LINE}\n{{"prompt": "a", "chosen": "\\ud800"}}\n'))
    assert "train.jsonl:2: 'chosen' is not valid text" in message


def test_a_surrogate_pair_is_text(write_file: Write) -> None:
    rows = read_rows(write_file('{"prompt": "\\ud83d\\ude42"}\n'))
    assert rows[0].values == {"prompt": "🙂"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": ' + "9" * 5000 + "}", "too many digits"),
        ('{"a": ' + "[" * 100_000 + "}", "nested too deeply"),
    ],
)
def test_what_the_json_reader_lets_pass_or_chokes_on_is_refused(
    write_file: Write, line: str, reason: str
) -> None:
    message = refusal(write_file(f"{LINE}\n{line}\n"))
    assert "train.jsonl:2" in message
    assert reason in message


@pytest.mark.parametrize("name", ["a.xlsx", "a.arrow", "a.jsonl.zst", "a.zip"])
def test_kinds_that_are_not_read_say_so(write_file: Write, name: str) -> None:
    message = refusal(write_file("x", name))
    assert f"{name}: .{name.split('.')[-1]} files are not read" in message
    assert "Convert it to JSONL" in message


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04abc", "a zip file or a spreadsheet"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git-LFS pointer"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"BZh91AY", "a bzip2 file"),
    ],
)
def test_another_kind_under_a_known_name_is_recognised(
    write_file: Write, content: bytes, kind: str
) -> None:
    assert f"train.jsonl: this is {kind}" in refusal(write_file(content))


def test_a_folder_with_train_and_valid_files_gives_both(write_file: Write, tmp_path: Path) -> None:
    for name, count in (("train.jsonl", 3), ("valid.jsonl", 2), ("test.jsonl", 1)):
        write_file([GOOD] * count, name)
    source = find_data(str(tmp_path))
    assert [len(rows) for rows in read_members(source.members)] == [3]
    assert [len(rows) for rows in read_members(source.valid)] == [2]
    assert [len(rows) for rows in read_members(find_data(str(tmp_path), role="valid").members)] == [
        2
    ]
    assert len(read_members(find_data(str(tmp_path), Choice(split="test")).members)[0]) == 1


def test_a_folder_with_one_file_is_that_file(write_file: Write, tmp_path: Path) -> None:
    write_file([GOOD, GOOD], "pairs.jsonl")
    assert len(read_rows(tmp_path)) == 2


def test_files_of_a_folder_that_may_not_belong_together_are_named(
    write_file: Write, tmp_path: Path
) -> None:
    write_file([GOOD], "mine.jsonl")
    write_file([GOOD], "yours.jsonl")
    message = refusal(tmp_path)
    assert "several files, and none is named train: mine.jsonl, yours.jsonl" in message
    assert str(tmp_path / "mine.jsonl") in message


def test_parts_of_a_folder_are_joined_and_named_apart(write_file: Write, tmp_path: Path) -> None:
    write_file([GOOD], "train-00000-of-00002.jsonl")
    assert "1 of the 2 parts of train" in refusal(tmp_path)
    write_file([GOOD, GOOD], "train-00001-of-00002.jsonl")
    assert [row.source for row in read_rows(tmp_path)] == [
        "train-00000-of-00002.jsonl:1",
        "train-00001-of-00002.jsonl:1",
        "train-00001-of-00002.jsonl:2",
    ]


def test_a_folder_without_data_says_what_is_read(tmp_path: Path) -> None:
    assert "a folder without data files" in refusal(tmp_path)
    assert ".parquet" in refusal(tmp_path)


def test_a_link_out_of_a_folder_is_not_followed(write_file: Write, tmp_path: Path) -> None:
    outside = write_file([GOOD], "outside.jsonl")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train.jsonl").symlink_to(outside)
    assert "a link that leads out of the folder" in refusal(tmp_path / "folder")


def test_the_links_of_a_downloaded_snapshot_are_followed(write_file: Write, tmp_path: Path) -> None:
    blob = write_file([GOOD], "blob")
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (tmp_path / "datasets--a--b" / "blobs").mkdir()
    blob.rename(tmp_path / "datasets--a--b" / "blobs" / "1234")
    (snapshot / "train.jsonl").symlink_to("../../blobs/1234")
    assert len(read_rows(snapshot)) == 1


def test_several_files_keep_their_rows_apart(write_file: Write) -> None:
    first, second = write_file([GOOD] * 3, "a.jsonl"), write_file([GOOD] * 2, "b.jsonl")
    source = find_data(f"{first},{second}")
    assert [len(rows) for rows in read_members(source.members)] == [3, 2]
    assert len(read_rows(f"{first},{second}")) == 5


def test_shares_are_drawn_by_seed_and_kept_in_order(write_file: Write) -> None:
    many = write_file([{**GOOD, "prompt": str(i)} for i in range(60)], "a.jsonl")
    few = write_file([GOOD] * 10, "b.jsonl")
    source = find_data(f"{many}:3,{few}:1")
    first, second = read_members(source.members, seed=1)
    # Three to one: b is used whole, so thirty of a.
    assert (len(first), len(second)) == (30, 10)
    drawn = [int(row.values["prompt"]) for row in first]
    assert drawn == sorted(set(drawn))
    assert read_members(source.members, seed=1)[0] == first
    assert read_members(source.members, seed=2)[0] != first


def test_the_hash_of_a_mixture_follows_content_and_shares(write_file: Write) -> None:
    first, second = write_file([GOOD] * 3, "a.jsonl"), write_file([GOOD] * 2, "b.jsonl")
    hashes = {
        find_data(name).content_hash()
        for name in (str(first), f"{first},{second}", f"{first}:2,{second}:1", f"{second},{first}")
    }
    assert len(hashes) == 4
    assert find_data(str(first)).content_hash() == content_hash(first)


@pytest.mark.timeout(5)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_refused_without_opening_it(tmp_path: Path) -> None:
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    assert "not a regular file" in refusal(path)


def test_the_content_hash_is_the_sha256_of_the_bytes(write_file: Write) -> None:
    path = write_file(b"some bytes")
    assert content_hash(path) == hashlib.sha256(b"some bytes").hexdigest()


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cut=st.integers(0, 400),
    junk=st.binary(max_size=6),
    drop=st.integers(0, 20),
    name=st.sampled_from(["a.json", "a.jsonl"]),
    listed=st.booleans(),
)
def test_any_damage_is_a_clear_error_or_rows(
    tmp_path: Path, cut: int, junk: bytes, drop: int, name: str, listed: bool
) -> None:
    whole = json.dumps([GOOD] * 3, indent=1) if listed else f"{LINE}\n" * 5
    data = whole.encode()
    path = tmp_path / name
    path.write_bytes(data[:cut] + junk + data[cut + drop :])
    problem = None
    try:
        assert read_rows(path)
    except DataError as error:
        problem = str(error)
    assert problem is None or ("a.json" in problem and len(problem.splitlines()) <= 4)
