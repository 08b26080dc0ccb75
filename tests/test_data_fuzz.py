"""Damaged and strange data files: an answer in plain words, in time, and every row accounted for.

Each case is a number: the seed of what the file holds and of how it is damaged, so a failure can be
repeated. Half of the cases damage values and columns, half the bytes of the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orpo_mlx.data.layouts.detect import LayoutChoice, detect_layout, to_pairs
from orpo_mlx.data.sources.source import read_rows
from orpo_mlx.data.types import Account
from orpo_mlx.data.writing import json_line, normal_row
from orpo_mlx.errors import OrpoError
from orpo_mlx.preferences.material import read_material
from orpo_mlx.preferences.questions import KINDS

SECONDS = 10
FORMATS = ("jsonl", "json", "csv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "parquet.gz")
LAYOUTS = Path(__file__).parent / "data" / "layouts"

STRANGE: list[Any] = [
    None, True, False, 0, -1, 3.5, 1e308, 10**400, "", " ", "\n", "\x00", "é", "\u2028", "\ufeff",
    "😀", "\ud800", "null", "[", "{}", "[]", '[{"role": "user"}]', '{"a":', "NaN", float("nan"),
    float("inf"), [], {}, [[]], [None], [{}], {"role": "user"}, {"role": "bot", "content": "x"},
    [{"role": "user", "content": "x"}], [{"from": "gpt", "value": None}], {"content": ["x"]},
    [{"role": "assistant", "content": [{"type": "image"}]}], "tie", "model_a", -2, "\n\nHuman: x",
    "\n\nHuman:\n\nAssistant:", [1, 2, 3], [2**31], ["a", "b"], "x" * 5000, {"x": {"y": {"z": []}}},
]  # fmt: skip
COLUMNS = [
    "prompt", "chosen", "rejected", "question", "instruction", "input", "system", "tools",
    "messages", "conversations", "score_chosen", "score_rejected", "response_1", "response_2",
    "responses", "ranks", "preference_strength", "winner", "status", "completion", "labels", "",
    "a.b", "scores", "prompt_ids",
]  # fmt: skip


def sample_rows(rng: random.Random) -> list[dict[str, Any]]:
    """Rows of one of the known layouts, as they should be."""
    path = rng.choice(sorted(LAYOUTS.glob("*.json*")))
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if text.startswith("[") else [json.loads(x) for x in text.splitlines()]
    return rng.sample(rows, rng.randint(1, len(rows)))


def strange_values(rows: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """Put strange values at strange places, rename and drop columns."""
    rows = json.loads(json.dumps(rows))
    for _ in range(rng.randint(1, 4)):
        row = rng.choice(rows)
        holder, key = row, rng.choice([*row, *COLUMNS])
        while isinstance(holder.get(key), dict | list) and holder[key] and rng.random() < 0.6:
            inner = holder[key]
            if isinstance(inner, list):
                item = rng.randrange(len(inner))
                if not isinstance(inner[item], dict):
                    inner[item] = rng.choice(STRANGE)
                    break
                inner = inner[item]
            if not inner:
                break
            holder, key = inner, rng.choice(list(inner))
        deed = rng.random()
        if deed < 0.65:
            holder[key] = rng.choice(STRANGE)
        elif deed < 0.8:
            holder.pop(key, None)
        else:
            holder[rng.choice(COLUMNS)] = holder.pop(key, None)
    return rows


def as_bytes(rows: list[dict[str, Any]], kind: str, rng: random.Random) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "json":
        held = {"data": rows} if rng.random() < 0.3 else rows
        return json.dumps(held, indent=rng.choice([None, 1])).encode()
    if kind == "csv":
        return as_csv(rows)
    sink = io.BytesIO()
    try:
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, sink)
    except (pa.ArrowException, ValueError, TypeError, OverflowError, UnicodeError):
        texts = [{k: json.dumps(v) for k, v in row.items()} for row in rows]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(texts), sink)
    return sink.getvalue()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(columns)
    for row in rows:
        cells = (row.get(name) for name in columns)
        writer.writerow([c if isinstance(c, str) else json.dumps(c) for c in cells])
    return stream.getvalue().encode("utf-8", "surrogatepass")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, repeat and swap some bytes."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if not found:
            break
        at, deed = rng.randrange(len(found)), rng.randrange(6)
        if deed == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif deed == 1:
            del found[at:]
        elif deed == 2:
            del found[at : at + rng.randint(1, 30)]
        elif deed == 3:
            found[at:at] = rng.choice(
                [b"\x00", b"\xff", b'"', b"{", b"[", b"\n", b",", b"\\", b"\xef\xbb\xbf"]
            )
        elif deed == 4:
            found[at:at] = found[at : at + rng.randint(1, 200)]
        else:
            found[at : at + 4] = bytes(rng.randrange(256) for _ in range(4))
    return bytes(found)


def make_file(folder: Path, case: int, name: str) -> Path:
    rng = random.Random(f"{name} {case}")
    kind = name.removesuffix(".gz")
    rows = sample_rows(rng)
    breaks_bytes = case % 2 == 1
    if not breaks_bytes or rng.random() < 0.2:
        rows = strange_values(rows, rng)
    data = as_bytes(rows, kind, rng)
    if breaks_bytes and rng.random() < 0.7:
        data = damaged(data, rng)
    if name.endswith(".gz"):
        data = gzip.compress(data, 1)
        if breaks_bytes and rng.random() < 0.5:
            data = damaged(data, rng)
    path = folder / f"case.{name}"
    path.write_bytes(data)
    return path


@contextmanager
def time_limit() -> Iterator[None]:
    def too_long(*_: Any) -> None:
        raise TimeoutError

    old = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def attempt(work: Callable[[], None]) -> bool:
    """Do something; it may be refused, but only in plain words. Returns whether it was done."""
    try:
        work()
    except OrpoError as error:
        refused = error
    else:
        return True
    assert refused.exit_code == 2
    assert refused.message.strip()
    assert refused.what_to_do.strip()
    assert len(str(refused).splitlines()) <= 6
    return False


def look_at(path: Path, case: int) -> tuple[bool, bool]:
    """Read a file and convert it; returns whether it was read, and whether pairs came out."""
    rows: list[Any] = []
    if not attempt(lambda: rows.extend(read_rows(path))):
        return False, False
    choice = LayoutChoice(keep_ties=case % 3 == 0, keep_inverted=case % 5 == 0)
    came_out = attempt(lambda: convert(rows, choice))
    mapped = {"prompt": "prompt[0].content", "chosen": "chosen[-1].content", "rejected": "rejected"}
    attempt(lambda: convert(rows, LayoutChoice(None, mapped)))
    for kind in (None, KINDS[case % 4]):
        attempt(lambda kind=kind: check_material(rows, kind))
    return True, came_out


def convert(rows: list[Any], choice: LayoutChoice) -> None:
    account = Account()
    layout = detect_layout(rows, choice)
    try:
        pairs = to_pairs(rows, layout, account)
    finally:
        assert account.read == len(rows)
    assert account.read == len(pairs) + sum(account.dropped.values())
    for pair in pairs:
        json_line(normal_row(pair)).encode("utf-8")


def check_material(rows: list[Any], kind: Any) -> None:
    account = read_material(rows, kind).account
    assert account.read == len(rows) == account.kept + sum(account.dropped.values())


def fuzz(folder: Path, name: str, cases: range) -> None:
    read = came_out = 0
    for case in cases:
        path = make_file(folder, case, name)
        try:
            with time_limit():
                was_read, made_pairs = look_at(path, case)
        except BaseException as error:
            error.add_note(f"case {case} of {name}")
            raise
        read += was_read
        came_out += made_pairs
    # Neither all refused nor all accepted: else the damage would be no test.
    assert 0.1 * len(cases) < came_out < 0.9 * len(cases)
    assert came_out <= read < len(cases)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_answered_in_plain_words_and_accounted_for(
    name: str, tmp_path: Path
) -> None:
    fuzz(tmp_path, name, range(250))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_ten_thousand_damaged_files_are_answered_too(name: str, tmp_path: Path) -> None:
    fuzz(tmp_path, name, range(250, 1500))
