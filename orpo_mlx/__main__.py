"""`orpo-mlx` and `python -m orpo_mlx`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orpo_mlx.storage.safe_path import forget_present_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    from orpo_mlx.cli.main import main

    return main(argv)


if __name__ == "__main__":
    forget_present_folder()
    sys.exit(main())
