"""What pairs can be made of: prompts, prompts with an answer, prompts with several answers.

Supervised data (one good answer), rated or ranked answers, unrated candidates, and prompts alone
are told apart by their columns, as layouts of pairs are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orpo_mlx.data.layouts.columns import list_columns
from orpo_mlx.data.layouts.context import CONTEXT_COLUMNS
from orpo_mlx.data.layouts.convert import PROMPT_COLUMNS
from orpo_mlx.data.layouts.fields import first_column, parsed
from orpo_mlx.data.layouts.scores import VERDICT_COLUMNS
from orpo_mlx.data.layouts.turns import ROLES
from orpo_mlx.data.sources.source import Row, report_problems
from orpo_mlx.data.sources.tables import SCORE_COLUMN
from orpo_mlx.data.types import Account, Drop
from orpo_mlx.errors import DataError
from orpo_mlx.preferences.questions import (
    ANSWER_COLUMNS,
    JUDGING_COLUMNS,
    READERS,
    TALK_COLUMNS,
    Kind,
    PromptAnswers,
    list_column,
    unknown_material,
)

_USUAL = {*PROMPT_COLUMNS, *CONTEXT_COLUMNS, "id", "source", "prompt_id", "provenance"}
"""Columns that are used or say nothing; a reader names the others that it takes."""


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
    questions: list[PromptAnswers] = field(default_factory=list)
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
    unused = sorted(name for name in columns - _USUAL if name not in re.split(r"\W+", words))
    material = Material(kind, words + (f"; not used: {list_columns(unused)}" if unused else ""))
    problems: list[DataError] = []
    for row in rows:
        material.account.read += 1
        try:
            found = read(row)
        except DataError as error:
            problems.append(error)
            continue
        if isinstance(found, PromptAnswers) and is_plain:
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
    _refuse_pairs(rows, columns)
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
    if not asks and not talks:
        raise unknown_material(rows[0].source, columns)
    ends = [_last_role(row.values.get(talks[0])) for row in rows[:100]] if talks else []
    if answers or (not asks and any(ROLES.get(end) == "assistant" for end in ends)):
        return "ratings" if _judging_column(rows, columns) else "answers"
    return "prompts"


def _refuse_pairs(rows: Sequence[Row], columns: set[str]) -> None:
    """Refuse rows that hold a worse answer already: it is not to be written anew."""
    worse = sorted(name for name in columns if name.startswith("rejected") and not _judges(name))
    if worse and any(row.values.get(worse[0]) for row in rows):
        raise DataError(
            f"{rows[0].source}: {worse[0]} is there, so these are pairs already.",
            "Train on them as they are, or write them anew with `orpo-mlx data convert`; there "
            f"--map chosen=... rejected={worse[0]} says which column is which.",
        )


def _judging_column(rows: Sequence[Row], columns: set[str]) -> str | None:
    """Return the column that says how good the answers are, if one does.

    Raises:
        DataError: several could, or one could that is not known.
    """
    found = sorted(
        name
        for name in columns
        if _judges(name) and any(row.values.get(name) not in (None, "") for row in rows)
    )
    if not found or found == [first_column(dict.fromkeys(found), JUDGING_COLUMNS)]:
        return found[0] if found else None
    raise DataError(
        f"{rows[0].source}: {' and '.join(found)} could say how good the answers are.",
        f"--score {found[0]} makes pairs of what it says; --from answers takes every answer as a "
        f"good one, but those that {', '.join(VERDICT_COLUMNS[:3])} or the like call bad.",
    )


def _judges(name: str) -> bool:
    return name in JUDGING_COLUMNS or SCORE_COLUMN.search(name) is not None


def _last_role(value: Any) -> str:
    turns = parsed(value)
    last = turns[-1] if isinstance(turns, list) and turns else None
    return str(last.get("role", last.get("from"))) if isinstance(last, dict) else ""


def _has_scores(rows: Sequence[Row], columns: set[str]) -> bool:
    if not columns.isdisjoint(JUDGING_COLUMNS):
        return True
    items = parsed(rows[0].values.get(list_column(columns) or ""))
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, dict) and not first.keys().isdisjoint(JUDGING_COLUMNS)


def _gathered(questions: list[PromptAnswers]) -> list[PromptAnswers]:
    """Join questions with the same prompt, in the order of their first rows."""
    found: dict[str, PromptAnswers] = {}
    for one in questions:
        known = found.get(repr(one.prompt))
        found[repr(one.prompt)] = one if known is None else PromptAnswers(
            known.prompt, known.answers + one.answers, known.scores + one.scores, known.source,
            known.tools,
        )  # fmt: skip
    return list(found.values())


def _as_text(question: PromptAnswers) -> PromptAnswers | Drop:
    """Take a prompt of one turn as text to be continued."""
    turns = question.prompt
    if len(turns) != 1 or isinstance(turns, str):
        return Drop("several turns, with --plain")
    return PromptAnswers(
        turns[0]["content"], question.answers, question.scores, question.source, question.tools
    )
