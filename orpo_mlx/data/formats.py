"""Rows to preference pairs: the layout is decided once, from the columns, and can be shown.

`LAYOUTS` is the whole knowledge of column names. To add one: a name, what its columns are in words,
a test of columns and one sample row, and a function from a row to a pair.

A row that is dirty (empty, identical, one-sided) is dropped with a reason and counted; a row whose
values have the wrong type is an error, since then the file is not what it seems to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orpo_mlx.data.pairs import Account, Drop, Message, Pair, PreferencePair, TokenPair
from orpo_mlx.data.sources import Row, kind_of, report_problems
from orpo_mlx.errors import DataError

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
}
PROMPT_COLUMNS = ("prompt", "question", "instruction", "input")
ALPACA_COLUMNS = {"instruction", "input"}
TRANSCRIPT_TURN = re.compile(r"\n\n(Human|Assistant):")

PROMPT_DIFFERS = "prompt column differs from the turns"


@dataclass(frozen=True)
class Layout:
    """One way preference data is laid out in columns.

    Attributes:
        name: shown to the user before the data is used.
        columns: what it needs, in words.
        matches: whether a file with these columns and this sample row has the layout.
        to_pair: one row to a pair, or the reason to drop it; raises DataError on a wrong type.
    """

    name: str
    columns: str
    matches: Callable[[set[str], dict[str, Any]], bool]
    to_pair: Callable[[Row], Pair | Drop]

    @property
    def is_tokenized(self) -> bool:
        """Whether the rows are token ids already."""
        return self.to_pair is _token_pair

    @property
    def needs_template(self) -> bool:
        """Whether the rows become chat messages, which a chat template must render."""
        return self.to_pair not in (_text_pair, _token_pair)


def detect_layout(rows: Sequence[Row]) -> Layout:
    """Decide the layout of a file from its columns and one sample row.

    Raises:
        DataError: no layout fits, or two columns could be the prompt.
    """
    columns = {name for row in rows for name in row.values}
    sample = _sample(rows)
    for layout in LAYOUTS:
        if layout.matches(columns, sample):
            if layout.to_pair in (_text_pair, _single_turn_pair):
                _refuse_two_prompts(columns)
            return layout
    raise _unknown_layout(columns, rows[0].source)


def to_pairs(rows: Sequence[Row], layout: Layout, account: Account) -> list[Pair]:
    """Convert rows, counting the dropped ones (and all read) in `account`.

    Raises:
        DataError: values of a wrong type or unknown roles; the first three rows are named.
    """
    pairs: list[Pair] = []
    errors: list[DataError] = []
    for row in rows:
        account.read += 1
        try:
            result = layout.to_pair(row)
        except DataError as error:
            errors.append(error)
            continue
        if isinstance(result, Drop):
            account.drop(result.reason, row.source)
        else:
            pairs.append(result)
    if errors:
        raise report_problems([e.message for e in errors], errors[0].what_to_do, noun="rows")
    return pairs


def _sample(rows: Sequence[Row]) -> dict[str, Any]:
    """Pick a row whose chosen and rejected are both present, and alike if there is one."""
    both = [
        r.values for r in rows if None not in (r.values.get("chosen"), r.values.get("rejected"))
    ]
    alike = (v for v in both if isinstance(v["chosen"], str) == isinstance(v["rejected"], str))
    return next(alike, both[0] if both else rows[0].values)


def _refuse_two_prompts(columns: set[str]) -> None:
    present = [name for name in PROMPT_COLUMNS if name in columns]
    if len(present) > 1 and set(present) != ALPACA_COLUMNS:
        raise DataError(
            f"Two columns could be the prompt: {' and '.join(present)}.",
            "Keep one of them and remove or rename the other.",
        )


def _unknown_layout(columns: set[str], source: str) -> DataError:
    found = ", ".join(sorted(columns)) or "none"
    known = "; ".join(layout.columns for layout in LAYOUTS)
    why = ""
    if {"chosen", "rejected"} <= columns:
        why = " Without a prompt column nothing says where the prompt of plain text ends."
    return DataError(
        f"{source}: no known layout. Columns found: {found}.{why}\nLayouts accepted: {known}.",
        'Rename the columns, for example to {"prompt": …, "chosen": …, "rejected": …}.',
    )


# Values -----------------------------------------------------------------------------------------


def _wrong_type(row: Row, field: str, value: Any, needed: str) -> DataError:
    return DataError(
        f"{row.source}: {field} is {kind_of(value)}; needed: {needed}.",
        "Correct the rows; every row of a file has the same layout.",
    )


def _text(row: Row, field: str) -> str:
    value = row.values[field]
    if not isinstance(value, str):
        raise _wrong_type(row, field, value, "text")
    return value


def _missing(row: Row, *fields: str) -> Drop | None:
    absent = [name for name in fields if row.values.get(name) is None]
    return Drop(f"missing {absent[0]}") if absent else None


def _messages(row: Row, field: str) -> list[Message]:
    """Read a list of turns, or one turn standing alone, in either naming."""
    value = row.values[field]
    if isinstance(value, dict):
        return [_message(row, field, value)]
    if not isinstance(value, list):
        raise _wrong_type(row, field, value, "a list of messages")
    return [_message(row, f"{field}[{i}]", item) for i, item in enumerate(value)]


def _message(row: Row, field: str, item: Any) -> Message:
    if not isinstance(item, dict):
        raise _wrong_type(row, field, item, "a message with role and content")
    role_key, content_key = ("from", "value") if "from" in item else ("role", "content")
    role = item.get(role_key)
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(
            f"{row.source}: {field}.{role_key} is {role!r}; known roles: {', '.join(ROLES)}.",
            "Rename the role to one of the known ones.",
        )
    if item.get("tool_calls"):
        raise _ToolCalls
    content = _content(row, f"{field}.{content_key}", item.get(content_key))
    return {"role": ROLES[role], "content": content}


class _ToolCalls(Exception):
    """A turn calls tools; its text alone is not the turn."""


def _content(row: Row, field: str, value: Any) -> str:
    """Read text, or a list of text parts, which are joined."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _wrong_type(row, field, value, "text")
    for i, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            found = f"a part of type {kind!r}" if kind != "text" else "a text part without text"
            raise DataError(
                f"{row.source}: {field}[{i}] is {found}; needed: text (parts of type 'text').",
                "Remove rows with images, sound or other parts.",
            )
    return "".join(part["text"] for part in value)


