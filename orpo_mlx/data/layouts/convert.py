"""One row to a pair: what becomes of its columns, for each layout.

A row that is dirty (empty, identical, one-sided) is dropped with a reason; values of the wrong type
raise `DataError`, since then the file is not what it seems to be.
"""

from __future__ import annotations

from typing import Any

from orpo_mlx.data.layouts.context import without_column
from orpo_mlx.data.layouts.conversation import conversation_pair, unusable
from orpo_mlx.data.layouts.fields import (
    ONE_LAYOUT,
    first_column,
    missing,
    parsed,
    text_of,
    wrong_type,
)
from orpo_mlx.data.layouts.scores import order_by_label, order_by_strength, order_by_winner
from orpo_mlx.data.layouts.turns import (
    answer,
    asked_turns,
    is_messages,
    is_talk,
    messages_of,
    transcript_turns,
    user,
)
from orpo_mlx.data.sources.source import Row, kind_of
from orpo_mlx.data.types import Drop, Message, Pair, PreferencePair, TokenPair
from orpo_mlx.errors import DataError

PROMPT_COLUMNS = ("prompt", "question", "instruction", "input")
TALK_COLUMNS = ("conversations", "messages")
WORSE = "rejected_response"
ALPACA_COLUMNS = {"instruction", "input"}
COMPARED_PROMPTS = ("prompt", "context", "question", "instruction")
"""Prompt columns of A/B data; the first that is there counts."""
RESPONSES = (("response_1", "response_2"), ("response1", "response2"), ("response_a", "response_b"))
STRENGTHS = ("preference_strength", "overall_preference")
WINNERS = ("winner", "winner_model_a")

PROMPT_DIFFERS = "prompt column differs from the turns"


# Chats ------------------------------------------------------------------------------------------


def turns_pair(row: Row) -> Pair | Drop:
    """Chosen and rejected as turns, with the prompt beside them, inside them, or both."""
    if dropped := missing(row, "chosen", "rejected"):
        return dropped
    name = first_column(row.values, PROMPT_COLUMNS) or "prompt"
    prompt = row.values.get(name)
    if is_messages(prompt):
        return _explicit_pair(row, messages_of(row, name))
    chosen, rejected = _both_sides(row)
    notes: tuple[str, ...] = ()
    if prompt is not None and (prompt := text_of(row, name)).strip():
        if len(chosen) == len(rejected) == 1:
            chosen, rejected = [user(prompt), *chosen], [user(prompt), *rejected]
        elif name == "prompt" and not _is_among_turns(prompt, chosen):
            notes = (PROMPT_DIFFERS,)
    return conversation_pair(row, chosen, rejected, notes)


def ranking_pair(row: Row) -> Pair | Drop:
    """Turns before the answers in their own column."""
    talk = first_column(row.values, TALK_COLUMNS) or TALK_COLUMNS[0]
    if dropped := missing(row, talk, "chosen", "rejected"):
        return dropped
    turns, chosen = messages_of(row, talk), _side(row, "chosen")
    # What was learned from as a whole chat may end with the good answer.
    return _explicit_pair(row, turns[:-1] if chosen and turns[-1:] == chosen[-1:] else turns)


def worse_answer_pair(row: Row) -> Pair | Drop:
    """A whole chat, whose last turn is the good answer, and a worse answer."""
    talk = first_column(row.values, TALK_COLUMNS) or TALK_COLUMNS[0]
    if dropped := missing(row, talk, WORSE):
        return dropped
    turns = messages_of(row, talk)
    sides = {"chosen": turns[-1:], "rejected": _side(row, WORSE)}
    return _explicit_pair(Row({**row.values, **sides}, row.source), turns[:-1])


def _explicit_pair(row: Row, prompt: list[Message]) -> Pair | Drop:
    """Prompt as turns; the sides are answers, or conversations that repeat the prompt."""
    sides = []
    for name, side in zip(("chosen", "rejected"), _both_sides(row), strict=True):
        if not side:
            return Drop(f"empty {name}")
        own = side[len(prompt) :] if prompt and side[: len(prompt)] == prompt else side
        # Calls of tools and what they gave may stand before an answer.
        if len(own) != 1 and any(turn["role"] in ("user", "system") for turn in own):
            return Drop("prompts differ")
        if not own:
            return Drop("last turn not assistant")
        sides.append([*prompt, *own])
    return conversation_pair(row, sides[0], sides[1])


