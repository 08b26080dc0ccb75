"""How much work MLX hands to a Mac's GPU at a time.

Operations are gathered in a command buffer and handed over when it holds enough: 40 or 50 of them,
or arrays of as many million numbers, which the variable calls MB. macOS ends a buffer that runs for
seconds, and what a buffer uses is not freed before its end. MLX reads the limits once, when it
first touches the GPU (mlx/utils.h), which some modules of mlx-lm do as they are imported. On a CPU
there are no such buffers.
"""

from __future__ import annotations

import os

SHORT = {"MLX_MAX_OPS_PER_BUFFER": "4", "MLX_MAX_MB_PER_BUFFER": "4"}
"""A tenth of what MLX takes by itself."""


def choose_command_buffers(wanted: str) -> None:
    """Have command buffers as a run asks for; to be called before mlx is imported.

    Args:
        wanted: the setting `command_buffers`. Limits the environment has already are kept.
    """
    if wanted == "short":
        for name, value in SHORT.items():
            os.environ.setdefault(name, value)