# Layouts ----------------------------------------------------------------------------------------


def _conversation_pair(row: Row) -> Pair | Drop:
    """Chosen and rejected as turns, with the prompt beside them, inside them, or both."""
    if missing := _missing(row, "chosen", "rejected"):
        return missing
    try:
        prompt = row.values.get("prompt")
        if isinstance(prompt, list | dict):
            return _explicit_pair(row, "prompt")
        chosen, rejected = _both_sides(row)
    except _ToolCalls:
        return Drop("tool calls in a turn")
    notes: tuple[str, ...] = ()
    if prompt is not None and (prompt := _text(row, "prompt")).strip():
        if len(chosen) == len(rejected) == 1:
            turn: Message = {"role": "user", "content": prompt}
            chosen, rejected = [turn, *chosen], [turn, *rejected]
        elif not _is_among_turns(prompt, chosen):
            notes = (PROMPT_DIFFERS,)
    return _pair_of_conversations(row, chosen, rejected, notes)


def _ranking_pair(row: Row) -> Pair | Drop:
    if missing := _missing(row, "conversations", "chosen", "rejected"):
        return missing
    try:
        return _explicit_pair(row, "conversations")
    except _ToolCalls:
        return Drop("tool calls in a turn")


def _explicit_pair(row: Row, prompt_field: str) -> Pair | Drop:
    """Prompt as turns; the sides are answers, or conversations that repeat the prompt."""
    prompt = _messages(row, prompt_field)
    sides = []
    for name, side in zip(("chosen", "rejected"), _both_sides(row), strict=True):
        if not side:
            return Drop(f"empty {name}")
        answer = side[len(prompt) :] if prompt and side[: len(prompt)] == prompt else side
        if len(answer) != 1:
            return Drop("prompts differ" if answer else "last turn not assistant")
        sides.append([*prompt, *answer])
    return _pair_of_conversations(row, sides[0], sides[1])


