"""The app's arguments, and where it refuses to open."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from orpo_mlx.cli.commands.tui import open_app
from orpo_mlx.errors import ConfigError
from tui.shell.settings import CHOICES


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


@pytest.mark.parametrize("name", CHOICES["theme"])
def test_every_theme_of_the_settings_can_be_asked_for(name):
    with pytest.raises(ConfigError, match="needs a terminal"):  # so the theme was taken
        open_app(["--theme", name])


def test_an_unknown_theme_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="did you mean nord") as refused:
        open_app(["--theme", "nrd"])
    assert "solarized-light" in refused.value.what_to_do
