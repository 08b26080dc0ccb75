"""The keys and the screen of judging: one key per verdict, the terminal put back whatever happens.

In a terminal keys are read one by one, without Enter. They may also be piped in: each letter is a
key, white space is passed over, the end is "quit".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from orpo_mlx.cli.keys import raw_keys
from orpo_mlx.errors import ConfigError
from orpo_mlx.preferences.judging import UNDO, Judging
from orpo_mlx.preferences.questions import PromptAnswers
from orpo_mlx.text.formatting import visible

KEYS = {
    "l": "left",
    "1": "left",
    "r": "right",
    "2": "right",
    "t": "tie",
    "=": "tie",
    "s": "skip",
    "u": UNDO,
    "q": "quit",
    "\x04": "quit",
    "\x1b[D": "left",
    "\x1b[C": "right",
}
HELP = (
    "l or left arrow = left is better   r or right arrow = right   t tie   s skip   u undo   q quit"
)


def require_keys(descriptor: int) -> bool:
    """Return whether keys come from a terminal; False if they are piped in.

    Raises:
        ConfigError: nobody can answer.
    """
    try:
        if os.isatty(descriptor):
            return True
        mode = os.fstat(descriptor).st_mode
    except OSError:
        mode = 0
    if stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode):
        return False
    raise ConfigError(
        "judging needs someone to answer: the standard input is not a terminal",
        "Start it in a terminal, or pipe the keys in: printf 'lrrt' | orpo-mlx data pairs ...",
    )


def judge(
    judging: Judging,
    record: Callable[[dict[str, Any]], None],
    show: Callable[[str], Any],
    descriptor: int = 0,
) -> None:
    """Ask for verdicts until all are given or the user quits.

    Args:
        judging: what is compared; takes the verdicts.
        record: called with each verdict before it is taken; when it returns it is kept.
        show: writes text to the screen.
        descriptor: where keys come from; 0 = the standard input.

    Raises:
        ConfigError: nobody can answer.
        KeyboardInterrupt: Ctrl-C, or the process is to end; the terminal is as it was.
    """
    is_terminal = require_keys(descriptor)
    with raw_keys(descriptor) if is_terminal else _piped_keys(descriptor) as keys:
        show(screen(judging, is_terminal))
        for key in keys:
            verdict = KEYS.get(key.lower() if len(key) == 1 else key)
            if verdict == "quit":
                return
            if verdict == UNDO and not judging.verdicts:
                show("nothing to undo\n")
                continue
            if verdict is None:
                show(HELP + "\n")
                continue
            record(judging.entry(verdict))
            judging.take(verdict)
            if judging.is_done:
                return
            show(screen(judging, is_terminal))


def screen(judging: Judging, is_terminal: bool) -> str:
    """Return the text that shows the current comparison."""
    now = judging.current()
    question = judging.questions[now.question]
    clear = "\x1b[2J\x1b[H" if is_terminal else ""
    answers = question.answers
    return (
        f"{clear}{now.number + 1} of {judging.total}\n\n"
        f"{_prompt_text(question)}\n"
        f"---- LEFT (l) {'-' * 50}\n{visible(answers[now.left])}\n"
        f"---- RIGHT (r) {'-' * 49}\n{visible(answers[now.right])}\n"
        f"{'-' * 64}\n{HELP}\n"
    )


def _prompt_text(question: PromptAnswers) -> str:
    if isinstance(question.prompt, str):
        return visible(question.prompt) + "\n"
    turns = question.prompt
    return "".join(visible(f"{turn['role']}: {turn['content']}\n") for turn in turns)


@contextmanager
def _piped_keys(descriptor: int) -> Iterator[Iterator[str]]:
    def read() -> Iterator[str]:
        while data := os.read(descriptor, 1):
            if not data.isspace():
                yield data.decode("ascii", "replace")

    yield read()
