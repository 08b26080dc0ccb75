"""The app's arguments, and where it refuses to open."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_window_that_would_stay_empty_is_refused():
    """The app draws on stderr: `orpo-mlx 2>log` would show nothing and take keys all the same."""
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tui"],
            stdin=slave, stdout=slave, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        os.close(slave)
        os.close(master)
    assert done.returncode == 2
    assert "the app needs a terminal" in done.stderr
