"""Several sources in one word, with shares: `a.jsonl:2,b.parquet:1`.

Weights are shares of the mixture: with 2 and 1 there are two rows of the first source for each row
of the second. The source that is scarcest for its share is used whole, of the others rows are drawn
by seed; no row comes twice. Without weights all rows of all sources are used.
"""

from __future__ import annotations

from collections.abc import Sequence


def draw_shares(counts: Sequence[int], weights: Sequence[float], seed: int) -> list[list[int]]:
    """Draw rows so that the sources have their shares.

    Args:
        counts: rows of each source.
        weights: share of each, in any unit.
        seed: of the draw; each source draws for itself.

    Returns:
        For each source the positions drawn, ascending; at least one row of each that has any.
    """
    import numpy as np  # here: command lines are read without it

    scale = min(count / weight for count, weight in zip(counts, weights, strict=True))
    drawn = []
    for i, (count, weight) in enumerate(zip(counts, weights, strict=True)):
        wanted = min(count, max(1, round(scale * weight)))
        order = np.random.Generator(np.random.PCG64([seed, i])).permutation(count)
        drawn.append(sorted(order[:wanted].tolist()))
    return drawn
