"""A word after `orpo-mlx`, whose module is loaded when it is used: a start stays quick."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CliCommand:
    """One word after `orpo-mlx`.

    Attributes:
        module: its `function` takes the words that follow and returns the exit code.
    """

    usage: str
    help: str
    module: str
    function: str = "main"

    def run(self, words: Sequence[str]) -> int:
        """Load the module and run the command."""
        module = importlib.import_module(self.module)
        return getattr(module, self.function)(words)
