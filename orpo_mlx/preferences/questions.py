"""A prompt and the answers there are, read from one row; what `material.py` gathers.

Each reader is made for the columns of a source once, and then takes one row after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from orpo_mlx.data.layouts import labelled
from orpo_mlx.data.layouts.columns import list_columns
from orpo_mlx.data.layouts.context import tools_of, with_context
from orpo_mlx.data.layouts.convert import ALPACA_COLUMNS, PROMPT_COLUMNS
from orpo_mlx.data.layouts.fields import (
    first_column,
    missing,
    number_of,
    parsed,
    text_of,
    wrong_type,
)
from orpo_mlx.data.layouts.scores import VERDICT_COLUMNS, verdict_of
from orpo_mlx.data.layouts.turns import asked_turns, is_messages, messages_of, whole_text
from orpo_mlx.data.sources.source import Row
from orpo_mlx.data.types import Drop, Message
from orpo_mlx.errors import DataError
from orpo_mlx.text.spelling import did_you_mean

Kind = Literal["answers", "prompts", "ratings", "candidates"]
KINDS: tuple[Kind, ...] = get_args(Kind)

TALK_COLUMNS = ("messages", "conversations")
ANSWER_COLUMNS = (*labelled.ANSWER_COLUMNS, "chosen")
LIST_COLUMNS = ("responses", "completions", "candidates", "generations", "answers")
SCORE_COLUMNS = ("scores", "ratings", "score", "rating", "overall_score")
RANK_COLUMNS = ("ranks", "ranking", "rank")
JUDGING_COLUMNS = (*SCORE_COLUMNS, *RANK_COLUMNS, *VERDICT_COLUMNS)
"""Columns that say how good an answer is."""
MARKED_BAD = "answer marked as bad"
MAPPED = (
    "prompt", "system", "tools", "messages", "answer", "responses", "scores", "score", "ranks",
    "rank",
)  # fmt: skip
"""What a column can be mapped to."""
TEXT_KEYS = ("response", "text", "content", "completion", "answer")


@dataclass(frozen=True)
class PromptAnswers:
    """A prompt, and the answers there are.

    Attributes:
        prompt: turns up to where an answer begins, or text to be continued.
        answers: of one answer: the good one.
        scores: of each answer, higher is better; empty if nobody scored them.
        source: of the row, or of the first row of several with this prompt.
        tools: what the prompt offers as tools.
    """

    prompt: list[Message] | str
    answers: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    source: str = ""
    tools: list[dict[str, Any]] | None = None


def unknown_material(source: str, columns: set[str]) -> DataError:
    """Return the error for rows that nothing can be made of."""
    return DataError(
        f"{source}: no pairs can be made of these columns: {list_columns(list(columns))}.\n"
        "Needed: a prompt (prompt, question or instruction; or messages), and with it an answer "
        f"({', '.join(ANSWER_COLUMNS)}), a list of answers ({', '.join(LIST_COLUMNS)}) or nothing.",
        "Rename the columns; --from says what the rows are, --score which column rates them.",
    )


def list_column(columns: set[str]) -> str | None:
    return next((name for name in LIST_COLUMNS if name in columns), None)


Read = Callable[[Row], "PromptAnswers | Drop"]


def _prompt_reader(columns: set[str], source: str) -> tuple[Callable[[Row], Any], str]:
    """Return what reads the prompt's turns (or a Drop), and its columns in words."""
    names = [name for name in PROMPT_COLUMNS if name in columns]
    if talk := None if names else first_column(dict.fromkeys(columns), TALK_COLUMNS):
        return lambda row: missing(row, talk) or _asked(row, messages_of(row, talk)), talk
    if not names:
        raise unknown_material(source, columns)
    if len(names) > 1 and set(names) != ALPACA_COLUMNS:
        raise DataError(
            f"{source}: two columns could be the prompt: {' and '.join(names)}.",
            "Keep one of them and remove or rename the other.",
        )

    def read(row: Row) -> list[Message] | Drop:
        if len(names) == 1 and is_messages(row.values.get(names[0])):
            return _asked(row, messages_of(row, names[0]))
        if dropped := missing(row, *(set(names) - {"input"} or names)):
            return dropped
        parts = [text_of(row, name) for name in names if row.values.get(name) is not None]
        return _asked(row, asked_turns("\n\n".join(part for part in parts if part.strip())))

    return read, " + ".join(names)


