"""Near duplicates: the share of three-word sequences is estimated, and they are found in a pass."""

from __future__ import annotations

import random

import numpy as np

from orpo_mlx.data.checkup.near_duplicates import NearDuplicates, signature_of

VOCABULARY = [f"word{i}" for i in range(5000)]


def text(draw: random.Random, words: int = 150) -> str:
    return " ".join(draw.choices(VOCABULARY, k=words))


def changed(draw: random.Random, original: str, words: int) -> str:
    parts = original.split()
    for i in draw.sample(range(len(parts)), words):
        parts[i] = f"new{draw.randrange(10**6)}"
    return " ".join(parts)


def share(a: str, b: str) -> float:
    """Count what both share, sequence by sequence."""
    sets = []
    for words in (a.split(), b.split()):
        sets.append({tuple(words[i : i + 3]) for i in range(len(words) - 2)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_the_estimate_is_the_share_of_sequences() -> None:
    draw = random.Random(0)
    pairs = [(a, changed(draw, a, n)) for n in (2, 10, 25) for a in [text(draw) for _ in range(60)]]
    errors = []
    for a, b in pairs:
        one, other = signature_of(a), signature_of(b)
        assert one is not None
        assert other is not None
        errors.append(float((one == other).mean()) - share(a, b))
    # 180 pairs of 20 hashes: the mean of as many draws has a standard error of 0.008.
    assert abs(np.mean(errors)) < 0.03


def test_small_changes_are_found_and_other_texts_are_not() -> None:
    draw = random.Random(1)
    texts = [text(draw) for _ in range(200)]
    near = NearDuplicates()
    assert [near.find(one, f"f:{i}") for i, one in enumerate(texts)] == [None] * 200
    found = [near.seen(changed(draw, one, 2)) == f"f:{i}" for i, one in enumerate(texts)]
    assert sum(found) > 190
    assert not any(near.seen(text(draw)) for _ in range(200))


def test_case_and_marks_do_not_count_and_the_first_is_named() -> None:
    near = NearDuplicates()
    assert near.find("The cat sat on the mat.", "f:1") is None
    assert near.find("the CAT, sat on -- the mat", "f:2") == "f:1"
    assert near.find("The cat sat on the mat!", "f:3") == "f:1"


def test_texts_too_short_to_compare_are_never_alike() -> None:
    near = NearDuplicates()
    assert near.find("Yes please", "f:1") is None
    assert near.find("Yes please", "f:2") is None
    assert near.find("", "f:3") is None


def test_texts_that_share_half_are_not_near() -> None:
    draw = random.Random(2)
    near, found = NearDuplicates(), 0
    for i in range(150):
        original = text(draw)
        near.find(original, f"f:{i}")
        found += near.seen(changed(draw, original, 20)) is not None
    assert found < 8
