"""What the doctor counts in pairs that are kept: ends of turns, openings, prompts, and a sample."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Iterator

import numpy as np

from orpo_mlx.data.checkup.examples import readable
from orpo_mlx.data.checkup.findings import Finding, Tally
from orpo_mlx.data.pipeline import Fate
from orpo_mlx.data.tokens.encoder import Encoder
from orpo_mlx.data.tokens.tokenize import common_start
from orpo_mlx.data.types import TokenPair

LONG_OPENING = 8
"""Tokens in common at the start of both answers from which it is an opening."""
TOXIC = ("toxic", "jailbreak", "unsafe")
SOURCE_COLUMNS = ("source", "dataset", "origin", "subset")


class Seen:
    """Counts over kept pairs; `take` says what was unusual about one, `findings` about all.

    Args:
        encoder: that made the tokens; None if there are none.
    """

    def __init__(self, encoder: Encoder | None) -> None:
        self._encoder = encoder
        names = ("end-inside", "end-missing", "bos-doubled", "toxic-source")
        self._tallies = {name: Tally() for name in names}
        self._openings = array("i")
        self._shares = array("f")
        self._opening_rows = Tally()
        self._ends: dict[int, int] = {}

    def take(self, fate: Fate) -> list[str]:
        """Count a kept row; returns the codes of what it is an example of."""
        marks = []
        if any(_is_toxic(fate.row.values.get(name)) for name in SOURCE_COLUMNS):
            marks.append("toxic-source")
        if fate.tokens is not None and self._encoder is not None:
            marks += self._take_tokens(fate.tokens, self._encoder)
        for mark in marks:
            tally = self._opening_rows if mark == "shared-openings" else self._tallies[mark]
            tally.add(fate.row.source)
        return marks

    def _take_tokens(self, pair: TokenPair, encoder: Encoder) -> list[str]:
        marks = []
        answers = (pair.chosen, pair.rejected) if pair.label is None else (pair.chosen,)
        if any(not encoder.stop_ids.isdisjoint(ids[:-1]) for ids in answers):
            marks.append("end-inside")
        if any(ids[-1] not in encoder.stop_ids for ids in answers):
            marks.append("end-missing")
        bos = encoder.tokenizer.bos_token_id
        if bos is not None and list(pair.prompt[:2]) == [bos, bos]:
            marks.append("bos-doubled")
        self._ends[pair.chosen[-1]] = self._ends.get(pair.chosen[-1], 0) + 1
        if pair.label is not None:
            return marks
        opening = common_start(pair.chosen, pair.rejected)
        self._openings.append(opening)
        self._shares.append(opening / min(len(pair.chosen), len(pair.rejected)))
        if opening >= LONG_OPENING:
            marks.append("shared-openings")
        return marks

    def findings(self, kept: int) -> Iterator[Finding]:
        """Yield what the counts say about all pairs."""
        for code, (text, what_to_do) in _TEXTS.items():
            tally = self._tallies[code]
            if tally.count:
                yield Finding("warning", code, text, what_to_do, tally.count, tally.rows)
        if self._encoder is not None and self._ends:
            yield from self._on_ends(self._encoder)
            yield from self._on_openings(kept)

    def _on_ends(self, encoder: Encoder) -> Iterator[Finding]:
        known = {
            number: count for number, count in self._ends.items() if number in encoder.stop_ids
        }
        if not known:
            return
        names = ", ".join(repr(str(encoder.tokenizer.decode([number]))) for number in known)
        count = sum(known.values())
        text = f"answers end with {names}, where generation stops; it is learned"
        yield Finding("info", "end-of-turn", text, "", count)

    def _on_openings(self, kept: int) -> Iterator[Finding]:
        tally = self._opening_rows
        if not tally.count:
            return
        shares = np.array(self._shares)
        many = float((shares >= 0.5).mean())
        longest = max(self._openings)
        text = (
            f"in {percent(tally.count / kept)} of the pairs both answers start with the same "
            f"{LONG_OPENING} tokens or more (at most {longest}); such tokens teach no preference"
        )
        level = "warning" if many > 0.2 else "info"
        advice = (
            "More than a fifth of the pairs share half of an answer; pairs that differ earlier "
            "teach more."
            if level == "warning"
            else ""
        )
        yield Finding(level, "shared-openings", text, advice, tally.count, tally.rows)


_TEXTS = {
    "end-inside": (
        "an answer holds an end-of-turn token before its end: the model learns to stop there",
        "Remove such tokens from the texts, or add --escape-special.",
    ),
    "end-missing": (
        "an answer does not end with a token that generation stops at: the model does not learn "
        "to stop",
        "Add the end-of-turn token to the ids of the answers.",
    ),
    "bos-doubled": (
        "a prompt starts with two beginning-of-sequence tokens; the model never meets that",
        "Remove the token from the data; it is put there anyway.",
    ),
    "toxic-source": (
        "the source of a row is named as toxic or unsafe; its chosen answers may be harmful",
        "Read some of them; remove the rows if that is not what you want to train.",
    ),
}


def _is_toxic(value: object) -> bool:
    return isinstance(value, str) and any(word in value.lower() for word in TOXIC)


def percent(share: float) -> str:
    """Return a share as "78 %"; what is not all and not nothing is never written as such."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{share:.0%}".replace("%", " %")


def compared_text(fate: Fate) -> str:
    """Return what near duplicates are found by: the last turn of the prompt, and chosen."""
    pair = fate.pair
    if pair is None or isinstance(pair, TokenPair):
        return "" if pair is None else " ".join(map(str, [*pair.prompt, *pair.chosen]))
    prompt = pair.prompt if isinstance(pair.prompt, str) else pair.prompt[-1]["content"]
    return f"{prompt}\n{readable(pair.chosen)}"


def plain_prompt_key(fate: Fate) -> bytes:
    """Return a digest of the prompt in which case and white space do not count."""
    prompt = "" if fate.pair is None else fate.pair.prompt
    is_text = isinstance(prompt, str) or bool(prompt and isinstance(prompt[0], dict))
    text = readable(prompt) if is_text else repr(list(prompt))
    text = " ".join(text.casefold().split())
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


class Reservoir:
    """Keeps some of the pairs, each with the same chance (Vitter's algorithm R).

    Args:
        size: how many.
        seed: of the draw.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.kept: list[TokenPair] = []
        self._size, self._seen = size, 0
        self._random = random.Random(seed)

    def take(self, pair: TokenPair) -> None:
        """Look at one more pair."""
        self._seen += 1
        if len(self.kept) < self._size:
            self.kept.append(pair)
        elif self._size and (at := self._random.randrange(self._seen)) < self._size:
            self.kept[at] = pair