def _prompt_beside(prompt: Callable[[Row], Any], row: Row, *columns: str) -> Any:
    """Return the prompt's turns, or a Drop if it or one of the other columns is missing."""
    turns = prompt(row)
    return turns if isinstance(turns, Drop) else missing(row, *columns) or turns


def _asked(row: Row, turns: list[Message]) -> list[Message] | Drop:
    if not turns or not turns[-1]["content"].strip():
        return Drop("empty prompt")
    if turns[-1]["role"] == "assistant":
        return Drop("prompt ends with an assistant turn")
    return with_context(row, turns)


def _prompts(rows: Sequence[Row], columns: set[str], _: str | None) -> tuple[Read, str]:
    prompt, words = _prompt_reader(columns, rows[0].source)

    def read(row: Row) -> PromptAnswers | Drop:
        turns = prompt(row)
        if isinstance(turns, Drop):
            return turns
        return PromptAnswers(turns, source=row.source, tools=tools_of(row))

    return read, f"prompts in {words}"


def _answer_reader(columns: set[str], source: str) -> tuple[Callable[[Row], Any], str]:
    """Return what reads turns and an answer to them (or a Drop), and its columns in words."""
    talk = first_column(dict.fromkeys(columns), TALK_COLUMNS)
    name = first_column(dict.fromkeys(columns), ANSWER_COLUMNS)
    if talk and not name:
        return lambda row: _talked(row, talk), f"questions and answers in {talk}"
    if not name:
        raise unknown_material(source, columns)
    prompt, words = _prompt_reader(columns, source)

    def read(row: Row) -> tuple[list[Message], str] | Drop:
        turns = _prompt_beside(prompt, row, name)
        if isinstance(turns, Drop):
            return turns
        text = _answer_text(row, name)
        return text if isinstance(text, Drop) else (turns, text)

    return read, f"prompts in {words}, answers in {name}"


def _talked(row: Row, talk: str) -> tuple[list[Message], str] | Drop:
    if dropped := missing(row, talk):
        return dropped
    turns = messages_of(row, talk)
    if not turns or turns[-1]["role"] != "assistant":
        return Drop("last turn not assistant")
    asked, text = _asked(row, turns[:-1]), _text_of_turn(turns[-1])
    if isinstance(asked, Drop):
        return asked
    return text if isinstance(text, Drop) else (asked, text)


def _answers(rows: Sequence[Row], columns: set[str], _: str | None) -> tuple[Read, str]:
    answered, words = _answer_reader(columns, rows[0].source)
    label = first_column(dict.fromkeys(columns), VERDICT_COLUMNS)

    def read(row: Row) -> PromptAnswers | Drop:
        found = answered(row)
        if isinstance(found, Drop):
            return found
        turns, text = found
        if label and (dropped := _marked_bad(row.values.get(label))):
            return dropped
        if not text.strip():
            return Drop("empty answer")
        return PromptAnswers(turns, (text,), source=row.source, tools=tools_of(row))

    return read, words + (f", of those that {label} calls good" if label else "")


def _answer_text(row: Row, name: str) -> str | Drop:
    """Return an answer that is text, or the last turn of a list."""
    if not is_messages(row.values[name]):
        return text_of(row, name)
    turns = messages_of(row, name)
    return _text_of_turn(turns[-1]) if turns else ""


def _text_of_turn(turn: Message) -> str | Drop:
    return Drop("tool calls in the answer") if "tool_calls" in turn else whole_text(turn)


def _marked_bad(label: Any) -> Drop | None:
    verdict = verdict_of(label)
    if verdict is None:
        return Drop("label is neither good nor bad")
    return Drop(MARKED_BAD) if verdict <= 0 else None


def _ratings(rows: Sequence[Row], columns: set[str], score: str | None) -> tuple[Read, str]:
    name = list_column(columns)
    if name is None:
        return _flat_ratings(rows, columns, score)
    prompt, words = _prompt_reader(columns, rows[0].source)
    names = (score,) if score else JUDGING_COLUMNS

    def read(row: Row) -> PromptAnswers | Drop:
        turns = _prompt_beside(prompt, row, name)
        if isinstance(turns, Drop):
            return turns
        texts, inner = _listed(row, name, names)
        scores = inner if inner is not None else _listed_scores(row, names)
        if scores is None or len(scores) != len(texts):
            return Drop("answers and scores differ in number")
        return _rated(row, turns, texts, scores)

    return read, f"prompts in {words}, answers in {name}, {_score_words(columns, score)}"