def _both_sides(row: Row) -> tuple[list[Message], list[Message]]:
    _require_same_kind(row)
    return _side(row, "chosen"), _side(row, "rejected")


def _require_same_kind(row: Row) -> None:
    chosen, rejected = row.values["chosen"], row.values["rejected"]
    if is_messages(chosen) != is_messages(rejected) and (
        isinstance(chosen, str) or isinstance(rejected, str)
    ):
        raise DataError(
            f"{row.source}: chosen is {kind_of(chosen)}, rejected is {kind_of(rejected)}; "
            "needed: both text, or both messages.",
            ONE_LAYOUT,
        )


def _side(row: Row, name: str) -> list[Message]:
    value = row.values[name]
    is_text = isinstance(value, str) and not is_messages(value)
    return answer(value) if is_text else messages_of(row, name)


def _is_among_turns(prompt: str, turns: list[Message]) -> bool:
    return any(prompt.strip() == turn["content"].strip() for turn in turns[:-1])


# Text -------------------------------------------------------------------------------------------


def _both_texts(row: Row) -> tuple[str, str]:
    if not isinstance(row.values["chosen"], str) or not isinstance(row.values["rejected"], str):
        _require_same_kind(row)
    return text_of(row, "chosen"), text_of(row, "rejected")


def text_pair(row: Row) -> Pair | Drop:
    """Three plain strings, taken exactly as they are."""
    if dropped := missing(row, "prompt", "chosen", "rejected"):
        return dropped
    prompt, (chosen, rejected) = text_of(row, "prompt"), _both_texts(row)
    if not prompt.strip():
        return Drop("empty prompt")
    return unusable(chosen, rejected) or PreferencePair(prompt, chosen, rejected, row.source)


def single_turn_pair(row: Row) -> Pair | Drop:
    """A question in its own column (and a system column): one chat turn."""
    names = [name for name in PROMPT_COLUMNS if name in row.values]
    if dropped := missing(row, *(set(names) - {"input"} or names or ["prompt"])):
        return dropped
    if dropped := missing(row, "chosen", "rejected"):
        return dropped
    # Alpaca rows hold the text to work on in "input"; it is empty or null where there is none.
    parts = [text_of(row, name) for name in names if row.values[name] is not None]
    question = "\n\n".join(part for part in parts if part.strip())
    if not question:
        return Drop("empty prompt")
    turns, texts = asked_turns(question), _both_texts(row)
    if is_talk(question):
        texts = texts[0].strip(), texts[1].strip()  # as in a transcript
    chosen, rejected = ([*turns, *answer(text)] for text in texts)
    return conversation_pair(row, chosen, rejected)


def responses_pair(row: Row) -> Pair | Drop:
    """An instruction with its better and its worse response."""
    renamed = {"chosen_response": "chosen", "rejected_response": "rejected"}
    values = {renamed.get(name, name): value for name, value in row.values.items()}
    return single_turn_pair(Row(values, row.source))


def transcript_pair(row: Row) -> Pair | Drop:
    """Whole dialogues in one string each, with "Human:" and "Assistant:" before the turns."""
    if dropped := missing(row, "chosen", "rejected"):
        return dropped
    chosen, rejected = (transcript_turns(text) for text in _both_texts(row))
    if chosen is None or rejected is None:
        return Drop("text before the first turn")
    return conversation_pair(row, chosen, rejected)


# Two responses and a verdict ----------------------------------------------------------------------


def label_pair(row: Row) -> Pair | Drop:
    """Two answers to a post, and a label that is 1 where the first is preferred."""
    fields = ("history", "human_ref_A", "human_ref_B", "labels")
    if dropped := missing(row, *fields):
        return dropped
    return _ordered(row, "history", fields[1], fields[2], order_by_label(row.values["labels"]))


