"""`LAYOUTS`, the whole knowledge of column names: what preference data looks like, and its pairs.

To add one: a name, what its columns are in words, which columns it needs, a test of columns and one
sample row, and a function from a row to a pair. The tests must not overlap: two layouts that match
are reported to the user as such, who then chooses with `--layout` or `--map`.

What becomes of a row is in `convert.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from orpo_mlx.data.layouts.columns import root
from orpo_mlx.data.layouts.context import CONTEXT_COLUMNS
from orpo_mlx.data.layouts.convert import (
    COMPARED_PROMPTS,
    PROMPT_COLUMNS,
    RESPONSES,
    STRENGTHS,
    TALK_COLUMNS,
    WINNERS,
    WORSE,
    arena_answers_pair,
    arena_talk_pair,
    label_pair,
    ranking_pair,
    responses_pair,
    single_turn_pair,
    strength_pair,
    text_pair,
    token_pair,
    transcript_pair,
    turns_pair,
    worse_answer_pair,
)
from orpo_mlx.data.layouts.fields import first_column, parsed
from orpo_mlx.data.layouts.labelled import (
    ANSWER_COLUMNS,
    has_labelled_chat,
    has_labelled_text,
    is_labelled_chat,
    is_labelled_text,
    labelled_chat,
    labelled_text,
    labelled_tokens,
)
from orpo_mlx.data.layouts.scores import MARGIN, VERDICT_COLUMNS, score_columns
from orpo_mlx.data.layouts.turns import TRANSCRIPT_TURN, is_messages, is_talk
from orpo_mlx.data.sources.source import Row
from orpo_mlx.data.types import Drop, Pair


@dataclass(frozen=True)
class Layout:
    """One way preference data is laid out in columns, and how its rows are to be taken.

    Attributes:
        name: shown to the user before the data is used.
        columns: what it needs, in words.
        has_columns: whether columns suffice for it, for a user who asks for it by name.
        matches: whether a file with these columns and this sample row has the layout.
        to_pair: one row to a pair, or the reason to drop it; raises DataError on a wrong type.
        has_one_prompt: whether two columns that could be the prompt make it ambiguous.
        mapping: column paths by field, if the user said what the columns are.
        keeps: reasons of `scores.py` for which rows are kept on purpose.
        uses: columns it takes; of several in a group the first that is there.
    """

    name: str
    columns: str
    has_columns: Callable[[set[str]], bool]
    matches: Callable[[set[str], dict[str, Any]], bool]
    to_pair: Callable[[Row], Pair | Drop]
    has_one_prompt: bool = False
    mapping: Mapping[str, str] = field(default_factory=dict)
    keeps: Collection[str] = ()
    uses: tuple[str | tuple[str, ...], ...] = ("chosen", "rejected")

    @property
    def key(self) -> str:
        """What `--layout` calls it: "explicit-chat", "plain-text", ..."""
        return self.name.split(" (")[0].lower().replace(" ", "-").replace("/", "-")

    @property
    def is_tokenized(self) -> bool:
        """Whether the rows are token ids already."""
        return self.to_pair in (token_pair, labelled_tokens)

    @property
    def is_labelled(self) -> bool:
        """Whether a row is one answer with a label, not a pair."""
        return self.to_pair in (labelled_text, labelled_chat, labelled_tokens)

    def unused(self, columns: Collection[str]) -> list[str]:
        """Return the columns of a row that nothing is made of."""
        if self.mapping:
            idle = self._idle(self.mapping)
            said = (path for field, path in self.mapping.items() if field not in idle)
            return sorted({*columns} - {root(path, columns) for path in said})
        return sorted(self._idle(columns))

    def _idle(self, columns: Collection[str]) -> set[str]:
        used = {"status", MARGIN, *itertools.chain(*score_columns(columns))}
        for group in self.uses:
            name = group if isinstance(group, str) else first_column(dict.fromkeys(columns), group)
            used |= {name or ""}
        return {*columns} - used - {*(CONTEXT_COLUMNS if self.needs_template else ())}

    @property
    def needs_template(self) -> bool:
        """Whether the rows become chat messages, which a chat template must render."""
        return self.to_pair not in (text_pair, labelled_text) and not self.is_tokenized


def _is_text(sample: dict[str, Any]) -> bool:
    """Whether the sides are plain text; numbers and the like count, and are errors later."""
    return not any(is_messages(sample.get(name)) for name in ("chosen", "rejected"))


def _has(*names: str) -> Callable[[set[str]], bool]:
    return lambda columns: set(names) <= columns


def _has_sides(columns: set[str]) -> bool:
    return {"chosen", "rejected"} <= columns


def _has_question(columns: set[str]) -> bool:
    return _has_sides(columns) and not columns.isdisjoint(PROMPT_COLUMNS)


def _has_responses(columns: set[str]) -> bool:
    prompts = PROMPT_COLUMNS
    return {"chosen_response", "rejected_response"} <= columns and not columns.isdisjoint(prompts)


def _has_ab(columns: set[str]) -> bool:
    pairs = any(set(pair) <= columns for pair in RESPONSES)
    return pairs and not columns.isdisjoint(COMPARED_PROMPTS)


def _has_strength(columns: set[str]) -> bool:
    return _has_ab(columns) and not columns.isdisjoint(STRENGTHS)


def _has_arena_answers(columns: set[str]) -> bool:
    return _has_ab(columns) and not columns.isdisjoint(WINNERS)


def _has_arena_talks(columns: set[str]) -> bool:
    talks = {"conversation_a", "conversation_b"} <= columns
    return talks and not columns.isdisjoint(WINNERS)


def _is_explicit(columns: set[str], sample: dict[str, Any]) -> bool:
    is_chat = not _is_text(sample) or is_messages(sample.get("prompt"))
    return _has_sides(columns) and "prompt" in columns and is_chat


def _has_worse_answer(columns: set[str]) -> bool:
    has_good = not columns.isdisjoint({"chosen", "chosen_response"})
    return WORSE in columns and not columns.isdisjoint(TALK_COLUMNS) and not has_good


def _is_ranking(columns: set[str], sample: dict[str, Any]) -> bool:
    """Whether turns stand beside answers; a chat beside prompts or whole chats says it again."""
    if not _has_sides(columns) or "conversations" in columns:
        return _has_sides(columns)
    is_alone = "messages" in columns and columns.isdisjoint(PROMPT_COLUMNS)
    return is_alone and not any(_is_chat(sample.get(name)) for name in ("chosen", "rejected"))


def _is_chat(side: Any) -> bool:
    """Whether a side is a conversation: more than its answer."""
    side = parsed(side)
    return isinstance(side, list) and any(
        isinstance(turn, dict) and turn.get("role", turn.get("from")) in ("user", "human")
        for turn in side
    )


def _is_implicit(columns: set[str], sample: dict[str, Any]) -> bool:
    has_prompt = not columns.isdisjoint({"prompt", "conversations"})
    is_chat = not has_prompt and not _is_text(sample)
    return _has_sides(columns) and is_chat and not _is_ranking(columns, sample)


def _is_question(columns: set[str], sample: dict[str, Any]) -> bool:
    is_text = _is_text(sample) and not is_messages(sample.get("prompt"))
    return _has_question(columns) and is_text and not _is_plain(columns, sample)


def _is_plain(columns: set[str], sample: dict[str, Any]) -> bool:
    is_text = _is_text(sample) and not is_messages(sample.get("prompt"))
    has_prompt = "prompt" in columns and columns.isdisjoint(CONTEXT_COLUMNS)
    return _has_sides(columns) and has_prompt and is_text and not is_talk(sample.get("prompt"))


def _is_transcript(columns: set[str], sample: dict[str, Any]) -> bool:
    if not _has_sides(columns) or not _is_text(sample):
        return False
    text = f"\n\n{sample.get('chosen')}"
    if columns.isdisjoint(PROMPT_COLUMNS):
        return TRANSCRIPT_TURN.search(text) is not None
    # Beside a prompt column only a transcript from its very start would repeat the prompt.
    return TRANSCRIPT_TURN.match("\n\n" + text.lstrip()) is not None


_ANSWERS = (tuple(a for a, _ in RESPONSES), tuple(b for _, b in RESPONSES))
_WINNERS = (*WINNERS, "winner_model_b", "winner_tie")
_LABELLED_TOKENS = {"prompt_ids", "completion_ids"}


def _has_labelled_tokens(columns: set[str]) -> bool:
    return columns >= _LABELLED_TOKENS and not columns.isdisjoint(VERDICT_COLUMNS)


LAYOUTS = (
    Layout(
        "tokenized (prompt_ids, chosen_ids, rejected_ids)",
        "prompt_ids + chosen_ids + rejected_ids",
        _has("prompt_ids", "chosen_ids", "rejected_ids"),
        lambda columns, _: {"prompt_ids", "chosen_ids", "rejected_ids"} <= columns,
        token_pair,
        uses=("prompt_ids", "chosen_ids", "rejected_ids"),
    ),
    Layout(
        "ShareGPT ranking (conversations or messages, chosen, rejected)",
        "conversations or messages + chosen + rejected",
        lambda columns: _has_sides(columns) and not columns.isdisjoint(TALK_COLUMNS),
        _is_ranking,
        ranking_pair,
        uses=(TALK_COLUMNS, "chosen", "rejected"),
    ),
    Layout(
        "chat and a worse answer (messages, rejected_response)",
        "messages or conversations + rejected_response",
        _has_worse_answer,
        lambda columns, _: _has_worse_answer(columns),
        worse_answer_pair,
        uses=(TALK_COLUMNS, WORSE),
    ),
    Layout(
        "explicit chat (prompt, chosen, rejected as messages)",
        "prompt + chosen + rejected as messages",
        _has("prompt", "chosen", "rejected"),
        _is_explicit,
        turns_pair,
        uses=(PROMPT_COLUMNS, "chosen", "rejected"),
    ),
    Layout(
        "implicit chat (chosen, rejected as whole conversations)",
        "chosen + rejected as whole conversations",
        _has_sides,
        _is_implicit,
        turns_pair,
        uses=(PROMPT_COLUMNS, "chosen", "rejected"),
    ),
    Layout(
        "single turn (question or instruction, chosen, rejected as text; a chat turn)",
        "question or instruction (+ system) + chosen + rejected as text",
        _has_question,
        _is_question,
        single_turn_pair,
        has_one_prompt=True,
        uses=(*PROMPT_COLUMNS, "chosen", "rejected"),
    ),
    Layout(
        "plain text (prompt, chosen, rejected as text; no chat template)",
        "prompt + chosen + rejected as text",
        _has("prompt", "chosen", "rejected"),
        _is_plain,
        text_pair,
        has_one_prompt=True,
        uses=("prompt", "chosen", "rejected"),
    ),
    Layout(
        "instruction responses (instruction, chosen_response, rejected_response; a chat turn)",
        "instruction + chosen_response + rejected_response",
        _has_responses,
        lambda columns, _: _has_responses(columns),
        responses_pair,
        has_one_prompt=True,
        uses=(*PROMPT_COLUMNS, "chosen_response", "rejected_response"),
    ),
    Layout(
        "transcript (chosen, rejected with Human: and Assistant: turns)",
        'chosen + rejected with "\\n\\nHuman:" and "\\n\\nAssistant:" turns',
        _has_sides,
        _is_transcript,
        transcript_pair,
    ),
    Layout(
        "A/B label (history, human_ref_A, human_ref_B, labels; 1 = A)",
        "history + human_ref_A + human_ref_B + labels",
        _has("history", "human_ref_A", "human_ref_B", "labels"),
        lambda columns, _: {"history", "human_ref_A", "human_ref_B", "labels"} <= columns,
        label_pair,
        uses=("history", "human_ref_A", "human_ref_B", "labels"),
    ),
    Layout(
        "A/B strength (prompt, response_1, response_2, preference_strength; below 0 = first)",
        "prompt + response_1 + response_2 + preference_strength or overall_preference",
        _has_strength,
        lambda columns, _: _has_strength(columns),
        strength_pair,
        has_one_prompt=True,
        uses=(COMPARED_PROMPTS, *_ANSWERS, STRENGTHS),
    ),
    Layout(
        "arena answers (prompt, response_a, response_b, winner_model_a or winner)",
        "prompt + response_a + response_b + winner or winner_model_a",
        _has_arena_answers,
        lambda columns, _: _has_arena_answers(columns),
        arena_answers_pair,
        has_one_prompt=True,
        uses=(COMPARED_PROMPTS, *_ANSWERS, *_WINNERS),
    ),
    Layout(
        "arena talks (conversation_a, conversation_b, winner)",
        "conversation_a + conversation_b + winner",
        _has_arena_talks,
        lambda columns, _: _has_arena_talks(columns),
        arena_talk_pair,
        uses=("conversation_a", "conversation_b", *_WINNERS),
    ),
    Layout(
        "labelled tokens (prompt_ids, completion_ids, label)",
        "prompt_ids + completion_ids + label",
        _has_labelled_tokens,
        lambda columns, _: _has_labelled_tokens(columns),
        labelled_tokens,
        uses=("prompt_ids", "completion_ids", VERDICT_COLUMNS),
    ),
    Layout(
        "labelled text (prompt, completion, label as text; no chat template)",
        "prompt + completion + label as text",
        has_labelled_text,
        is_labelled_text,
        labelled_text,
        uses=("prompt", ANSWER_COLUMNS, VERDICT_COLUMNS),
    ),
    Layout(
        "labelled chat (messages, or a question and its answer, and a label)",
        "messages, or prompt or question + completion or answer, + label or liked",
        has_labelled_chat,
        is_labelled_chat,
        labelled_chat,
        has_one_prompt=True,
        uses=(TALK_COLUMNS, *PROMPT_COLUMNS, ANSWER_COLUMNS, VERDICT_COLUMNS),
    ),
)
