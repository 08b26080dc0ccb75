"""Rows to preference pairs: the layout is decided once, from the columns, and can be shown.

What layouts there are stands in `table.py`; here one is chosen and used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orpo_mlx.data.layouts.columns import EXAMPLE, list_columns, map_row, map_rows, with_others
from orpo_mlx.data.layouts.context import CONTEXT_COLUMNS
from orpo_mlx.data.layouts.convert import ALPACA_COLUMNS, PROMPT_COLUMNS, PROMPT_DIFFERS
from orpo_mlx.data.layouts.scores import INVERTED, TIE, judge_scores, margin_of, score_columns
from orpo_mlx.data.layouts.several import one_answer_each
from orpo_mlx.data.layouts.table import LAYOUTS, Layout
from orpo_mlx.data.sources.source import Row, report_problems
from orpo_mlx.data.types import Account, Drop, Pair
from orpo_mlx.errors import DataError
from orpo_mlx.text.spelling import did_you_mean

if TYPE_CHECKING:
    from orpo_mlx.config import TrainConfig

__all__ = [
    "LAYOUTS", "PROMPT_DIFFERS", "Layout", "LayoutChoice", "detect_layout", "laid_out", "to_pairs",
]  # fmt: skip


@dataclass(frozen=True)
class LayoutChoice:
    """What the user said about the rows; by default nothing, and all is found out.

    Attributes:
        layout: key of a layout ("explicit-chat"), None to detect it.
        mapping: column paths by field.
        keep_ties, keep_inverted: keep rows whose scores are equal, or the wrong way round.
    """

    layout: str | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    keep_ties: bool = False
    keep_inverted: bool = False

    @classmethod
    def of(cls, config: TrainConfig) -> LayoutChoice:
        """Return what the settings of a run say."""
        return cls(config.layout, config.map or {}, config.keep_ties, config.keep_inverted)


def laid_out(rows: Sequence[Row], choice: LayoutChoice) -> tuple[Sequence[Row], Layout]:
    """Return rows with one worse answer each, and their layout; raises as `detect_layout`."""
    rows = one_answer_each(rows, choice.mapping)
    return rows, detect_layout(rows, choice)


def detect_layout(rows: Sequence[Row], choice: LayoutChoice | None = None) -> Layout:
    """Decide the layout of a file from its columns and one sample row.

    Args:
        rows: at least one; of a long file the first thousands are enough.
        choice: what the user said; a mapping overrides the columns.

    Raises:
        DataError: no layout fits, two fit equally, two columns could be the prompt, or what the
            user said does not fit the columns.
    """
    choice = choice or LayoutChoice()
    source = rows[0].source
    original = {name for row in rows for name in row.values}
    mapping = choice.mapping
    if mapping:
        mapping, rows = _mapped(rows, choice)
    columns = {name for row in rows for name, value in row.values.items() if value or _counts(name)}
    layout = (
        _named_layout(choice.layout, columns, source)
        if choice.layout
        else _only_match(columns, _sample(rows), source, "prompt" in choice.mapping, original)
    )
    if layout.has_one_prompt:
        _refuse_two_prompts(columns)
    kept = {TIE: choice.keep_ties, INVERTED: choice.keep_inverted}
    keeps = tuple(reason for reason, is_kept in kept.items() if is_kept)
    return dataclasses.replace(layout, mapping=mapping, keeps=keeps)


def _mapped(rows: Sequence[Row], choice: LayoutChoice) -> tuple[Mapping[str, str], Sequence[Row]]:
    """Return what each column is, and rows with these: those mapped, if they are a whole layout.

    Who maps one of three columns means the other two by their own names.
    """
    mapped = map_rows(rows, choice.mapping)
    columns, sample = set(choice.mapping), _sample(mapped)
    named = [layout for layout in LAYOUTS if choice.layout in (None, layout.key)]
    if any(one.has_columns(columns) and one.matches(columns, sample) for one in named):
        return choice.mapping, mapped
    if choice.layout and any(one.has_columns(columns) for one in named):
        return choice.mapping, mapped
    whole = with_others(rows, choice.mapping)
    return whole, [map_row(row, whole) for row in rows]


def _counts(name: str) -> bool:
    """Whether a column decides by being there; context must hold something."""
    return name == "system" or name not in CONTEXT_COLUMNS


def to_pairs(rows: Iterable[Row], layout: Layout, account: Account) -> list[Pair]:
    """Convert rows, counting the dropped ones (and all read) in `account`.

    Raises:
        DataError: values of a wrong type or unknown roles; the first three rows are named.
    """
    return list(iter_pairs(rows, layout, account))


def iter_pairs(rows: Iterable[Row], layout: Layout, account: Account) -> Iterator[Pair]:
    """Convert rows one by one; as `to_pairs`, whose errors come after the last row."""
    first, count, advice = [], 0, ""
    for row in rows:
        account.read += 1
        try:
            result = _to_pair(row, layout)
        except DataError as error:
            first += [error.message] if len(first) < 3 else []
            count, advice = count + 1, advice or error.what_to_do
            continue
        if isinstance(result, Drop):
            account.drop(result.reason, row.source)
        elif not count:
            yield result
    if count:
        raise report_problems([*first, *[""] * (count - len(first))], advice, noun="rows")


def _to_pair(row: Row, layout: Layout) -> Pair | Drop:
    if layout.mapping:
        row = map_row(row, layout.mapping)
    result = layout.to_pair(row)
    if isinstance(result, Drop):
        return result
    columns = score_columns(row.values)
    verdict = judge_scores(row.values, columns, layout.keeps)
    if isinstance(verdict, Drop):
        return verdict
    notes = (*result.notes, *row.notes, *([verdict] if verdict else []))
    return dataclasses.replace(result, notes=notes, margin=margin_of(row.values, columns))


def _sample(rows: Sequence[Row]) -> dict[str, Any]:
    """Pick a row whose chosen and rejected are both present, and alike if there is one."""
    both = [
        r.values for r in rows if None not in (r.values.get("chosen"), r.values.get("rejected"))
    ]
    alike = (v for v in both if isinstance(v["chosen"], str) == isinstance(v["rejected"], str))
    return next(alike, both[0] if both else rows[0].values)


def _named_layout(key: str, columns: set[str], source: str) -> Layout:
    known = {layout.key: layout for layout in LAYOUTS}
    if key not in known:
        raise DataError(
            f"--layout {key}: there is no such layout{did_you_mean(key, known)}",
            f"Layouts are {', '.join(known)}.",
        )
    if not known[key].has_columns(columns):
        raise DataError(
            f"{source}: --layout {key} needs {known[key].columns}.\n"
            f"Columns found: {list_columns(list(columns))}.",
            f"Choose another layout, or say which column is which: {EXAMPLE}.",
        )
    return known[key]


def _only_match(
    columns: set[str], sample: dict[str, Any], source: str, is_mapped: bool, original: set[str]
) -> Layout:
    found = [layout for layout in LAYOUTS if layout.matches(columns, sample)]
    if is_mapped and [layout.key for layout in found] == ["plain-text"]:
        # Who names a column as the prompt means a question, not text to be continued.
        return next(layout for layout in LAYOUTS if layout.key == "single-turn")
    if len(found) > 1:
        names = " and ".join(layout.name.split(" (")[0] for layout in found)
        raise DataError(
            f"{source}: two layouts fit equally: {names}. Columns found: "
            f"{list_columns(list(columns))}.",
            f"Choose one: {' or '.join(f'--layout {layout.key}' for layout in found)}; "
            f"or {EXAMPLE}.",
        )
    if not found:
        raise _unknown_layout(columns, source, original)
    return found[0]


def _refuse_two_prompts(columns: set[str]) -> None:
    present = [name for name in PROMPT_COLUMNS if name in columns]
    if len(present) > 1 and set(present) != ALPACA_COLUMNS:
        raise DataError(
            f"Two columns could be the prompt: {' and '.join(present)}.",
            f"Say which one it is: --map prompt={present[0]} chosen=chosen rejected=rejected.",
        )


def _unknown_layout(columns: set[str], source: str, original: set[str]) -> DataError:
    found = list_columns(list(original))
    known = "; ".join(layout.columns for layout in LAYOUTS)
    why = ""
    if {"chosen", "rejected"} <= columns:
        why = " Without a prompt column nothing says where the prompt of plain text ends."
    return DataError(
        f"{source}: no known layout. Columns found: {found}.{why}\nLayouts accepted: {known}.",
        f"Say which column is which: {EXAMPLE}; answers without a worse one, prompts alone or "
        "ratings become pairs with `orpo-mlx data pairs`.",
    )
