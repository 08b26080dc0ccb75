"""Divide pairs into training, validation and test so that no prompt is on two sides.

Two prompts are one if their words are the same (letters and digits, Unicode NFKC, case ignored, the
system turn left out), or if they are near duplicates: of all the sequences of three words that
either has, at least `SHARE` are in both. What hangs together by such links stays together.

Near duplicates are looked for by 40 minimum hashes in ten groups of four (see `similarity.py`) and
then compared exactly; of prompts that share 0.8, 1 - (1 - 0.8^4)^10, that is 99.5 %, are looked at.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from orpo_mlx.data.similarity import SHINGLE, buckets_of, minimum_hashes, shared, shingles, words_of
from orpo_mlx.data.tokens.store import select
from orpo_mlx.data.types import Pair, TokenPair

SHARE = 0.8
WORDS = 2000
"""Words of a prompt that are compared; what comes after decides nothing."""
HASHES = 40
MOST_IN_BUCKET = 4
_FINER = (0.9, 1.0)
"""Shares that are tried where `SHARE` leaves too few groups."""


def prompt_text(pair: Pair) -> str:
    """Return the prompt of a pair as one text, the system turn left out; of token ids the ids."""
    if isinstance(pair, TokenPair):
        return " ".join(map(str, pair.prompt))
    if isinstance(pair.prompt, str):
        return pair.prompt
    turns = [turn["content"] for turn in pair.prompt if turn["role"] != "system"]
    return "\n".join(turns)


def token_prompt_texts(pairs: Sequence[TokenPair], tokenizer: Any) -> list[str]:
    """Return the prompts of tokenized pairs as text, without what all of them begin and end with:
    the chat template, which would make them look alike."""
    # Prompt by prompt: all of them as lists of numbers take hundreds of megabytes.
    head = _common(pair.prompt for pair in pairs)
    tail = _common(pair.prompt[head:][::-1] for pair in pairs)
    prompts = (pair.prompt for pair in pairs)
    return [str(tokenizer.decode(ids[head : len(ids) - tail])) for ids in prompts]


def _common(lists: Iterable[Sequence[int]]) -> int:
    """Count the leading ids that all lists share; of a single one none."""
    each = iter(lists)
    shared, second = next(each, ()), next(each, ())
    for ids in itertools.chain([second], each):
        both = enumerate(zip(shared, ids, strict=False))
        end = next((i for i, (a, b) in both if a != b), min(len(shared), len(ids)))
        shared = shared[:end]
    return len(shared)


def group_prompts(prompts: Sequence[str], share: float = SHARE) -> list[int]:
    """Return for each prompt the position of the first one it belongs together with.

    Args:
        prompts: as text.
        share: of the sequences of three words, from which on two prompts are one; 1 = only those
            with the same words in the same order.
    """
    leaders = list(range(len(prompts)))
    firsts: dict[bytes, int] = {}
    buckets: dict[int, tuple[int, ...]] = {}
    codes: dict[str, int] = {}
    for i, prompt in enumerate(prompts):
        words = words_of(prompt, WORDS)
        first = firsts.setdefault(_digest(words), i)
        if first != i:
            _join(leaders, first, i)
            continue
        if share >= 1 or len(words) < SHINGLE:
            continue
        own = shingles(words, codes)
        for bucket in buckets_of(minimum_hashes(own, HASHES)):
            others = buckets.get(bucket, ())
            for other in others:
                if _leader(leaders, other) == _leader(leaders, i):
                    continue
                if shared(own, shingles(words_of(prompts[other], WORDS), codes)) >= share:
                    _join(leaders, other, i)
            # More in one bucket are one template with many fillings; most belong together by now.
            if len(others) < MOST_IN_BUCKET:
                buckets[bucket] = (*others, i)
    return [_leader(leaders, i) for i in range(len(prompts))]


def _digest(words: list[str]) -> bytes:
    joined = " ".join(words).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(joined, digest_size=16).digest()


def _leader(leaders: list[int], i: int) -> int:
    while leaders[i] != i:
        leaders[i] = leaders[leaders[i]]
        i = leaders[i]
    return i


def _join(leaders: list[int], a: int, b: int) -> None:
    a, b = sorted((_leader(leaders, a), _leader(leaders, b)))
    leaders[b] = a


def draw_sides(
    groups: Sequence[int], fractions: Mapping[str, float], seed: int, rest: str = "train"
) -> list[str]:
    """Return for each pair the side it is on; a group is never divided.

    Args:
        groups: from `group_prompts`.
        fractions: share of all pairs for each side but `rest`, each in (0, 1); a side gets at least
            one group where there are enough, and no more than its share unless its one group has.
        seed: of the draw.
        rest: the side that gets what is left, never nothing.
    """
    sizes: dict[int, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    names = list(sizes)
    drawn = [names[i] for i in np.random.Generator(np.random.PCG64(seed)).permutation(len(names))]
    sides: dict[int, str] = {}
    for number, (name, fraction) in enumerate(fractions.items()):
        left = [group for group in drawn if group not in sides]
        others = len(fractions) - number
        for group in _take(left, sizes, max(1, round(fraction * len(groups))), others):
            sides[group] = name
    return [sides.get(group, rest) for group in groups]


def _take(drawn: list[int], sizes: Mapping[int, int], wanted: int, others: int) -> list[int]:
    """Return the first groups that fill up a side, and leave one for each of the others."""
    taken, count = [], 0
    for group in drawn:
        if count + sizes[group] <= wanted and len(taken) + others < len(drawn):
            taken.append(group)
            count += sizes[group]
    if not taken and len(drawn) > 1:
        taken = [min(drawn, key=lambda group: sizes[group])]
    return taken


def hold_out(
    pairs: Sequence[TokenPair],
    fraction: float,
    seed: int,
    tokenizer: Any,
    notes: list[str] | None = None,
) -> tuple[Sequence[TokenPair], Sequence[TokenPair]]:
    """Hold out pairs for validation.

    Where so many prompts hang together that the share would be far from what was asked, less like
    prompts count as different; those with the same words never do.

    Args:
        fraction: share of the pairs to hold out, in [0, 1).
        seed: of the draw.
        tokenizer: the pairs were tokenized with.
        notes: is told of a share that could not be kept.

    Returns:
        Training and validation pairs, each in the order given.
    """
    if fraction <= 0 or not pairs:
        return pairs, pairs[:0]
    texts = token_prompt_texts(pairs, tokenizer)
    wanted = max(1, round(fraction * len(pairs)))
    drawn = [_drawn(texts, fraction, seed, SHARE)]
    for share in _FINER:
        if is_near(len(drawn[-1]), wanted):
            break
        drawn.append(_drawn(texts, fraction, seed, share))
    held = min(drawn, key=lambda found: abs(len(found) - wanted))
    if len(held) > wanted and not is_near(len(held), wanted):
        held = set()
    if notes is not None and (held != drawn[0] or not is_near(len(held), wanted)):
        notes.append(_share_note(len(held), wanted, len(pairs)))
    rest = [i for i in range(len(pairs)) if i not in held]
    return select(pairs, rest), select(pairs, sorted(held))


def _drawn(texts: Sequence[str], fraction: float, seed: int, share: float) -> set[int]:
    sides = draw_sides(group_prompts(texts, share), {"valid": fraction}, seed)
    return {i for i, side in enumerate(sides) if side == "valid"}


def is_near(count: int, wanted: int) -> bool:
    """Tell whether a side has about what was asked: half to twice as many, or two more or less."""
    return wanted / 2 <= count <= 2 * wanted or abs(count - wanted) <= 2


def _share_note(held: int, wanted: int, total: int) -> str:
    """Say what is held out where many prompts are alike."""
    if not held:
        return (
            f"no pair is held out for validation: {total:,} pairs have so few different prompts "
            f"that {wanted:,} cannot be held out; give --valid-data"
        )
    return (
        f"{held:,} pairs are held out for validation ({wanted:,} were asked for); many prompts are "
        "nearly alike, and some stand on both sides; --valid-data with other prompts judges better"
    )
