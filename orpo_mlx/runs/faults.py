"""What known failures of MLX, Metal and macOS mean, and what the user can do about them.

Matched against exception texts and the last lines of a dead trainer's log. The Metal texts come
from reports in the issue trackers of mlx and mlx-lm; none was provoked on a Mac by this project.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from orpo_mlx.errors import NotFiniteError, PeerLostError, PeerRefusedError
from orpo_mlx.runs.events import FailureKind

_SMALLER = "lower --max-seq-length or --micro-batch-size, or turn on --grad-checkpoint"
_GENTLER = (
    "Resume with --command-buffers short (less GPU work at a time), then with "
    "--micro-batch-parts 2 too"
)
"""Both leave a run the same run."""


TOO_LARGE = "Attempting to allocate"
"""What MLX says of an array above "the maximum allowed buffer size", whatever memory is free."""


_OUTSIDE: dict[FailureKind, str] = {
    "out_of_memory": "Close other programs, or do it with less: fewer or shorter texts, a smaller "
    "or quantized model.",
    "gpu_timeout": "Close other programs that use the GPU, then try again.",
    "disk": "Free some space, then try again.",
    "other": "Try again; restart the Mac if it happens again.",
}
"""What to do where no training can be resumed, by kind."""


class Fault(NamedTuple):
    """A failure with a known cause.

    Attributes:
        pattern: text it is known by.
        advice: what to do with the training that failed.
        own: what to do in any case, "" for what its kind says.
    """

    pattern: str
    kind: FailureKind
    meaning: str
    advice: str
    own: str = ""

    @property
    def outside(self) -> str:
        """What to do where no training failed."""
        return self.own or _OUTSIDE[self.kind]


_ELSEWHERE = "Run it in a session of the Mac itself: a sandbox or a virtual machine has no Metal."


KNOWN_FAULTS = (
    Fault(
        "OutOfMemory",
        "out_of_memory",
        "the GPU ran out of memory",
        f"{_GENTLER}; or begin a new run with less: {_SMALLER}.",
    ),
    Fault(
        "Unable to allocate",
        "out_of_memory",
        "memory could not be allocated",
        f"Close other programs, or start again with less: {_SMALLER}.",
    ),
    Fault(
        TOO_LARGE,
        "out_of_memory",
        "one array of the step is larger than the GPU takes in one piece",
        "Resume with --micro-batch-parts 2, which makes the arrays of a step smaller; or begin a "
        f"new run with less: {_SMALLER}.",
    ),
    Fault(
        "ImpactingInteractivity",
        "gpu_timeout",
        "macOS stopped the GPU work because it held up the display",
        f"{_GENTLER}, or with the display off.",
    ),
    Fault(
        "(0000000e:Internal Error",  # the same code, where macOS has no name for it
        "gpu_timeout",
        "macOS stopped the GPU work, most likely because it held up the display",
        f"{_GENTLER}, or with the display off.",
    ),
    Fault(
        "Caused GPU Timeout",
        "gpu_timeout",
        "one piece of GPU work took longer than macOS allows",
        f"{_GENTLER}, or with the display off.",
    ),
    Fault(
        "Caused GPU Hang",
        "gpu_timeout",
        "the GPU hung",
        f"{_GENTLER}; restart the Mac if it happens again.",
    ),
    Fault(
        "InnocentVictim",
        "other",
        "another program's GPU work failed and took this one's with it",
        "Close other programs that use the GPU, then resume from the last checkpoint.",
    ),
    Fault(
        "SubmissionsIgnored",
        "gpu_timeout",
        "macOS takes no more GPU work of this process after an earlier error",
        f"{_GENTLER}.",
    ),
    Fault(
        "Resource limit",
        "other",
        "MLX holds too many buffers",
        f"Resume from the last checkpoint; if it happens again {_SMALLER}.",
    ),
    Fault(
        "InvalidResource",
        "other",
        "the GPU lost a buffer it was using",
        "Resume from the last checkpoint; restart the Mac if it happens again.",
    ),
    Fault(
        "There is no Stream",
        "other",
        "an array was used in another thread than the one that made it",
        "Run training in a process of its own: python -m orpo_mlx.train.",
        "Run it again with --debug to see where; please report it.",
    ),
    Fault(
        "No Metal device available",
        "other",
        "no GPU of this Mac can be reached",
        _ELSEWHERE,
        _ELSEWHERE,
    ),
    Fault(
        "No space left on device",
        "disk",
        "the disk is full",
        "Free some space, then resume from the last checkpoint.",
    ),
    Fault(
        "Unable to write",
        "disk",
        "a file could not be written; the disk may be full",
        "Free some space, then resume from the last checkpoint.",
    ),
)


def explain(text: str) -> Fault | None:
    """Return the first known fault that a text names, or None."""
    return next((fault for fault in KNOWN_FAULTS if fault.pattern.lower() in text.lower()), None)


def kind_of(error: BaseException) -> FailureKind:
    """Return what kind of failure an error is, by its class and by what caused it."""
    if isinstance(error, NotFiniteError):
        return "not_finite"
    if isinstance(error, (PeerLostError, PeerRefusedError)):
        return "peer"
    if isinstance(error, MemoryError):
        return "out_of_memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "disk"
    fault = explain(str(error))
    if fault is None and error.__cause__ is not None:
        return kind_of(error.__cause__)
    return fault.kind if fault else "other"
