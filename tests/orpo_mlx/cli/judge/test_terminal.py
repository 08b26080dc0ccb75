"""A person at a (pseudo) terminal: keys become verdicts, and the screen tells nothing of sides."""

from __future__ import annotations

import contextlib
import os
import pty
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orpo_mlx.cli.judge.terminal import ask_person, require_person, screen
from orpo_mlx.data.types import Account
from orpo_mlx.errors import ConfigError
from orpo_mlx.judging.by_person import Sitting
from orpo_mlx.judging.contest import Contest, ContestPlan, Duel
from orpo_mlx.judging.ledger import GivenAnswer, Ledger


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo terminal."""
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def sitting(tmp_path: Path) -> Iterator[Sitting]:
    with Ledger(tmp_path, {}) as ledger:
        duels = [
            Duel(i, f"Why {i}?", GivenAnswer(f"plain {i}", 3, False),
                 GivenAnswer(f"tuned\x1b[2J {i}" if i < 5 else "plain 5", 3, False), i % 3 == 0)
            for i in range(6)
        ]  # fmt: skip
        plan = ContestPlan(6, 8, 0, tmp_path)
        names = {"base": "tiny", "adapter": "run-a"}
        yield Sitting(
            Contest(plan, "base", "adapter", names, duels, 6, True, ledger, (), Account(), 1024)
        )


def keys_for(terminal: tuple[int, int], key_of: Callable[[str], str]) -> Callable[[str], None]:
    """Return a `show` that presses a key for each screen it is shown."""

    def show(text: str) -> None:
        if "PROMPT" in text:
            os.write(terminal[0], key_of(text).encode())

    return show


def test_who_always_takes_one_side_is_counted_so(terminal, sitting):
    before = termios.tcgetattr(terminal[1])
    screens: list[str] = []

    def prefer_tuned(text: str) -> str:
        screens.append(text)
        return "x1" if text.index("tuned") < text.index("plain") else "2"

    ask_person(sitting, keys_for(terminal, prefer_tuned), terminal[1])
    tally = sitting.tally
    assert (tally.wins, tally.ties, tally.losses, tally.left) == (5, 1, 0, 0)
    assert termios.tcgetattr(terminal[1]) == before
    assert len(screens) == 5  # equal answers are not asked about
    for text in screens:
        assert "run-a" not in text
        assert "tiny" not in text
        assert text.count("\x1b") == 2  # it clears the screen; the answer's own is written out
        assert "tuned\\x1b[2J" in text
    assert screens[1].startswith("\x1b[2J\x1b[H2 of 5 · 4 prompts left · 75 % won, interval")


def test_tie_skip_and_quit_are_kept_and_gone_on_from(terminal, sitting):
    keys = iter(["t", "s", "\x1b[C", "q"])
    ask_person(sitting, keys_for(terminal, lambda _: next(keys)), terminal[1])
    tally = sitting.tally
    assert (tally.wins, tally.ties, tally.skipped, tally.left) == (1, 2, 1, 2)
    shown: list[str] = []
    with contextlib.suppress(KeyboardInterrupt):
        ask_person(sitting, keys_for(terminal, lambda text: shown.append(text) or "q"), terminal[1])
    assert "Why 3?" in shown[0]


def test_a_verdict_can_be_given_anew(terminal, sitting):
    shown: list[str] = []
    keys = iter(["u", "1", "u", "t", "q"])
    ask_person(sitting, keys_for(terminal, lambda text: shown.append(text) or next(keys)),
               terminal[1])  # fmt: skip
    assert [text.split("PROMPT ")[1].split("\n")[1] for text in shown] == [
        "Why 0?", "Why 0?", "Why 1?", "Why 0?", "Why 1?"
    ]  # fmt: skip
    assert [text[7:13] for text in shown] == ["1 of 5", "1 of 5", "2 of 5", "1 of 5", "2 of 5"]
    assert (sitting.tally.ties, sitting.tally.wins, sitting.tally.left) == (2, 0, 4)


def test_a_screen_fits_a_small_terminal(sitting):
    duel = sitting.current
    assert duel is not None
    lines = screen(sitting, duel).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_without_a_terminal_it_is_refused_with_what_to_do(tmp_path):
    with (tmp_path / "keys").open("w+") as file, pytest.raises(ConfigError) as caught:
        require_person(file.fileno())
    assert "--judge-model" in caught.value.what_to_do
