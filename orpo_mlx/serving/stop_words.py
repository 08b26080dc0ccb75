"""The words of a request that end its answer.

mlx-lm 0.32 ends an answer where the tokens of a word come one by one as its tokenizer writes the
word alone; of any other place it takes the word out of the text and goes on, so that "cat" never
ends "A cat goes meow", whose token is " cat". Here the text is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any


def end_at(words: Sequence[str], pieces: Iterable[Any]) -> Iterator[Any]:
    """Hand on the pieces of an answer up to where the first of some words begins.

    Args:
        words: none empty.
        pieces: mlx-lm's `Response`, one a token.
    """
    held: list[Any] = []
    text = ""
    for piece in pieces:
        held.append(piece)
        text += piece.text
        found = [place for word in words if (place := text.find(word)) >= 0]
        if found:
            yield from _cut(held, text[: min(found)])
            return
        # One more than needed: a piece that says "stop" has its text thrown away by mlx-lm.
        while len(held) > 1 and len(text) - len(held[0].text) >= _open_length(words, text):
            text = text[len(held[0].text) :]
            yield held.pop(0)
    yield from held


def _open_length(words: Sequence[str], text: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a word."""
    longest = min(len(text), max(map(len, words)) - 1)
    return next((n for n in range(longest, 0, -1) if _begins(words, text[-n:])), 0)


def _begins(words: Sequence[str], end: str) -> bool:
    return any(word.startswith(end) for word in words)


def _cut(held: Sequence[Any], kept: str) -> Iterator[Any]:
    *before, last = held
    for piece in before or ([last] if kept else []):
        yield replace(piece, text=kept)
        kept = ""
    yield replace(last, text="", finish_reason="stop")
