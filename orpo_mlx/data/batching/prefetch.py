"""Make the next thing on a thread while this one is used.

The thread may do NumPy and Python only: MLX ties arrays to the thread that made them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Calls a function of consecutive numbers one ahead; results are what plain calls give.

    Args:
        make: from a number to what is wanted; depends on nothing else.
        last: the highest number that will be asked for.
    """

    def __init__(self, make: Callable[[int], T], last: int) -> None:
        self._make, self._last = make, last
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="orpo-mlx-prefetch")
        self._ahead: tuple[int, Future[T]] | None = None

    def get(self, number: int) -> T:
        """Return what belongs to a number, and begin with the next one.

        Raises:
            Whatever `make` raises, for the number it was raised for.
        """
        ahead, self._ahead = self._ahead, None
        found = ahead[1].result() if ahead and ahead[0] == number else self._make(number)
        if number < self._last:
            self._ahead = (number + 1, self._pool.submit(self._make, number + 1))
        return found

    def close(self) -> None:
        """Wait for the thread to end; what it was making is thrown away."""
        self._ahead = None
        self._pool.shutdown(wait=True, cancel_futures=True)
