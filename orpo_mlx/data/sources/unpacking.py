"""How much a packed file may unpack to: a small file must not cost without bound."""

from __future__ import annotations

MAX_UNPACKED_RATIO = 200
"""Times a file's size, which no text reaches."""
MAX_UNPACKED_FLOOR = 256 << 20


def unpacked_limit(packed_bytes: int) -> int:
    """Return the bytes that a file of this size may unpack to."""
    return max(MAX_UNPACKED_FLOOR, MAX_UNPACKED_RATIO * packed_bytes)
