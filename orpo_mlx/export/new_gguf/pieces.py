"""A tokenizer of SentencePiece's kind in a GGUF, from tokenizer.json: pieces, scores, kinds.

llama.cpp joins whichever neighbours make the piece of the highest score; tokenizer.json lists the
pairs that may be joined, the first before all others. Both are the same where every way to put a
piece together is listed, and the score of a piece is the place of its first pair.
"""

from __future__ import annotations

import re
from typing import Any

import gguf

SPACE = "\u2581"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_REPLACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPENDS = {"type": "Prepend", "prepend": SPACE}
_CUTS_NOTHING = {
    "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
}  # fmt: skip
"""Of Gemma; no space is left by then."""
_NEVER = -1e6


def puts_space_first(tokenizer: dict[str, Any]) -> bool | None:
    """Return whether a text gets a space before it; None if it is changed otherwise, too."""
    normalizer = tokenizer.get("normalizer") or {}
    parts = normalizer.get("normalizers", [normalizer])
    if tokenizer.get("pre_tokenizer") not in (None, _CUTS_NOTHING):
        return None
    if parts == [_PREPENDS, _REPLACES]:
        return True
    return False if parts == [_REPLACES] else None


def unlisted_pair(tokenizer: dict[str, Any]) -> str:
    """Return a pair that llama.cpp joins and tokenizer.json does not list; "" if there is none."""
    vocabulary, merges = _vocabulary(tokenizer), set(map(_pair, tokenizer["model"]["merges"]))
    for text in vocabulary:
        for cut in range(1, len(text)):
            pair = text[:cut], text[cut:]
            if pair not in merges and pair[0] in vocabulary and pair[1] in vocabulary:
                return " + ".join(pair)
    return ""


def piece_across_lines(tokenizer: dict[str, Any]) -> str:
    """Return a token that goes over the end of a line; "" if there is none."""
    return next((t for t in _vocabulary(tokenizer) if "\n" in t and t.strip("\n")), "")


def scores(tokenizer: dict[str, Any], texts: list[str]) -> list[float]:
    """Return the score of each token; those that nothing is joined to come last."""
    places: dict[str, int] = {}
    for place, pair in enumerate(map(_pair, tokenizer["model"]["merges"])):
        places.setdefault("".join(pair), place)
    return [-float(places[text]) if text in places else _NEVER for text in texts]


def kind(tokenizer: dict[str, Any], text: str) -> gguf.TokenType:
    """Return the kind of a token of the model's own, none that was added."""
    if _BYTE.fullmatch(text):
        return gguf.TokenType.BYTE
    is_unknown = text == tokenizer["model"].get("unk_token")
    return gguf.TokenType.UNKNOWN if is_unknown else gguf.TokenType.NORMAL


def _vocabulary(tokenizer: dict[str, Any]) -> set[str]:
    """Return the tokens that texts are joined to."""
    added = {token["content"] for token in tokenizer.get("added_tokens") or []}
    return {text for text in tokenizer["model"]["vocab"] if text not in added}


def _pair(merge: str | list[str]) -> tuple[str, str]:
    if isinstance(merge, str):
        left, _, right = merge.partition(" ")
        return left, right
    return merge[0], merge[1]
