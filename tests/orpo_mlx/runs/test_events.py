"""The event file: complete lines only, whatever a kill left behind."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.measured import measured

from orpo_mlx.runs.events import (
    EVENT_TYPES,
    EventReader,
    EventWriter,
    NoteLogged,
    Paused,
    RunFinished,
    StepCompleted,
    decode,
    encode,
    read_events,
    read_last_events,
)


def step(number: int) -> StepCompleted:
    return StepCompleted(measured(1.0 / number, 0.5, 0.6, 0.1, -1.0, -1.2, 0.75, 0.2), step=number)


EVENTS = [
    NoteLogged("info", "ünïcödé 日本 🙂 \u2028 \r \n \x00"),
    step(1),
    Paused(1),
    step(2),
    RunFinished("completed", 2, 3.5, "adapter"),
]
LINES = [encode(event, now=100.0 + i).encode() for i, event in enumerate(EVENTS)]
DATA = b"".join(LINES)


def whole_events_before(cut: int) -> int:
    """How many lines end at or before a byte, counted without the code under test."""
    return DATA[:cut].count(b"\n")


@given(cut=st.integers(0, len(DATA)))
@settings(max_examples=300)
def test_any_cut_leaves_the_last_complete_state(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.write_bytes(DATA[:cut])
    expected = EVENTS[: whole_events_before(cut)]
    assert [record.event for record in read_events(path)] == expected
    assert [record.event for record in EventReader(path).poll()] == expected
    assert [record.event for record in read_last_events(path)] == expected


@given(cut=st.integers(0, len(DATA)))
@settings(max_examples=200)
def test_a_writer_after_a_cut_loses_no_event(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "continued.jsonl"
    path.write_bytes(DATA[:cut])
    reader = EventReader(path)
    before = reader.poll()
    writer = EventWriter(path)
    writer.write(Paused(9))
    writer.close()
    seen = [record.event for record in before + reader.poll()]
    assert seen[-1] == Paused(9)
    assert seen == [record.event for record in read_events(path)]
    assert seen[: whole_events_before(cut)] == EVENTS[: whole_events_before(cut)]


@given(size=st.integers(1, 400), pieces=st.lists(st.integers(1, 300), min_size=1, max_size=20))
def test_a_follower_sees_every_event_once_however_the_file_grows(
    size: int, pieces: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "growing.jsonl"
    path.write_bytes(b"")
    reader = EventReader(path, max_bytes=size)
    seen = []
    start = 0
    for piece in [*pieces, len(DATA)]:
        with path.open("ab") as file:
            file.write(DATA[start : start + piece])
        start += piece
        seen += reader.poll()
    while new := reader.poll():
        seen += new
    assert [record.event for record in seen] == EVENTS


def test_every_event_type_survives_writing(tmp_path: Path) -> None:
    assert {type(event).__name__ for event in EVENTS} <= set(EVENT_TYPES)
    writer = EventWriter(tmp_path / "e.jsonl")
    lines = [writer.write(event) for event in EVENTS]
    writer.sync()
    writer.close()
    assert (tmp_path / "e.jsonl").read_text(encoding="utf-8") == "".join(lines)


def test_unknown_fields_and_events_are_kept_apart() -> None:
    record = decode('{"event": "Paused", "step": 3, "mood": "fine", "time": 5}')
    assert record.event == Paused(3)
    assert record.raw["mood"] == "fine"
    assert decode('{"event": "Invented"}').event is None


def test_a_line_of_another_version_is_an_event_this_one_does_not_know() -> None:
    record = decode('{"event": "StepCompleted", "v": 1, "time": 5, "loss": 1.5, "step": 3}')
    assert (record.event, record.name, record.time) == (None, "StepCompleted", 5.0)


def test_a_metric_that_was_not_measured_is_no_number() -> None:
    event = StepCompleted({"loss": 1.5}, step=1)
    assert event.value("loss") == 1.5
    assert math.isnan(event.value("nll_loss"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_never_written(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(RunFinished("completed", 1, value, None))


def test_a_file_name_that_is_no_unicode_does_not_end_the_run(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "e.jsonl")
    writer.write(NoteLogged("info", os.fsdecode(b"caf\xe9")))
    writer.close()
    (record,) = read_events(tmp_path / "e.jsonl")
    assert record.event == NoteLogged("info", "caf\udce9")


def test_the_tail_of_a_big_file_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_bytes(b"".join(encode(step(n)).encode() for n in range(1, 3000)))
    records = read_last_events(path, max_bytes=4096)
    assert records[-1].event == step(2999)
    assert len(records) < 20


def test_a_last_event_larger_than_the_tail_is_found(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    long = NoteLogged("info", "x" * 10_000)
    path.write_bytes(encode(step(1)).encode() + encode(long).encode())
    assert read_last_events(path, max_bytes=64)[-1].event == long
    assert [r.event for r in EventReader(path, max_bytes=64).poll()][-1] == step(1)


def test_a_missing_file_has_no_events(tmp_path: Path) -> None:
    assert EventReader(tmp_path / "none").poll() == []
    assert read_last_events(tmp_path / "none") == []


def test_damaged_lines_between_whole_ones_cost_only_themselves(tmp_path):
    """Two halves that make JSON together, a line of two values, and what is no event."""
    path = tmp_path / "events.jsonl"
    whole = [encode(Paused(step), now=1.0) for step in range(3)]
    damaged = ['{"event": "Paused", "step": 1\n', '"v": 1}\n', "1, 2\n", "\n", "[3]\n"]
    path.write_text("".join([whole[0], *damaged, whole[1], whole[2]]))
    records = EventReader(path).poll()
    assert [record.event for record in records] == [Paused(0), Paused(1), Paused(2)]


def test_reading_a_long_run_costs_few_calls_for_an_event(tmp_path):
    """Attaching to 100,000 events depends on it; counted, as clocks differ."""
    path = tmp_path / "events.jsonl"
    path.write_text("".join(encode(step(number), now=1.0) for number in range(1, 3001)))
    calls = 0

    def count(frame, kind, argument):
        nonlocal calls
        calls += kind in ("call", "c_call")

    reader = EventReader(path, 1 << 22)
    sys.setprofile(count)
    try:
        found = reader.poll()
    finally:
        sys.setprofile(None)
    assert len(found) == 3000
    assert calls / 3000 < 22  # 20 counted, one look at JSON for a whole chunk among them
