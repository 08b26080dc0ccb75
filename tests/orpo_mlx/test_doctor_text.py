"""A checkup on the terminal: what is learned stands out, long texts are shortened."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from orpo_mlx import report
from orpo_mlx.doctor_text import Line, checkup_lines, pair_lines


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
    terminal, now = Terminal(), [100.0]
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    progress = report.RowProgress(1000)
    now[0] += 0.1
    progress.update(1)
    assert terminal.getvalue() == ""  # too soon to be worth a line
    now[0] += 9.9
    progress.update(250)
    assert "checking rows: 250 of 1,000, 25/s, 30 s left" in terminal.getvalue()
    progress.close()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_progress_is_silent_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    progress = report.RowProgress(10)
    now[0] += 60
    progress.update(5)
    progress.close()
    assert stream.getvalue() == ""


def test_a_program_that_asks_gets_lines_of_progress_one_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    line = report.StatusLine(for_program=True)
    download, rows = report.DownloadProgress(line), report.RowProgress(10, line=line)
    for seconds, done in ((0.5, 100), (1.0, 200), (1.5, 300), (2.0, 2_000_000)):
        now[0] = seconds
        download(done, 2_000_000, "org/pairs\x1b[2J")
    now[0] = 4.0
    rows.update(5)
    rows.close()
    first, second, third = stream.getvalue().splitlines()
    assert first.startswith("downloading org/pairs")
    assert first.endswith(": 200 B of 2 MB")
    assert "\x1b" not in first
    assert second.endswith(": 2 MB of 2 MB")
    assert third == "checking rows: 5 of 10, 1/s, 4.0 s left"
