"""The keys and the screen of judging: one key per verdict, the terminal put back whatever happens.

In a terminal keys are read one by one, without Enter. They may also be piped in: each letter is a
key, white space is passed over, the end is "quit".
"""

from __future__ import annotations

import os
import select
import signal
import stat
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from orpo_mlx.data.questions import Question
from orpo_mlx.errors import ConfigError
from orpo_mlx.formatting import visible
from orpo_mlx.judge import UNDO, Judging

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


def _prompt_text(question: Question) -> str:
    if isinstance(question.prompt, str):
        return visible(question.prompt) + "\n"
    turns = question.prompt
    return "".join(f"{turn['role']}: {visible(turn['content'])}\n" for turn in turns)


@contextmanager
def raw_keys(descriptor: int) -> Iterator[Iterator[str]]:
    """Read keys one by one from a terminal, and put it back as it was at any end.

    A process that is told to end (SIGTERM, SIGHUP) puts it back too; one that is stopped (Ctrl-Z)
    gives it back for that time.
    """
    before = termios.tcgetattr(descriptor)

    def put_back() -> None:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    def end(number: int, _: Any) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    def stop(*_: Any) -> None:
        put_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)

    def go_on(*_: Any) -> None:
        signal.signal(signal.SIGTSTP, stop)
        tty.setcbreak(descriptor, termios.TCSADRAIN)

    handlers = {
        signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGTSTP: stop, signal.SIGCONT: go_on,
    }  # fmt: skip
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        yield _keys(descriptor)
    finally:
        put_back()
        for number, handler in old.items():
            signal.signal(number, handler)


def _keys(descriptor: int) -> Iterator[str]:
    """Yield keys; an escape sequence, which arrives at once, is one key."""
    while data := os.read(descriptor, 1):
        if data == b"\x1b":
            while select.select([descriptor], [], [], 0.02)[0]:
                more = os.read(descriptor, 1)
                data += more
                if not more or more.isalpha() or more == b"~":
                    break
        yield data.decode("ascii", "replace")


@contextmanager
def _piped_keys(descriptor: int) -> Iterator[Iterator[str]]:
    def read() -> Iterator[str]:
        while data := os.read(descriptor, 1):
            if not data.isspace():
                yield data.decode("ascii", "replace")

    yield read()
