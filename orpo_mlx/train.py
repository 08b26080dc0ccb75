"""Train an adapter: `python -m orpo_mlx.train --model M --data pairs.jsonl`.

The same as `orpo-mlx train`. From Python call `orpo_mlx.train(config)`; nothing imports this file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orpo_mlx.storage.safe_path import forget_present_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit code."""
    from orpo_mlx.cli.commands.train import main

    return main(argv)


if __name__ == "__main__":
    forget_present_folder()
    sys.exit(main())