def strength_pair(row: Row) -> Pair | Drop:
    """Two answers and a signed strength of preference."""
    prompt, first, second = _ab_columns(row.values)
    strength = first_column(row.values, STRENGTHS) or STRENGTHS[0]
    if dropped := missing(row, prompt, first, second, strength):
        return dropped
    return _ordered(row, prompt, first, second, order_by_strength(row.values[strength]))


def arena_answers_pair(row: Row) -> Pair | Drop:
    """A prompt, the answers of two models, and who won; lists of turns as JSON text count."""
    prompt, first, second = _ab_columns(row.values)
    if dropped := missing(row, prompt, first, second):
        return dropped
    verdict = order_by_winner(row.values)
    asked, *answers = (parsed(row.values[name]) for name in (prompt, first, second))
    if not isinstance(asked, list) or any(isinstance(turn, dict) for turn in asked):
        return _ordered(row, prompt, first, second, verdict)
    if any(not isinstance(a, list) or len(a) != len(asked) for a in answers):
        return Drop("prompts and answers differ in number")
    sides = [_turn_about(row, asked, texts) for texts in answers]
    return _ordered_sides(without_column(row, prompt), sides[0], sides[1], verdict)


def _turn_about(row: Row, asked: list[Any], answers: list[Any]) -> list[Message]:
    """Questions and answers by turns; a null becomes an empty text, which is dropped later."""
    turns: list[Message] = []
    for question, text in zip(asked, answers, strict=True):
        for role, said in (("user", question), ("assistant", text)):
            if not isinstance(said, str | None):
                raise wrong_type(row, "a turn", said, "text")
            turns.append({"role": role, "content": said or ""})
    return turns


def arena_talk_pair(row: Row) -> Pair | Drop:
    """Two whole conversations and who won."""
    if dropped := missing(row, "conversation_a", "conversation_b"):
        return dropped
    first, second = (messages_of(row, f"conversation_{side}") for side in "ab")
    return _ordered_sides(row, first, second, order_by_winner(row.values))


def _ab_columns(values: dict[str, Any]) -> tuple[str, str, str]:
    """Return the columns of the prompt and of both responses."""
    prompt = first_column(values, COMPARED_PROMPTS) or COMPARED_PROMPTS[0]
    found = (pair for pair in RESPONSES if set(pair) <= values.keys())
    return (prompt, *next(found, RESPONSES[0]))


def _ordered(row: Row, prompt: str, first: str, second: str, order: int | Drop) -> Pair | Drop:
    """Make a chat pair of a prompt (text or turns) and two answers, in the order of the verdict."""
    if isinstance(order, Drop):
        return order
    if is_messages(row.values[prompt]):
        turns = messages_of(row, prompt)
    else:
        turns = asked_turns(text_of(row, prompt))
    sides = [[*turns, *answer(text_of(row, name))] for name in (first, second)]
    return _ordered_sides(without_column(row, prompt), sides[0], sides[1], order)


def _ordered_sides(
    row: Row, first: list[Message], second: list[Message], order: int | Drop
) -> Pair | Drop:
    if isinstance(order, Drop):
        return order
    chosen, rejected = (first, second) if order == 1 else (second, first)
    return conversation_pair(row, chosen, rejected)


# Token ids ----------------------------------------------------------------------------------------


def token_pair(row: Row) -> Pair | Drop:
    """Token ids, taken exactly as they are."""
    fields = ("prompt_ids", "chosen_ids", "rejected_ids")
    if dropped := missing(row, *fields):
        return dropped
    prompt, chosen, rejected = (token_ids(row, name) for name in fields)
    for name, ids in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not ids:
            return Drop(f"empty {name}")
    return TokenPair(prompt, chosen, rejected, row.source)


def token_ids(row: Row, name: str) -> list[int]:
    """Return a column's token ids.

    Raises:
        DataError: it is something else.
    """
    value = parsed(row.values[name])
    if not isinstance(value, list):
        raise wrong_type(row, name, value, "a list of token ids")
    for i, item in enumerate(value):
        if type(item) is not int or not 0 <= item < 2**31:
            raise DataError(
                f"{row.source}: {name}[{i}] is {item!r:.40}; needed: a token id (0 or above).",
                "Correct the ids, or give text instead of ids.",
            )
    return value