def _score_words(columns: set[str], score: str | None) -> str:
    beside = [name for name in JUDGING_COLUMNS if name in columns]
    known = score or (beside[0] if beside else None)
    return f"scores in {known}" if known in columns else f"{known or 'scores'} beside each answer"


def _flat_ratings(rows: Sequence[Row], columns: set[str], score: str | None) -> tuple[Read, str]:
    """One answer and one score a row; rows with the same prompt belong together."""
    answered, words = _answer_reader(columns, rows[0].source)
    scored = score or first_column(dict.fromkeys(columns), JUDGING_COLUMNS)
    if scored not in columns:
        raise DataError(
            f"{rows[0].source}: --score {scored}: there is no such column"
            f"{did_you_mean(str(scored), columns)}",
            f"Columns found: {list_columns(list(columns))}.",
        )

    def read(row: Row) -> PromptAnswers | Drop:
        found = missing(row, scored) or answered(row)
        if isinstance(found, Drop):
            return found
        turns, text = found
        value = row.values[scored]
        value = _negated(value) if scored in RANK_COLUMNS else value
        return _rated(row, turns, [text], [value])

    return read, f"{words}, scores in {scored}"


def _candidates(rows: Sequence[Row], columns: set[str], _: str | None) -> tuple[Read, str]:
    prompt, words = _prompt_reader(columns, rows[0].source)
    name = list_column(columns)
    if name is None:
        raise unknown_material(rows[0].source, columns)

    def read(row: Row) -> PromptAnswers | Drop:
        turns = _prompt_beside(prompt, row, name)
        if isinstance(turns, Drop):
            return turns
        texts = tuple(dict.fromkeys(text for text in _listed(row, name, ())[0] if text.strip()))
        if len(texts) < 2:
            return Drop("fewer than two different answers")
        return PromptAnswers(turns, texts, source=row.source, tools=tools_of(row))

    return read, f"prompts in {words}, answers in {name}"


READERS: dict[Kind, Callable[[Sequence[Row], set[str], str | None], tuple[Read, str]]] = {
    "answers": _answers,
    "prompts": _prompts,
    "ratings": _ratings,
    "candidates": _candidates,
}


def _listed(
    row: Row, name: str, score_names: tuple[str, ...]
) -> tuple[list[str], list[Any] | None]:
    """Return the texts of a list of answers, and the scores beside them if they are there."""
    items = parsed(row.values[name])
    if not isinstance(items, list):
        raise wrong_type(row, name, items, "a list of answers")
    texts: list[str] = []
    scores: list[Any] = []
    for i, item in enumerate(items):
        text = item
        if isinstance(item, dict):
            key = first_column(item, TEXT_KEYS)
            text = item.get(key) if key else None
            if scored := first_column(item, score_names):
                value = item[scored]
                scores.append(_negated(value) if scored in RANK_COLUMNS else value)
        if not isinstance(text, str):
            raise wrong_type(row, f"{name}[{i}]", text, "text, or an object with a response")
        texts.append(text)
    return texts, scores if scores else None


def _listed_scores(row: Row, names: tuple[str, ...]) -> list[Any] | None:
    name = first_column(row.values, names)
    values = parsed(row.values[name]) if name else None
    if not isinstance(values, list):
        return None
    return [_negated(value) for value in values] if name in RANK_COLUMNS else values


def _negated(value: Any) -> Any:
    """Turn a rank, of which 1 is the best, into a score."""
    number = number_of(value)
    return None if number is None else -number


def _rated(
    row: Row, turns: list[Message], texts: Sequence[str], values: Sequence[Any]
) -> PromptAnswers | Drop:
    scores = [verdict_of(value) for value in values]
    both = [
        (text, score)
        for text, score in zip(texts, scores, strict=True)
        if score is not None and text.strip()
    ]
    if not both:
        return Drop("no answer with a score")
    answers, numbers = zip(*both, strict=True)
    return PromptAnswers(turns, answers, numbers, row.source, tools_of(row))
