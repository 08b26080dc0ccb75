"""A checkup on the terminal: what is learned stands out, long texts are shortened."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from orpo_mlx.cli.data.checkup_text import Line, checkup_lines, pair_lines
from orpo_mlx.cli.progress import ProgressLine


def tokens(*texts: str, special: str = "<e>") -> list[dict[str, Any]]:
    return [{"id": i, "text": text, "special": text == special} for i, text in enumerate(texts)]


def pair(**parts: Any) -> dict[str, Any]:
    texts = {"where": "f:1", "prompt": "p", "chosen": "c", "rejected": "r", "dropped": ""}
    shown = {"prompt": tokens("Hi", "\n"), "chosen": tokens("Yo", "<e>"), "rejected": tokens("<e>")}
    return {**texts, "tokens": {**shown, **parts}}


def plain(lines: Iterator[Line]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def test_the_prompt_is_dim_what_is_learned_is_bold_and_the_boundary_is_written() -> None:
    lines = list(pair_lines(pair()))
    assert plain(iter(lines)) == [
        "pair     f:1",
        "prompt     Hi·↵||",
        "           2 tokens, not learned; answers begin at ||",
        "chosen     ||Yo·<e>",
        "           2 tokens, learned",
        "rejected   ||<e>",
        "           1 token, learned",
    ]
    assert lines[1][1:] == [("Hi·", "dim"), ("↵", "dim"), ("||", "bold")]
    assert lines[3][1:] == [("||", "bold"), ("Yo·", "bold"), ("<e>", "bold cyan")]


def test_long_texts_are_shortened_in_the_middle_and_lines_keep_their_width() -> None:
    many = tokens(*(f" word{i}" for i in range(1000)))
    lines = plain(pair_lines(pair(prompt=many, chosen=many), width=60))
    joined = "".join(line[11:] for line in lines)
    assert "... 936 more tokens ..." in joined
    assert "... 920 more tokens ..." in joined
    assert " word999||" in joined
    assert max(map(len, lines)) <= 60


def test_long_texts_without_tokens_are_shortened_too() -> None:
    text = "a" * 600 + "b" * 50_000 + "c" * 300
    lines = plain(pair_lines({**pair(), "chosen": text, "tokens": None}, width=60))
    joined = "".join(line[11:] for line in lines)
    assert "a" * 600 + " ... 50,000 more characters ... " + "c" * 300 in joined
    assert "b" * 10 not in joined


def test_control_characters_of_a_row_never_reach_the_terminal() -> None:
    nasty = tokens("\x1b[2J", "\u202e", "\x07")
    lines = plain(pair_lines({**pair(chosen=nasty), "where": "a\x1b.jsonl:1"}))
    assert not any(mark in line for line in lines for mark in "\x1b\u202e\x07")


def test_a_pair_without_tokens_is_shown_as_text() -> None:
    lines = plain(pair_lines({**pair(), "tokens": None, "chosen": "two\nlines"}))
    assert lines[1:] == [
        "prompt     p", "chosen     two", "           lines", "rejected   r",
    ]  # fmt: skip


def test_a_checkup_of_nothing_still_ends_in_a_verdict() -> None:
    content = {
        "data": "d", "model": None, "layout": {"name": "x"}, "read": 0, "kept": 0, "dropped": {},
        "notes": {}, "split": None, "pairs": [], "lengths": None, "limits": None,
        "max_seq_length": 9, "findings": [], "verdict": {"level": "unusable", "text": "no rows"},
    }  # fmt: skip
    assert plain(checkup_lines(content))[-1] == "verdict  no rows"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_with_the_time_left_and_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, now = Terminal(), [100.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("orpo_mlx.cli.progress.time.monotonic", lambda: now[0])
    line = ProgressLine()
    now[0] += 0.1
    line(1, 1000, "checking rows", "rows")
    assert stream.getvalue() == ""  # too soon to be worth a line
    now[0] += 9.9
    line(250, 1000, "checking rows", "rows")
    assert "checking rows: 250 of 1,000, 25/s, 30 s left" in stream.getvalue()
    line.close()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_progress_is_silent_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("orpo_mlx.cli.progress.time.monotonic", lambda: now[0])
    line = ProgressLine()
    now[0] += 60
    line(5, 10, "checking rows", "rows")
    line.close()
    assert stream.getvalue() == ""


def test_a_program_that_asks_gets_lines_of_progress_one_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("orpo_mlx.cli.progress.time.monotonic", lambda: now[0])
    line = ProgressLine(as_json=True)
    for seconds, done in ((0.5, 100), (1.0, 200), (1.5, 300), (2.0, 2_000_000)):
        now[0] = seconds
        line(done, 2_000_000, "org/pairs", "bytes")
    now[0] = 4.0
    line(5, 10, "checking rows", "rows")
    line.close()
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    download = {"event": "progress", "total": 2_000_000, "label": "org/pairs", "unit": "bytes"}
    assert first == {**download, "done": 200, "seconds": 0.5}
    assert second == {**download, "done": 2_000_000, "seconds": 1.5}
    rows = {"label": "checking rows", "unit": "rows"}
    assert third == {"event": "progress", "done": 5, "total": 10, **rows}
