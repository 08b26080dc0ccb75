"""Numbers people can read, and text that cannot harm a terminal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orpo_mlx.text.formatting import (
    format_bytes,
    format_count,
    format_duration,
    format_moment,
    visible,
)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("a\rb\x9bc", "a\\rb\\u009bc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udce9", "\\udce9"),
        ("ünïcödé 日本 🙂\nb", "ünïcödé 日本 🙂\nb"),
    ],
)
def test_text_from_a_model_cannot_control_the_terminal(text: str, safe: str) -> None:
    assert visible(text) == safe


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (format_bytes, 999, "999 B"), (format_bytes, 41e6, "41 MB"),
        (format_bytes, 5.412e9, "5.41 GB"),
        (format_bytes, 999_999, "1 MB"),
        (format_bytes, 128e9, "128 GB"), (format_bytes, 1.5e12, "1500 GB"),
        (format_count, 950, "950"), (format_count, 9999, "9999"), (format_count, 12_345, "12.3 k"),
        (format_count, 7.6e6, "7.6 M"), (format_count, 1.24e9, "1.24 B"),
        (format_moment, 0, "0 ms"), (format_moment, 0.00042, "0.4 ms"),
        (format_moment, 0.012, "12 ms"), (format_moment, 0.9996, "1.0 s"),
        (format_duration, 0.04, "0.0 s"), (format_duration, 9.94, "9.9 s"),
        (format_duration, 9.96, "10 s"),
        (format_duration, 59.6, "1 min"), (format_duration, 200, "3 min 20 s"),
        (format_duration, 3570, "1 h 00 min"), (format_duration, 7500, "2 h 05 min"),
    ],
)  # fmt: skip
def test_numbers_are_readable(function: Callable[[float], str], value: float, text: str) -> None:
    assert function(value) == text