def _both_sides(row: Row) -> tuple[list[Message], list[Message]]:
    _require_same_kind(row)
    return _side(row, "chosen"), _side(row, "rejected")


def _require_same_kind(row: Row) -> None:
    chosen, rejected = row.values["chosen"], row.values["rejected"]
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise DataError(
            f"{row.source}: chosen is {kind_of(chosen)}, rejected is {kind_of(rejected)}; "
            "needed: both text, or both messages.",
            "Correct the rows; every row of a file has the same layout.",
        )


def _side(row: Row, field: str) -> list[Message]:
    value = row.values[field]
    return _answer(value) if isinstance(value, str) else _messages(row, field)


def _answer(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _is_among_turns(prompt: str, turns: list[Message]) -> bool:
    return any(prompt.strip() == turn["content"].strip() for turn in turns[:-1])


def _pair_of_conversations(
    row: Row, chosen: list[Message], rejected: list[Message], notes: tuple[str, ...] = ()
) -> Pair | Drop:
    """Split two conversations before their last turn, which must be all that differs."""
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side:
            return Drop(f"empty {name}")
        if side[-1]["role"] != "assistant":
            return Drop("last turn not assistant")
    prompt = chosen[:-1]
    if prompt != rejected[:-1]:
        return Drop("prompts differ")
    if not prompt or not prompt[-1]["content"].strip():
        return Drop("empty prompt")
    if prompt[-1]["role"] == "assistant":
        return Drop("prompt ends with an assistant turn")
    answers = chosen[-1]["content"], rejected[-1]["content"]
    if reason := _unusable(*answers):
        return reason
    prompt = _with_system(row, prompt)
    return PreferencePair(prompt, chosen[-1:], rejected[-1:], row.source, notes)


def _unusable(chosen: str, rejected: str) -> Drop | None:
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer.strip():
            return Drop(f"empty {name}")
    return Drop("identical text") if chosen.strip() == rejected.strip() else None


def _with_system(row: Row, prompt: list[Message]) -> list[Message]:
    """Put a non-empty system column before turns that have no system turn of their own."""
    if row.values.get("system") is None or prompt[0]["role"] == "system":
        return prompt
    system = _text(row, "system")
    return [{"role": "system", "content": system}, *prompt] if system.strip() else prompt


def _both_texts(row: Row) -> tuple[str, str]:
    _require_same_kind(row)
    return _text(row, "chosen"), _text(row, "rejected")


def _text_pair(row: Row) -> Pair | Drop:
    """Three plain strings, taken exactly as they are."""
    if missing := _missing(row, "prompt", "chosen", "rejected"):
        return missing
    prompt, (chosen, rejected) = _text(row, "prompt"), _both_texts(row)
    if not prompt.strip():
        return Drop("empty prompt")
    return _unusable(chosen, rejected) or PreferencePair(prompt, chosen, rejected, row.source)


def _single_turn_pair(row: Row) -> Pair | Drop:
    """A question in its own column (and a system column): one chat turn."""
    names = [name for name in PROMPT_COLUMNS if name in row.values]
    if missing := _missing(row, *(set(names) - {"input"} or names or ["prompt"])):
        return missing
    if missing := _missing(row, "chosen", "rejected"):
        return missing
    # Alpaca rows hold the text to work on in "input"; it is empty or null where there is none.
    parts = [_text(row, name) for name in names if row.values[name] is not None]
    question = "\n\n".join(part for part in parts if part.strip())
    if not question:
        return Drop("empty prompt")
    user: Message = {"role": "user", "content": question}
    chosen, rejected = (_answer(text) for text in _both_texts(row))
    return _pair_of_conversations(row, [user, *chosen], [user, *rejected])


def _transcript_pair(row: Row) -> Pair | Drop:
    """Whole dialogues in one string each, with "Human:" and "Assistant:" before the turns."""
    if missing := _missing(row, "chosen", "rejected"):
        return missing
    chosen, rejected = (_transcript_turns(text) for text in _both_texts(row))
    if chosen is None or rejected is None:
        return Drop("text before the first turn")
    return _pair_of_conversations(row, chosen, rejected)


def _transcript_turns(text: str) -> list[Message] | None:
    before, *parts = TRANSCRIPT_TURN.split("\n\n" + text.lstrip())
    if before.strip():
        return None
    return [
        {"role": "user" if speaker == "Human" else "assistant", "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _token_pair(row: Row) -> Pair | Drop:
    """Token ids, taken exactly as they are."""
    fields = ("prompt_ids", "chosen_ids", "rejected_ids")
    if missing := _missing(row, *fields):
        return missing
    prompt, chosen, rejected = (_token_ids(row, name) for name in fields)
    for name, ids in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not ids:
            return Drop(f"empty {name}")
    return TokenPair(prompt, chosen, rejected, row.source)


def _token_ids(row: Row, field: str) -> list[int]:
    value = row.values[field]
    if not isinstance(value, list):
        raise _wrong_type(row, field, value, "a list of token ids")
    for i, item in enumerate(value):
        if type(item) is not int or not 0 <= item < 2**31:
            raise DataError(
                f"{row.source}: {field}[{i}] is {item!r:.40}; needed: a token id (0 or above).",
                "Correct the ids, or give text instead of ids.",
            )
    return value


def _is_text(sample: dict[str, Any]) -> bool:
    """Whether the sides are plain text; numbers and the like count, and are errors later."""
    return not any(isinstance(sample.get(n), list | dict) for n in ("chosen", "rejected"))


def _has_sides(columns: set[str]) -> bool:
    return {"chosen", "rejected"} <= columns


LAYOUTS = (
    Layout(
        "tokenized (prompt_ids, chosen_ids, rejected_ids)",
        "prompt_ids + chosen_ids + rejected_ids",
        lambda columns, _: {"prompt_ids", "chosen_ids", "rejected_ids"} <= columns,
        _token_pair,
    ),
    Layout(
        "ShareGPT ranking (conversations, chosen, rejected)",
        "conversations + chosen + rejected",
        lambda columns, _: _has_sides(columns) and "conversations" in columns,
        _ranking_pair,
    ),
    Layout(
        "explicit chat (prompt, chosen, rejected as messages)",
        "prompt + chosen + rejected as messages",
        lambda columns, sample: (
            _has_sides(columns)
            and "prompt" in columns
            and (not _is_text(sample) or isinstance(sample.get("prompt"), list | dict))
        ),
        _conversation_pair,
    ),
    Layout(
        "implicit chat (chosen, rejected as whole conversations)",
        "chosen + rejected as whole conversations",
        lambda columns, sample: _has_sides(columns) and not _is_text(sample),
        _conversation_pair,
    ),
    Layout(
        "single turn (question or instruction, chosen, rejected as text; a chat turn)",
        "question or instruction (+ system) + chosen + rejected as text",
        lambda columns, _: (
            _has_sides(columns)
            and not columns.isdisjoint(PROMPT_COLUMNS)
            and ("prompt" not in columns or "system" in columns)
        ),
        _single_turn_pair,
    ),
    Layout(
        "plain text (prompt, chosen, rejected as text; no chat template)",
        "prompt + chosen + rejected as text",
        lambda columns, _: _has_sides(columns) and "prompt" in columns,
        _text_pair,
    ),
    Layout(
        "transcript (chosen, rejected with Human: and Assistant: turns)",
        'chosen + rejected with "\\n\\nHuman:" and "\\n\\nAssistant:" turns',
        lambda columns, sample: (
            _has_sides(columns) and TRANSCRIPT_TURN.search(f"\n\n{sample['chosen']}") is not None
        ),
        _transcript_pair,
    ),
)
