"""What the terminal says decides charset and theme; colours stay apart for every sight."""

from __future__ import annotations

import itertools
import os
import pty
import threading
import time

import numpy as np
import pytest
from textual.color import Color

from tui.shell.terminal import (
    ask_background,
    choose_charset,
    choose_theme,
    copy_locally,
    desktop_note,
)
from tui.shell.themes import DARK_SERIES, LIGHT_SERIES


@pytest.mark.parametrize(
    ("environment", "encoding", "expected"),
    [
        ({}, "utf-8", "braille"),
        ({"TERM_PROGRAM": "Apple_Terminal"}, "UTF-8", "blocks"),
        ({"TERM": "linux"}, "utf-8", "ascii"),
        ({}, "ANSI_X3.4-1968", "ascii"),
        ({}, None, "ascii"),
    ],
)
def test_the_charset_fits_the_terminal(environment, encoding, expected):
    assert choose_charset(environment, encoding) == expected


@pytest.mark.parametrize(
    ("environment", "background", "expected"),
    [
        ({}, None, "orpo-dark"),
        ({}, "\x1b]11;rgb:1212/1212/1212\x1b\\", "orpo-dark"),
        ({"COLORFGBG": "15;0"}, "\x1b]11;rgb:ffff/ffff/eeee\x07", "orpo-light"),
        ({"COLORFGBG": "0;15"}, None, "orpo-light"),
        ({"COLORFGBG": "0;7"}, None, "orpo-light"),
        ({"COLORFGBG": "15;8"}, None, "orpo-dark"),
        ({"COLORFGBG": "0;default;6"}, None, "orpo-dark"),
        ({"COLORFGBG": "15;default"}, "rubbish", "orpo-dark"),
    ],
)
def test_the_theme_follows_the_background(environment, background, expected):
    assert choose_theme(environment, background) == expected


def test_a_terminal_is_asked_for_its_background_and_need_not_answer(monkeypatch):
    answer = b"\x1b]11;rgb:ffff/ffff/ffff\x1b\\"
    asked = []
    ours, theirs = pty.openpty()

    def reply() -> None:
        asked.append(os.read(ours, 64))
        os.write(ours, answer)

    with open(theirs, "r+b", buffering=0) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        monkeypatch.setattr("sys.stdout", terminal)
        replying = threading.Thread(target=reply)
        replying.start()
        began = time.monotonic()
        assert ask_background(patience_seconds=20.0) == answer.decode()
        assert time.monotonic() - began < 10  # the end of the answer ends the wait
        replying.join()
        assert ask_background(patience_seconds=0.0) is None
    os.close(ours)
    assert b"]11;?" in asked[0]


def test_what_is_no_terminal_is_not_asked(monkeypatch, tmp_path):
    with (tmp_path / "file").open("w+") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert ask_background() is None


@pytest.mark.parametrize(
    ("platform", "code", "remote", "copied"),
    [
        ("darwin", 0, {}, True),
        ("darwin", 1, {}, False),
        ("darwin", 0, {"SSH_TTY": "/dev/x"}, False),
        ("linux", 0, {}, False),
    ],
)
def test_a_mac_copies_by_its_own_tool_and_says_whether_it_did(
    tmp_path, monkeypatch, platform, code, remote, copied
):
    tool = tmp_path / "pbcopy"
    tool.write_text(f'#!/bin/sh\ncat > "{tmp_path}/copied"\nexit {code}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, value in remote.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert copy_locally("grüße") is copied
    if copied:
        assert (tmp_path / "copied").read_text(encoding="utf-8") == "grüße"


# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def lab(colour: str, sight: str):
    rgb = np.array(Color.parse(colour).normalized)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(SIGHTS[sight]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.asarray(to_xyz) @ seen / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("palette", [DARK_SERIES, LIGHT_SERIES])
def test_any_two_series_colours_differ_for_every_sight(palette, sight):
    for a, b in itertools.combinations(palette, 2):
        assert np.linalg.norm(lab(a, sight) - lab(b, sight)) >= 34.5, (a, b)


def test_a_palette_that_looks_fine_but_is_not_would_be_found():
    # Red and green of like lightness, the classical mistake.
    assert np.linalg.norm(lab("#C05050", "deutan") - lab("#7A7A30", "deutan")) < 30


@pytest.mark.parametrize(
    ("palette", "ground"), [(DARK_SERIES, "#121212"), (LIGHT_SERIES, "#F6F6F6")]
)
def test_every_series_colour_stands_out_from_the_background(palette, ground):
    for colour in palette:
        assert ratio(colour, ground) >= 4.5, colour


def ratio(a: str, b: str) -> float:
    """WCAG 2 contrast."""

    def luminance(colour: str) -> float:
        rgb = np.array(Color.parse(colour).normalized)
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_note_outside_the_window_is_sent_only_where_it_is_known():
    assert desktop_note({"TERM_PROGRAM": "iTerm.app"}, "run-a done") == "\x1b]9;run-a done\x07"
    assert desktop_note({"TERM": "xterm-kitty"}, "a\x1b]9;b\n") == "\x1b]9;a ]9;b \x07"
    assert desktop_note({"TERM_PROGRAM": "Apple_Terminal"}, "x") == ""
    assert desktop_note({"TERM_PROGRAM": "iTerm.app", "TMUX": "1"}, "x") == ""
