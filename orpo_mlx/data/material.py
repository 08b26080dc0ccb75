"""What pairs can be made of: prompts, prompts with an answer, prompts with several answers.

Supervised data (one good answer), rated or ranked answers, unrated candidates, and prompts alone
are told apart by their columns, as layouts of pairs are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orpo_mlx.data.fields import parsed
from orpo_mlx.data.mapping import list_columns
from orpo_mlx.data.pairs import Account, Drop
from orpo_mlx.data.questions import (
    ANSWER_COLUMNS,
    RANK_COLUMNS,
    READERS,
    SCORE_COLUMNS,
    TALK_COLUMNS,
    Kind,
    Question,
    list_column,
    unknown_material,
)
from orpo_mlx.data.row_pairs import PROMPT_COLUMNS
from orpo_mlx.data.sources import Row, report_problems
from orpo_mlx.data.turns import ToolCalls
from orpo_mlx.errors import DataError


@dataclass
class Material:
    """A source that is not pairs yet.

    Attributes:
        kind: what its rows are.
        columns: which columns were taken for what, in words.
        questions: what can be used.
        account: of the rows; a row whose prompt came before is kept as part of that question.
    """

    kind: Kind
    columns: str
    questions: list[Question] = field(default_factory=list)
    account: Account = field(default_factory=Account)


def read_material(
    rows: Sequence[Row], kind: Kind | None = None, score: str | None = None, is_plain: bool = False
) -> Material:
    """Tell what rows are and read them.

    Args:
        rows: at least one.
        kind: what they are; None: told by the columns.
        score: the column, or the key beside each answer, that holds scores.
        is_plain: whether prompts are text to be continued, not questions of a chat.

    Raises:
        DataError: the columns fit nothing or two things, or values have wrong types.
    """
    columns = {name for row in rows for name in row.values}
    kind = kind or _detect(rows, columns, score)
    read, words = READERS[kind](rows, columns, score)
    material = Material(kind, words)
    problems: list[DataError] = []
    for row in rows:
        material.account.read += 1
        try:
            found = read(row)
        except ToolCalls:
            found = Drop("tool calls in a turn")
        except DataError as error:
            problems.append(error)
            continue
        if isinstance(found, Question) and is_plain:
            found = _as_text(found)
        if isinstance(found, Drop):
            material.account.drop(found.reason, row.source)
        else:
            material.questions.append(found)
    if problems:
        texts = [problem.message for problem in problems]
        raise report_problems(texts, problems[0].what_to_do, noun="rows")
    if kind == "ratings" and not list_column(columns):
        material.questions = _gathered(material.questions)
    material.account.kept = material.account.read - sum(material.account.dropped.values())
    return material


def _detect(rows: Sequence[Row], columns: set[str], score: str | None) -> Kind:
    if list_column(columns):
        return "ratings" if score or _has_scores(rows, columns) else "candidates"
    if score:
        return "ratings"
    talks = [name for name in TALK_COLUMNS if name in columns]
    asks = not columns.isdisjoint(PROMPT_COLUMNS)
    answers = [name for name in ANSWER_COLUMNS if name in columns]
    if asks and talks and answers:
        raise DataError(
            f"{rows[0].source}: both {talks[0]} and {answers[0]} could hold the answers.",
            f"Columns found: {list_columns(list(columns))}. Keep one of both.",
        )
    if "chosen" in columns and "rejected" in columns:
        raise DataError(
            f"{rows[0].source}: chosen and rejected are there, so these are pairs already.",
            "Train on them as they are, or write them anew with `orpo-mlx data convert`.",
        )
    if talks and not asks:
        ends = [_last_role(row.values.get(talks[0])) for row in rows[:100]]
        return "answers" if any(end in ("assistant", "gpt") for end in ends) else "prompts"
    if asks:
        return "answers" if answers else "prompts"
    raise unknown_material(rows[0].source, columns)


def _last_role(value: Any) -> str:
    turns = parsed(value)
    last = turns[-1] if isinstance(turns, list) and turns else None
    return str(last.get("role", last.get("from"))) if isinstance(last, dict) else ""


def _has_scores(rows: Sequence[Row], columns: set[str]) -> bool:
    if not columns.isdisjoint((*SCORE_COLUMNS, *RANK_COLUMNS)):
        return True
    items = parsed(rows[0].values.get(list_column(columns) or ""))
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, dict) and not first.keys().isdisjoint((*SCORE_COLUMNS, *RANK_COLUMNS))


def _gathered(questions: list[Question]) -> list[Question]:
    """Join questions with the same prompt, in the order of their first rows."""
    found: dict[str, Question] = {}
    for one in questions:
        known = found.get(repr(one.prompt))
        found[repr(one.prompt)] = one if known is None else Question(
            known.prompt, known.answers + one.answers, known.scores + one.scores, known.source,
            known.tools,
        )  # fmt: skip
    return list(found.values())


def _as_text(question: Question) -> Question | Drop:
    """Take a prompt of one turn as text to be continued."""
    turns = question.prompt
    if len(turns) != 1 or isinstance(turns, str):
        return Drop("several turns, with --plain")
    return Question(
        turns[0]["content"], question.answers, question.scores, question.source, question.tools
    )
