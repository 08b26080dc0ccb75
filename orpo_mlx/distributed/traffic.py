"""What processes send one another, and how long that takes: arithmetic alone.

MLX's ring sums a vector in two rounds. It is cut into as many parts as there are processes; in the
first round each part travels past all of them and is added up, in the second the sums are handed
round. So a process sends N-1 parts twice: 2 (N-1) / N of the vector, whatever N less than twice.
"""

from __future__ import annotations

NUMBER_BYTES = 4
"""Of a number that is exchanged: gradients travel as float32."""

HOP_SECONDS = 0.0003
"""How long a message is under way between neighbours besides its bytes; assumed, not measured."""


def exchange_memory(numbers: int, size: int) -> int:
    """Return the bytes a process holds for the exchange: the gradients as a vector, and its sum."""
    return 2 * NUMBER_BYTES * numbers if size > 1 else 0


def ring_bytes(payload: int, size: int) -> int:
    """Return the bytes each process sends, and receives, for one sum.

    Args:
        payload: bytes of the vector.
        size: number of processes.
    """
    return -(-2 * (size - 1) * payload // size)


def ring_seconds(payload: int, size: int, link_gbit: float) -> float:
    """Return how long a step's exchange takes if nothing but the link costs time.

    Sends and receipts are under way at once. Counted are the bytes, a hop for each part of the two
    rounds, and two for the numbers of the step, which go to process 0 and back.

    Args:
        payload: bytes of the vector.
        size: number of processes.
        link_gbit: what each process can send and receive at a time, in 1e9 bits per second.
    """
    if size == 1:
        return 0.0
    return ring_bytes(payload, size) * 8 / (link_gbit * 1e9) + 2 * size * HOP_SECONDS


def step_seconds(alone: float, busiest_share: float, exchange: float) -> float:
    """Return the time of a step over several processes, each as fast as the one measured.

    Args:
        alone: seconds of the whole step in one process.
        busiest_share: what the process with most to do has of the step, 1/N at best.
        exchange: seconds of the exchange.
    """
    return alone * busiest_share + exchange
