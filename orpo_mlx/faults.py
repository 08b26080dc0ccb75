"""What known failures of MLX, Metal and macOS mean, and what the user can do about them.

Matched against exception texts and the last lines of a dead trainer's log. The Metal texts come
from reports in the issue trackers of mlx and mlx-lm; none was provoked on a Mac by this project.
"""

from __future__ import annotations

_SMALLER = "lower --max-seq-length or --micro-batch-size, or turn on --grad-checkpoint"

KNOWN_FAULTS: tuple[tuple[str, str, str], ...] = (
    (
        "OutOfMemory",
        "the GPU ran out of memory",
        f"Resume from the last checkpoint, or start again with less: {_SMALLER}.",
    ),
    (
        "Unable to allocate",
        "memory could not be allocated",
        f"Close other programs, or start again with less: {_SMALLER}.",
    ),
    (
        "ImpactingInteractivity",
        "macOS stopped the GPU work because it held up the display",
        "Resume with the display off, or start again with shorter or fewer rows at a time: "
        f"{_SMALLER}.",
    ),
    (
        "Caused GPU Timeout",
        "one piece of GPU work took longer than macOS allows",
        f"Resume with the display off, or make the pieces smaller: {_SMALLER}.",
    ),
    (
        "Resource limit",
        "MLX holds too many buffers",
        f"Resume from the last checkpoint; if it happens again {_SMALLER}.",
    ),
    (
        "InvalidResource",
        "the GPU lost a buffer it was using",
        "Resume from the last checkpoint; restart the Mac if it happens again.",
    ),
    (
        "There is no Stream",
        "an array was used in another thread than the one that made it",
        "Run training in a process of its own: python -m orpo_mlx.train.",
    ),
    (
        "No space left on device",
        "the disk is full",
        "Free some space, then resume from the last checkpoint.",
    ),
    (
        "Unable to write",
        "a file could not be written; the disk may be full",
        "Free some space, then resume from the last checkpoint.",
    ),
)
"""(text to look for, what it means, what to do)."""


def explain(text: str) -> tuple[str, str] | None:
    """Return (meaning, advice) of the first known fault in a text, or None."""
    for pattern, meaning, advice in KNOWN_FAULTS:
        if pattern.lower() in text.lower():
            return meaning, advice
    return None
