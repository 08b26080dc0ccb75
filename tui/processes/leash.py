"""Runs a Python program that ends when whoever started it is gone, however that went.

    python .../tui/processes/leash.py FD -m MODULE words...
    python .../tui/processes/leash.py FD FILE words...

FD is the reading end of a pipe nobody writes to: it is at its end when the app closes it, or dies.
Only the standard library is needed here, because this comes before the program.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

PATIENCE_SECONDS = 15.0
"""How long the program may clean up after its interrupt."""


def main() -> None:
    """Run the program named on the command line in this process."""
    hold, *words = sys.argv[1:]
    _find_modules_as_the_app_does()
    # An app started in the background hands down an ignored interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_wait_for_the_end, args=(int(hold),), daemon=True).start()
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _find_modules_as_the_app_does() -> None:
    """Look not in this folder; the present one is left out by the environment it is started in."""
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path[0] == here:
        del sys.path[0]
    if (root := os.path.dirname(os.path.dirname(here))) not in sys.path:
        sys.path.append(root)


def _wait_for_the_end(hold: int) -> None:
    os.read(hold, 1)
    # The group: a self-test's trainer ends as well. It is this process's own (a new session).
    os.killpg(os.getpid(), signal.SIGINT)
    time.sleep(PATIENCE_SECONDS)
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
