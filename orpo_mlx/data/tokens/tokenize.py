"""Pairs to token ids: the template once, the boundary kept, long prompts cut, every row counted.

The rules (ARCHITECTURE.md, "Data"): prompt rendered with the generation prompt, whole conversation
without; the response is what follows; one BOS; the end-of-turn token is the last one learned; a
prompt that is too long loses its oldest part, a response never loses anything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from orpo_mlx.data.tokens.encoder import (
    PROBE,
    Encoder,
    TemplateRefused,
    Tokenizer,
    fold_system,
    texts_in,
)
from orpo_mlx.data.tokens.store import pair_lengths
from orpo_mlx.data.tokens.time_limit import TookTooLong
from orpo_mlx.data.types import (
    THOUGHT_KEYS,
    TURN_DETAILS,
    Drop,
    Message,
    Pair,
    PreferencePair,
    TokenPair,
)
from orpo_mlx.errors import DataError

Overlong = Literal["cut", "drop"]

PROMPT_CUT = "prompt cut"
BOUNDARY_REPAIRED = "boundary repaired"
SYSTEM_FOLDED = "system folded into the first user turn"
END_APPENDED = "end-of-turn token appended"
HEADER_DIFFERS = "generation prompt differs from the template's answer turn"
CONTROL_TOKENS = "control tokens in a text"
CONTROL_ESCAPED = "control tokens in a text, escaped"
THOUGHTS_UNWANTED = "thoughts in an answer, with --thinking off"
TOOLS_UNUSED = "tools that the chat template does not show"
UNSHOWN = {key: f"{key} of a turn, which the chat template does not show" for key in TURN_DETAILS}
THOUGHT_START, THOUGHT_END = "<think>", "</think>"
THOUGHT_NOT_OPENED = "a thought is closed that is not open"
THOUGHT_CUT = "thoughts in an answer, which the chat template cuts out"
RESPONSE_TOO_LONG = "response longer than max_seq_length"
PAIR_TOO_LONG = "longer than max_seq_length"
NO_ROOM = "no room for the prompt beside the response"


def encoder_of(tokenizer: Tokenizer | Encoder) -> Encoder:
    """Return an encoder as it is, or the plain one of a tokenizer."""
    return tokenizer if isinstance(tokenizer, Encoder) else Encoder(tokenizer)


def tokenize_pair(
    pair: Pair,
    tokenizer: Tokenizer | Encoder,
    max_seq_length: int,
    overlong: Overlong = "cut",
) -> TokenPair | Drop:
    """Tokenize one pair, or say why it is dropped.

    Args:
        pair: text, messages, or token ids taken as they are.
        tokenizer: or an `Encoder`, which is faster for many pairs.
        max_seq_length: tokens of prompt plus longer response.
        overlong: "cut" the prompt from the left (oldest turns first, system turn and template
            kept), or "drop" the pair. Responses are never cut.

    Raises:
        DataError: messages without a chat template, or a tokenizer without EOS.
    """
    encoder = encoder_of(tokenizer)
    tokens = tokenize_whole(pair, encoder)
    if isinstance(tokens, Drop):
        return tokens
    return fit_pair(tokens, pair, encoder, max_seq_length, overlong)


def fit_pair(
    tokens: TokenPair, pair: Pair, encoder: Encoder, max_seq_length: int, overlong: Overlong
) -> TokenPair | Drop:
    """Shorten the tokens of a pair to a limit, or say why that cannot be; see `tokenize_pair`."""
    if tokens.longest <= max_seq_length:
        return tokens
    if overlong == "drop":
        return Drop(PAIR_TOO_LONG, tokens.longest)
    if max(len(tokens.chosen), len(tokens.rejected)) >= max_seq_length:
        return Drop(RESPONSE_TOO_LONG, tokens.longest)
    if isinstance(pair, PreferencePair) and not isinstance(pair.prompt, str):
        cut = _cut_chat(pair, encoder, max_seq_length)
    else:
        cut = _cut_plain(tokens, encoder, max_seq_length)
    if isinstance(cut, TokenPair):
        return replace(cut, notes=(*cut.notes, PROMPT_CUT))
    return cut or Drop(NO_ROOM, tokens.longest)


def tokenize_whole(pair: Pair, encoder: Encoder) -> TokenPair | Drop:
    """Tokenize a pair, whatever its length; raises as `tokenize_pair`."""
    return finish_pair(render_pair(pair, encoder), encoder)


@dataclass(frozen=True)
class Rendered:
    """A pair as the texts that become tokens.

    Attributes:
        prompt: all up to where the answers begin.
        wholes: the prompt with each of the answers.
        notes: what was unusual so far, the pair's own notes aside.
    """

    pair: PreferencePair
    prompt: str
    wholes: list[str]
    notes: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """Every text that will be encoded."""
        return [self.prompt, *self.wholes]


def render_pair(pair: Pair, encoder: Encoder) -> Rendered | TokenPair | Drop:
    """Apply the chat template, if there are messages; raises as `tokenize_pair`.

    Many pairs are rendered first and their texts encoded together (`Encoder.encode_ahead`), which
    gives the same ids sooner.
    """
    if isinstance(pair, TokenPair):
        return pair
    if isinstance(pair.prompt, str):
        return _render_text(pair, encoder)
    try:
        return _render_chat(pair, encoder)
    except TemplateRefused as error:
        return Drop(f"template refused: {error}")
    except TookTooLong as error:
        raise DataError(
            f"{pair.source}: rendering the chat template took {error} and was stopped.",
            "Give another template with --chat-template chatml or --chat-template FILE.jinja.",
        ) from None


def finish_pair(rendered: Rendered | TokenPair | Drop, encoder: Encoder) -> TokenPair | Drop:
    """Encode what `render_pair` made, and refuse what nothing could be learned from."""
    tokens = _join(rendered, encoder) if isinstance(rendered, Rendered) else rendered
    return tokens if isinstance(tokens, Drop) else _unusable(tokens, encoder) or tokens


def _unusable(tokens: TokenPair, encoder: Encoder) -> Drop | None:
    if not tokens.prompt:
        return Drop("empty prompt")
    sides = {"chosen": tokens.chosen, "rejected": tokens.rejected}
    for name, ids in sides.items() if tokens.label is None else (("answer", tokens.chosen),):
        if all(token in encoder.stop_ids for token in ids):
            return Drop(f"empty {name}")
    return Drop("identical tokens") if tokens.chosen == tokens.rejected else None


def _render_text(pair: PreferencePair, encoder: Encoder) -> Rendered:
    """Plain text: the response follows the prompt directly."""
    texts = [str(text) for text in (pair.prompt, *pair.answers)]
    prompt, *sides = (encoder.shield(text) for text in texts)
    return Rendered(pair, prompt, [prompt + side for side in sides], _control_note(texts, encoder))


def _render_chat(pair: PreferencePair, encoder: Encoder) -> Rendered | Drop:
    """Messages: the response is what the template writes after the generation prompt."""
    prompt, notes = _shielded(pair.prompt, encoder), ()
    if encoder.folds_system and prompt and prompt[0]["role"] == "system":
        prompt, notes = fold_system(prompt), (SYSTEM_FOLDED,)
    thinks = _thinks(pair, encoder)
    render = functools.partial(encoder.render, thinks=thinks, tools=pair.tools)
    rendered = render(prompt, True)
    sides = [_shielded(side, encoder) for side in pair.answers]
    if opening := _opening(rendered):
        prompt, *sides = (_with_opening(turns, opening) for turns in (prompt, *sides))
        rendered = render(prompt, True)
    talks = [[*prompt, *side] for side in sides]
    wholes = [render(talk, False) for talk in talks]
    if not _starts_all(rendered, wholes):
        if thinks is False and _has_thoughts(pair, encoder):
            return Drop(THOUGHTS_UNWANTED)
        header = _answer_header(prompt, render)
        if header is None or not _starts_all(header, wholes):
            return Drop("template: prompt is not a prefix")
        rendered, notes = header, (*notes, HEADER_DIFFERS)
    if pair.tools and not encoder.shows_tools:
        notes = (*notes, TOOLS_UNUSED)
    notes = (*notes, *_unshown(talks, render), *_thought_notes(rendered, wholes, sides))
    if UNSHOWN["tool_calls"] in notes:
        return Drop(UNSHOWN["tool_calls"])
    texts = [text for turn in _turns(pair) for text in texts_in(turn)]
    return Rendered(pair, rendered, wholes, (*notes, *_control_note(texts, encoder)))


def _opening(rendered: str) -> str:
    """Return the thought that a generation prompt opens, with the white space behind it, or ""."""
    before, found, after = rendered.rpartition(THOUGHT_START)
    return found + after if before and not after.strip() else ""


def _with_opening(turns: list[Message], opening: str) -> list[Message]:
    """Open the thought of answers that begin inside one: templates look for both tags."""
    return [
        cast(Message, {**turn, "content": opening + turn["content"]})
        if turn["role"] == "assistant"
        and THOUGHT_END in turn["content"]
        and THOUGHT_START not in turn["content"]
        else turn
        for turn in turns
    ]


def _thought_notes(
    prompt: str, wholes: Sequence[str], sides: Sequence[list[Message]]
) -> Iterator[str]:
    """Yield what became of thoughts that is not what the answers say."""
    opened = int(bool(_opening(prompt)))
    responses = [whole[len(prompt) :] for whole in wholes]
    if any(r.count(THOUGHT_END) > r.count(THOUGHT_START) + opened for r in responses):
        yield THOUGHT_NOT_OPENED
    said = [side[-1]["content"].partition(THOUGHT_END) for side in sides]
    thoughts = [before.split(THOUGHT_START)[-1].strip() if end else "" for before, end, _ in said]
    if any(text not in whole for text, whole in zip(thoughts, wholes, strict=True)):
        yield THOUGHT_CUT


def _unshown(talks: Sequence[list[Message]], render: Callable[..., str]) -> Iterator[str]:
    """Yield what turns say besides their text and no text of the pair shows (rendered without)."""
    details = {key for talk in talks for turn in talk for key in turn if key in TURN_DETAILS}
    for key in sorted(details):
        bare = [[_without(turn, key) for turn in talk] for talk in talks]
        try:
            shown = [render(talk, False) for talk in bare] != [render(t, False) for t in talks]
        except TemplateRefused:  # it misses what is taken away
            continue
        if not shown:
            yield UNSHOWN[key]


def _without(turn: Message, key: str) -> Message:
    return cast(Message, {name: value for name, value in turn.items() if name != key})


def _turns(pair: PreferencePair) -> list[Message]:
    return [turn for part in (pair.prompt, pair.chosen, pair.rejected) for turn in _messages(part)]


def _shielded(messages: Any, encoder: Encoder) -> list[Message]:
    if not encoder.escape_special:
        return _messages(messages)
    return [
        cast(Message, {**encoder.shield_all(turn), "role": turn["role"]})
        for turn in _messages(messages)
    ]


def _control_note(texts: Sequence[str], encoder: Encoder) -> tuple[str, ...]:
    if not any(encoder.count_control_tokens(text) for text in texts):
        return ()
    return (CONTROL_ESCAPED if encoder.escape_special else CONTROL_TOKENS,)


def _has_thoughts(pair: PreferencePair, encoder: Encoder) -> bool:
    answers = [*_messages(pair.chosen), *_messages(pair.rejected)]
    shown = [key for key in THOUGHT_KEYS if encoder.shows_thought(key)]
    return any(
        THOUGHT_END in turn["content"] or not turn.keys().isdisjoint(shown) for turn in answers
    )


def _thinks(pair: PreferencePair, encoder: Encoder) -> bool | None:
    """Decide where an answer begins in a template that can switch thinking off.

    An answer without thoughts is what such a model says after an empty thought: that belongs to
    the prompt, else the model would be taught to think nothing, and both sides would share it.
    """
    if not encoder.switches_thinking:
        return None
    return _has_thoughts(pair, encoder) if encoder.thinking == "auto" else encoder.thinking == "on"


def _messages(text: Any) -> list[Message]:
    return list(text)


def _starts_all(start: str, texts: list[str]) -> bool:
    return all(text.startswith(start) for text in texts)


def _answer_header(prompt: list[Message], render: Callable[..., str]) -> str | None:
    """Render up to where an answer begins in a finished conversation.

    Some templates end the generation prompt with what no finished answer has (an opened thinking
    block); then the finished form is the one to learn.
    """
    probe: Message = {"role": "assistant", "content": PROBE}
    before, found, _ = render([*prompt, probe], False).rpartition(PROBE)
    return before if found and before.startswith(render(prompt, False)) else None


def _join(rendered: Rendered, encoder: Encoder) -> TokenPair:
    """Split the tokens of both whole texts after those of the prompt.

    Where a token spans the boundary on one side, that side's response is encoded by itself: the
    prompt is shared by both sides, and this is what the model meets when it answers.
    """
    pair, prompt_ids = rendered.pair, encoder.encode(rendered.prompt)
    responses, repaired, appended = [], False, False
    for whole in rendered.wholes:
        ids = encoder.encode(whole)
        if ids[: len(prompt_ids)] == prompt_ids:
            response = ids[len(prompt_ids) :]
        else:
            rest = whole[len(rendered.prompt) :]
            response, repaired = encoder.encode_continuation(rest), True
        response, added = encoder.end_turn(response)
        responses.append(response)
        appended = appended or added
    repairs = (BOUNDARY_REPAIRED,) if repaired else ()
    ends = (END_APPENDED,) if appended and not isinstance(pair.prompt, str) else ()
    notes = (*pair.notes, *repairs, *rendered.notes, *ends)
    rejected = responses[1] if pair.label is None else []
    return TokenPair(
        prompt_ids, responses[0], rejected, pair.source, notes, margin=pair.margin, label=pair.label
    )


# Too long -----------------------------------------------------------------------------------------


def _bos_length(prompt: list[int], encoder: Encoder) -> int:
    return int(prompt[:1] == [encoder.tokenizer.bos_token_id])


def _cut_prompt(tokens: TokenPair, head: int, tail: int, max_seq_length: int) -> TokenPair | None:
    """Cut prompt ids after the first `head` ones; None unless one is left before the `tail`."""
    ids, too_many = tokens.prompt, tokens.longest - max_seq_length
    if len(ids) - head - too_many <= tail:
        return None
    return replace(tokens, prompt=ids[:head] + ids[head + too_many :])


def _cut_plain(tokens: TokenPair, encoder: Encoder, max_seq_length: int) -> TokenPair | None:
    """Cut a prompt without turns from its start, BOS kept.

    Where BOS stands inside, it begins each turn (some chat formats have it so): then the cut is
    made before a turn.
    """
    ids, head = tokens.prompt, _bos_length(tokens.prompt, encoder)
    starts = [i for i in _turn_starts(ids, encoder) if i >= tokens.longest - max_seq_length]
    if starts:
        return replace(tokens, prompt=ids[starts[0] :])
    return None if _turn_starts(ids, encoder) else _cut_prompt(tokens, head, 0, max_seq_length)


def _turn_starts(ids: Sequence[int], encoder: Encoder) -> list[int]:
    bos = encoder.tokenizer.bos_token_id
    starts = [i for i, token in enumerate(ids) if token == bos and i > 1]
    return starts if ids[:1] == [bos] else []


def _cut_chat(
    pair: PreferencePair, encoder: Encoder, max_seq_length: int
) -> TokenPair | Drop | None:
    """Drop the oldest turns; then cut into the text of the last user turn.

    If that text has no room beside the system turn, the system turn goes too; the template is never
    cut.
    """
    shortest = pair
    for shorter in _with_fewer_turns(pair):
        tokens = tokenize_whole(shorter, encoder)
        if isinstance(tokens, Drop) or tokens.longest <= max_seq_length:
            return tokens
        shortest = shorter
    for candidate in (shortest, _without_system(shortest)):
        tokens = tokenize_whole(candidate, encoder)
        if isinstance(tokens, Drop) or tokens.longest <= max_seq_length:
            return tokens
        head, tail = _template_around(candidate, tokens, encoder)
        if cut := _cut_prompt(tokens, head, tail, max_seq_length):
            return cut
    return None


def least_limit(pair: Pair, lengths: tuple[int, int, int], encoder: Encoder) -> int:
    """Return the shortest limit at which `fit_pair` keeps a pair.

    Args:
        pair: that was tokenized.
        lengths: tokens of its prompt, chosen and rejected.
        encoder: that tokenized it.
    """
    answers, total = max(lengths[1:]), lengths[0] + max(lengths[1:])
    if isinstance(pair, TokenPair) or isinstance(pair.prompt, str):
        tokens = tokenize_whole(pair, encoder)
        ids = [] if isinstance(tokens, Drop) else tokens.prompt
        starts = _turn_starts(ids, encoder)
        needed = len(ids) - starts[-1] if starts else _bos_length(ids, encoder) + 1
        return min(total, answers + needed)
    *_, shortest = pair, *_with_fewer_turns(pair)
    found = [total]
    for candidate in (shortest, _without_system(shortest)):
        tokens = tokenize_whole(candidate, encoder)
        if not isinstance(tokens, Drop):
            head, tail = _template_around(candidate, tokens, encoder)
            least = min(len(tokens.prompt), head + tail + 1)
            found.append(tokens.longest - len(tokens.prompt) + least)
    return max(answers + 1, min(found))


def frame_length(pair: Pair, prompt: int, encoder: Encoder) -> int:
    """Return how many tokens of a prompt stay at most where its texts are cut; all, if unknown."""
    if isinstance(pair, TokenPair) or pair.tools:
        return prompt
    if isinstance(pair.prompt, str):
        return prompt if str(encoder.tokenizer.bos_token) in pair.prompt else 2
    return encoder.frame_length if pair.prompt[-1]["role"] == "user" else prompt


def _split_system(pair: PreferencePair) -> tuple[list[Message], list[Message]]:
    prompt = _messages(pair.prompt)
    count = int(bool(prompt) and prompt[0]["role"] == "system")
    return prompt[:count], prompt[count:]


def _with_fewer_turns(pair: PreferencePair) -> Iterator[PreferencePair]:
    """Yield the pair without its oldest turns, ever fewer; each begins with a user turn."""
    system, turns = _split_system(pair)
    for i in range(1, len(turns)):
        if turns[i]["role"] == "user":
            yield replace(pair, prompt=[*system, *turns[i:]])


def _without_system(pair: PreferencePair) -> PreferencePair:
    _, turns = _split_system(pair)
    return replace(pair, prompt=turns) if turns else pair


def _template_around(pair: PreferencePair, tokens: TokenPair, encoder: Encoder) -> tuple[int, int]:
    """Count the prompt tokens before and after the text of the last user turn."""
    prompt = _messages(pair.prompt)
    last = max((i for i, m in enumerate(prompt) if m["role"] == "user"), default=len(prompt) - 1)
    # Two different texts in the same place: what both prompts share around it is the template.
    prompt[last] = {**prompt[last], "content": PROBE}
    other = tokenize_whole(replace(pair, prompt=prompt), encoder)
    if isinstance(other, Drop):
        return len(tokens.prompt), 0  # nothing is known to be text
    head = common_start(tokens.prompt, other.prompt)
    tail = common_start(tokens.prompt[head:][::-1], other.prompt[head:][::-1])
    return head, tail


def common_start(a: list[int], b: list[int]) -> int:
    """Count the leading ids two lists have in common."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


# Statistics and split -----------------------------------------------------------------------------


def token_percentiles(pairs: Sequence[TokenPair]) -> dict[str, int]:
    """Return token counts such as "prompt_p50", "chosen_p95" and "rejected_max".

    A percentile is a length that occurs: the shortest that at least so many pairs do not exceed.
    """
    names = ("prompt", "chosen", "rejected")
    lengths = dict(zip(names, pair_lengths(pairs).T, strict=True))
    return {
        f"{name}_{label}": int(np.percentile(values, q, method="inverted_cdf"))
        for name, values in lengths.items()
        for label, q in (("p50", 50), ("p95", 95), ("max", 100))
    }


def decode_pair(pair: TokenPair, tokenizer: Tokenizer) -> dict[str, str]:
    """Return prompt, chosen and rejected as text decoded from the ids, and the source.

    An answer with a label is called by it.
    """
    texts = {name: str(tokenizer.decode(ids)) for name, ids in _named(pair).items()}
    return {"source": pair.source, **texts}


def _named(pair: TokenPair) -> dict[str, list[int]]:
    if pair.label is None:
        return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    return {"prompt": pair.prompt, "good" if pair.label else "bad": pair.chosen}
