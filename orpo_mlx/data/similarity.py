"""Texts as sets of three-word sequences, and the hashes by which those that share most are found.

The share of two sets is estimated by minimum hashes: the smallest of all hashes of a set is equal
for two sets with a chance of just their share (Broder, 1997). Hashes in groups name buckets; texts
that meet in none are not compared, so the time is linear in the number of texts.
"""

from __future__ import annotations

import re
import unicodedata
from zlib import crc32

import numpy as np

SHINGLE = 3
"""Words of a sequence."""
GROUP_SIZE = 4
"""Hashes that must agree for two texts to be compared."""
MOST_HASHES = 40

_WORD = re.compile(r"\w+")
_random = np.random.Generator(np.random.PCG64(64))


def _odd_numbers(*shape: int) -> np.ndarray:
    return _random.integers(1, 1 << 63, shape).astype(np.uint64) | np.uint64(1)


_FACTORS = _odd_numbers(MOST_HASHES, 1)
_OFFSETS = _odd_numbers(MOST_HASHES, 1)
_MIX, _KEYS = _odd_numbers(3), _odd_numbers(GROUP_SIZE)
_GROUP_KEYS = _odd_numbers(MOST_HASHES // GROUP_SIZE)


def words_of(text: str, most: int) -> list[str]:
    """Return the first words (letters and digits, NFKC, case folded); of marks alone, the text."""
    text = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.casefold())[:most] or [text.strip()]


def shingles(words: list[str], codes: dict[str, int] | None = None) -> np.ndarray:
    """Return a number for each sequence of three words.

    Args:
        words: at least three.
        codes: remembers the numbers of words from one text to the next.
    """
    codes = {} if codes is None else codes
    for word in words:
        if word not in codes:
            codes[word] = crc32(word.encode("utf-8", "surrogatepass"))
    one = np.fromiter((codes[word] for word in words), np.uint64, len(words))
    return (one[:-2] * _MIX[0] ^ one[1:-1] * _MIX[1]) * _MIX[2] ^ one[2:]


def minimum_hashes(sequences: np.ndarray, count: int) -> np.ndarray:
    """Return [count] uint64 below 2^32, whose agreement with another text's estimates the share.

    Args:
        sequences: from `shingles`.
        count: at most `MOST_HASHES`.
    """
    # Multiply-shift hashing: the high half of a product modulo 2^64.
    hashes = (sequences * _FACTORS[:count] + _OFFSETS[:count]) >> np.uint64(32)
    return hashes.min(axis=1)


def buckets_of(hashes: np.ndarray) -> list[int]:
    """Name the buckets of a text, one for each group of its hashes."""
    groups = hashes.reshape(-1, GROUP_SIZE)
    return ((groups * _KEYS).sum(axis=1) + _GROUP_KEYS[: len(groups)]).tolist()


def shared(a: np.ndarray, b: np.ndarray) -> float:
    """Return which share of all sequences of two texts is in both."""
    a, b = np.unique(a), np.unique(b)
    both = np.intersect1d(a, b, assume_unique=True).size
    return both / (a.size + b.size - both)
