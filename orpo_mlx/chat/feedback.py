"""What a person says of answers, as rows to train on; each is on the disk at once.

Two answers to the same turns are a pair, a corrected answer and the original are one, too; one that
is liked or disliked alone is a labelled row, for KTO. Files of chats and of plain text (models
without a chat template) are apart: data have one layout a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orpo_mlx.chat.conversation import SIDES, ChatSide, Conversation, Exchange, as_text
from orpo_mlx.data.layouts.conversation import unusable
from orpo_mlx.data.types import Message, PreferencePair, Text
from orpo_mlx.data.writing import json_line, normal_row
from orpo_mlx.errors import DataError, reason_of
from orpo_mlx.storage.append import append_line, remove_line
from orpo_mlx.storage.data_folder import data_folder

Opinion = Literal["like", "dislike", "left", "right", "correct"]

_SAID = {
    "like": "Liked", "dislike": "Disliked", "left": "The left answer is better",
    "right": "The right answer is better", "correct": "Corrected",
}  # fmt: skip


def pairs_file(is_chat: bool = True) -> Path:
    """Return where pairs of chats go."""
    return data_folder("chat") / ("pairs.jsonl" if is_chat else "text-pairs.jsonl")


def labelled_file(is_chat: bool = True) -> Path:
    """Return where single answers go that were liked or disliked."""
    return data_folder("chat") / ("labelled.jsonl" if is_chat else "text-labelled.jsonl")


@dataclass(frozen=True)
class GivenOpinion:
    """An opinion that is kept.

    Attributes:
        path, line: where its row stands.
    """

    opinion: Opinion
    path: Path
    line: str

    @property
    def text(self) -> str:
        """What was said."""
        return _SAID[self.opinion]


def keep_opinion(
    talk: Conversation, opinion: Opinion, is_chat: bool, about: dict[str, Any]
) -> GivenOpinion:
    """Write what is said of the last answers.

    Args:
        talk: whose last exchange it is about; of "correct" it has the correction.
        opinion: what is said.
        is_chat: whether the model has a chat template; else rows are plain text.
        about: what made the answers.

    Raises:
        DataError: nothing can be learned of it, or it cannot be written.
    """
    exchange = talk.last
    if exchange is None or not exchange.kept:
        raise DataError("There is no answer yet.", "Say something first.")
    turns = talk.prompt()
    prompt = turns if is_chat else as_text(turns)
    made = {**about, **exchange.drawn}
    if opinion in ("like", "dislike"):
        pair, path = _labelled(exchange, prompt, opinion == "like"), labelled_file(is_chat)
        row = normal_row(pair, {"said": opinion, "side": exchange.kept_side, **made})
    else:
        pair, path = _pair(exchange, prompt, opinion), pairs_file(is_chat)
        row = normal_row(pair, {"said": opinion, **made})
    given = GivenOpinion(opinion, path, json_line(row))
    try:
        append_line(path, given.line)
    except OSError as error:
        raise _unwritable(path, error) from None
    return given


def take_back(given: GivenOpinion) -> None:
    """Remove the row of an opinion.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        remove_line(given.path, given.line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(given.path, error) from None


def count_rows(path: Path) -> int:
    """Return the rows of a file, 0 where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    except OSError:
        return 0


def _labelled(exchange: Exchange, prompt: Text, is_good: bool) -> PreferencePair:
    side = exchange.kept_side
    if is_good and not exchange.correction and side and exchange.is_cut(side):
        raise _cut("liked")
    return PreferencePair(prompt, _answer(exchange.kept, prompt), "", label=is_good)


def _pair(exchange: Exchange, prompt: Text, opinion: Opinion) -> PreferencePair:
    if opinion == "correct":
        side = exchange.kept_side
        chosen, rejected = exchange.correction, exchange.answers[side] if side else ""
    else:
        better, worse = SIDES if opinion == "left" else SIDES[::-1]
        if not {*SIDES} <= {*exchange.answers}:
            raise DataError(
                "There is one answer; two are needed to say which is better.",
                "Say that it is liked or disliked, or let both sides answer.",
            )
        chosen, rejected = exchange.answers[better], exchange.answers[worse]
        if chosen.strip() and exchange.is_cut(better):
            raise _cut("better")
    if dropped := unusable(chosen, rejected):
        raise DataError(
            f"Nothing can be learned of these two answers: {dropped.reason}.",
            "Ask something else, or at another temperature.",
        )
    return PreferencePair(prompt, _answer(chosen, prompt), _answer(rejected, prompt))


def _answer(text: str, prompt: Text) -> Text:
    """Return an answer as turns or text, as the prompt is."""
    turn: Message = {"role": "assistant", "content": text}
    return text if isinstance(prompt, str) else [turn]


def _cut(word: str) -> DataError:
    return DataError(
        f"An answer that was cut cannot be the {word} one: a model would learn to end there.",
        "Let it end by itself, with a longer limit (/max-tokens) if need be, or correct it.",
    )


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be written ({reason_of(error)}); nothing is kept.",
        "Free some space, or set ORPO_MLX_HOME to another folder.",
    )


def better_side(opinion: Opinion) -> ChatSide | None:
    """Return the side that an opinion calls better, None for none."""
    return SIDES[0] if opinion == "left" else SIDES[1] if opinion == "right" else None
