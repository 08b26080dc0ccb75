"""`python -m tui`: the same as `orpo-mlx tui`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orpo_mlx.storage.safe_path import forget_present_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Open the app; return the exit code."""
    from orpo_mlx.cli.commands.tui import open_app
    from orpo_mlx.cli.exit_codes import run_command

    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: open_app(words), debug="--debug" in words)


if __name__ == "__main__":
    forget_present_folder()
    sys.exit(main())
