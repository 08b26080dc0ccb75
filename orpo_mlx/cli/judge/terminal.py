"""A person at the terminal compares answers: one key a verdict."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from orpo_mlx.cli.keys import raw_keys
from orpo_mlx.cli.terminal import terminal_width
from orpo_mlx.errors import ConfigError
from orpo_mlx.judging.ledger import Says
from orpo_mlx.judging.tally import tally_text
from orpo_mlx.text.formatting import visible

if TYPE_CHECKING:
    from orpo_mlx.judging.by_person import Sitting
    from orpo_mlx.judging.contest import Duel

KEYS: dict[str, Says] = {
    "1": "first",
    "\x1b[D": "first",
    "2": "second",
    "\x1b[C": "second",
    "t": "tie",
    "=": "tie",
    "s": "skip",
}
QUIT = ("q", "\x04")
BACK = "u"
HELP = "1 first is better   2 second   t tie   s skip   u back   q quit; all is kept"
_CLEAR = "\x1b[2J\x1b[H"
_WIDTH = 70


def require_person(descriptor: int = 0) -> None:
    """Check, before any answer is made, that somebody is there to judge.

    Raises:
        ConfigError: the standard input is no terminal.
    """
    if not os.isatty(descriptor):
        raise ConfigError(
            "orpo-mlx judge: needs someone to judge, and the standard input is not a terminal.",
            "Start it in a terminal, judge in the app, or let a model judge: --judge-model MODEL "
            "or --judge-url URL.",
        )


def ask_person(sitting: Sitting, show: Callable[[str], object], descriptor: int = 0) -> None:
    """Ask for verdicts until nothing is left or the person quits.

    Args:
        sitting: what is judged; keeps each verdict.
        show: writes text to the screen.
        descriptor: where keys come from; 0 = the standard input.

    Raises:
        DataError: a verdict cannot be kept.
        KeyboardInterrupt: Ctrl-C; the terminal is as it was.
    """
    duel = sitting.current
    if duel is None:
        return
    with raw_keys(descriptor) as keys:
        show(_CLEAR + screen(sitting, duel))
        for key in keys:
            name = key.lower() if len(key) == 1 else key
            if name in QUIT:
                return
            if name == BACK:
                sitting.go_back()
            elif name in KEYS:
                sitting.take(duel, KEYS[name])
            else:
                show(HELP + "\n")
                continue
            duel = sitting.current
            if duel is None:
                return
            show(_CLEAR + screen(sitting, duel))


def screen(sitting: Sitting, duel: Duel) -> str:
    """Return what is shown of a duel and how it stands."""
    first, second = duel.shown(duel.after_first)
    head = " · ".join(
        part for part in (f"{sitting.number} of {sitting.total}", tally_text(sitting.tally))
        if part
    )  # fmt: skip
    blocks = [("PROMPT", duel.prompt), ("1", first), ("2", second)]
    body = "\n".join(f"{_rule(name)}\n{_wrapped(text)}\n" for name, text in blocks)
    return f"{head}\n\n{body}\n{'-' * _WIDTH}\n{HELP}\n"


def _wrapped(text: str) -> str:
    width = terminal_width()
    lines = visible(text).splitlines() or [""]
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width) or [""])


def _rule(name: str) -> str:
    return f"---- {name} ".ljust(_WIDTH, "-")
