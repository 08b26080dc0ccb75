"""Pairs to token ids: the template once, the boundary kept, long prompts cut, every row counted.

The rules (ARCHITECTURE.md, "Data"): prompt rendered with the generation prompt, whole conversation
without; the response is what follows; one BOS; the end-of-turn token is the last one learned; a
prompt that is too long loses its oldest part, a response never loses anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from orpo_mlx.data.formats import detect_layout, to_pairs
from orpo_mlx.data.pairs import Account, Drop, Message, Pair, PreferencePair, TokenPair
from orpo_mlx.data.sources import Row, read_rows
from orpo_mlx.data.templates import PROBE, Encoder, TemplateRefused, Tokenizer, fold_system
from orpo_mlx.errors import DataError

Overlong = Literal["cut", "drop"]

PROMPT_CUT = "prompt cut"
BOUNDARY_REPAIRED = "boundary repaired"
SYSTEM_FOLDED = "system folded into the first user turn"
END_APPENDED = "end-of-turn token appended"
HEADER_DIFFERS = "generation prompt differs from the template's answer turn"
RESPONSE_TOO_LONG = "response longer than max_seq_length"
PAIR_TOO_LONG = "longer than max_seq_length"
NO_ROOM = "no room for the prompt beside the response"


@dataclass(frozen=True)
class Prepared:
    """What a data file became: the pairs to train on and where every other row went."""

    pairs: list[TokenPair]
    account: Account
    layout: str


def prepare_file(
    path: str | Path,
    tokenizer: Tokenizer,
    max_seq_length: int,
    overlong: Overlong = "cut",
    vocab_size: int | None = None,
) -> Prepared:
    """A file to token pairs: `read_rows`, then `prepare_rows`.

    Raises:
        DataError: as those do.
    """
    return prepare_rows(read_rows(path), tokenizer, max_seq_length, overlong, vocab_size)


def prepare_rows(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    max_seq_length: int,
    overlong: Overlong = "cut",
    vocab_size: int | None = None,
) -> Prepared:
    """Rows of a file to token pairs: layout, conversion, tokenization.

    Raises:
        DataError: unknown layout, wrong types, or nothing left to train on.
    """
    layout = detect_layout(rows)
    account = Account()
    pairs = to_pairs(rows, layout, account)
    kept, account = prepare_pairs(pairs, tokenizer, max_seq_length, overlong, vocab_size, account)
    return Prepared(kept, account, layout.name)


def prepare_pairs(
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    max_seq_length: int,
    overlong: Overlong = "cut",
    vocab_size: int | None = None,
    account: Account | None = None,
) -> tuple[list[TokenPair], Account]:
    """Tokenize pairs and account for each.

    Args:
        pairs: text, messages, or token ids taken as they are.
        tokenizer: of the model that is trained.
        max_seq_length: tokens of prompt plus longer response.
        overlong: "cut" the prompt of pairs that are longer, or "drop" them.
        vocab_size: rows of the model's embedding; given, larger token ids are refused.
        account: of the rows these pairs came from; without it a new one, with every pair as read.

    Returns:
        The kept pairs in their order, and the account: read = kept + sum of dropped.

    Raises:
        DataError: no pair is left, or a token id does not exist in the model.
    """
    account = account if account is not None else Account(read=len(pairs))
    encoder = Encoder(tokenizer)
    kept: list[TokenPair] = []
    overlong_lengths: list[int] = []
    for pair in pairs:
        result = tokenize_pair(pair, encoder, max_seq_length, overlong)
        if isinstance(result, Drop):
            account.drop(result.reason, pair.source)
            if result.longest:
                overlong_lengths.append(result.longest)
            continue
        _require_known_ids(result, vocab_size)
        for note in result.notes:
            account.note(note, result.source)
        kept.append(result)
    account.kept += len(kept)
    if not kept:
        raise _nothing_left(account, overlong_lengths, max_seq_length)
    return kept, account


def _require_known_ids(pair: TokenPair, vocab_size: int | None) -> None:
    # An id past the embedding is not an error on a GPU: it reads whatever lies there.
    largest = max(max(pair.prompt), max(pair.chosen), max(pair.rejected))
    if vocab_size is not None and largest >= vocab_size:
        raise DataError(
            f"{pair.source}: token id {largest} does not exist; the model has {vocab_size}.",
            "Use the tokenizer that belongs to the model.",
        )


def _nothing_left(account: Account, lengths: list[int], max_seq_length: int) -> DataError:
    reasons = sorted(account.dropped.items(), key=lambda item: -item[1])
    table = "; ".join(f"{n:,} {why} ({account.offenders[why][0]})" for why, n in reasons)
    message = f"0 of {account.read:,} rows usable: {table}."
    if not lengths:
        return DataError(message, "Check the named rows; the number is rows, then one example.")
    enough = int(np.percentile(lengths, 95, method="inverted_cdf"))
    return DataError(
        f"{message}\nLongest pair: {max(lengths):,} tokens; the limit is {max_seq_length:,}.",
        f"--max-seq-length {enough} would keep 95 % of the pairs that are too long, uncut.",
    )


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
    encoder = tokenizer if isinstance(tokenizer, Encoder) else Encoder(tokenizer)
    tokens = _tokenize(pair, encoder)
    if isinstance(tokens, Drop) or tokens.longest <= max_seq_length:
        return tokens
    if overlong == "drop":
        return Drop(PAIR_TOO_LONG, tokens.longest)
    if max(len(tokens.chosen), len(tokens.rejected)) >= max_seq_length:
        return Drop(RESPONSE_TOO_LONG, tokens.longest)
    if isinstance(pair, PreferencePair) and not isinstance(pair.prompt, str):
        cut = _cut_chat(pair, encoder, max_seq_length)
    else:
        cut = _cut_prompt(tokens, _bos_length(tokens.prompt, encoder), 0, max_seq_length)
    if isinstance(cut, TokenPair):
        return replace(cut, notes=(*cut.notes, PROMPT_CUT))
    return cut or Drop(NO_ROOM, tokens.longest)


def _tokenize(pair: Pair, encoder: Encoder) -> TokenPair | Drop:
    """Tokenize a pair whole, whatever its length."""
    if isinstance(pair, TokenPair):
        tokens = pair
    elif isinstance(pair.prompt, str):
        tokens = _tokenize_text(pair, encoder)
    else:
        try:
            tokens = _tokenize_chat(pair, encoder)
        except TemplateRefused as error:
            return Drop(f"template refused: {error}")
    if isinstance(tokens, Drop):
        return tokens
    return _unusable(tokens, encoder) or tokens


def _unusable(tokens: TokenPair, encoder: Encoder) -> Drop | None:
    if not tokens.prompt:
        return Drop("empty prompt")
    for name, ids in (("chosen", tokens.chosen), ("rejected", tokens.rejected)):
        if all(token in encoder.stop_ids for token in ids):
            return Drop(f"empty {name}")
    return Drop("identical tokens") if tokens.chosen == tokens.rejected else None


def _tokenize_text(pair: PreferencePair, encoder: Encoder) -> TokenPair:
    """Plain text: the response follows the prompt directly."""
    sides = [f"{pair.prompt}{side}" for side in (pair.chosen, pair.rejected)]
    tokens, _ = _join(pair, str(pair.prompt), sides, encoder)
    return tokens


def _tokenize_chat(pair: PreferencePair, encoder: Encoder) -> TokenPair | Drop:
    """Messages: the response is what the template writes after the generation prompt."""
    prompt, notes = _messages(pair.prompt), ()
    if encoder.folds_system and prompt and prompt[0]["role"] == "system":
        prompt, notes = fold_system(prompt), (SYSTEM_FOLDED,)
    rendered = encoder.render(prompt, add_generation_prompt=True)
    wholes = [
        encoder.render([*prompt, *_messages(side)], add_generation_prompt=False)
        for side in (pair.chosen, pair.rejected)
    ]
    if not _starts_all(rendered, wholes):
        header = _answer_header(prompt, encoder)
        if header is None or not _starts_all(header, wholes):
            return Drop("template: prompt is not a prefix")
        rendered, notes = header, (*notes, HEADER_DIFFERS)
    tokens, appended = _join(pair, rendered, wholes, encoder)
    ended = (END_APPENDED,) if appended else ()
    return replace(tokens, notes=(*tokens.notes, *notes, *ended))


def _messages(text: Any) -> list[Message]:
    return list(text)


def _starts_all(start: str, texts: list[str]) -> bool:
    return all(text.startswith(start) for text in texts)


def _answer_header(prompt: list[Message], encoder: Encoder) -> str | None:
    """Render up to where an answer begins in a finished conversation.

    Some templates end the generation prompt with what no finished answer has (an opened thinking
    block); then the finished form is the one to learn.
    """
    probe: Message = {"role": "assistant", "content": PROBE}
    before, found, _ = encoder.render([*prompt, probe], add_generation_prompt=False).rpartition(
        PROBE
    )
    return before if found and before.startswith(encoder.render(prompt, False)) else None


def _join(
    pair: PreferencePair, prompt: str, wholes: list[str], encoder: Encoder
) -> tuple[TokenPair, bool]:
    """Split the tokens of both whole texts after those of the prompt.

    Where a token spans the boundary on one side, that side's response is encoded by itself: the
    prompt is shared by both sides, and this is what the model meets when it answers.
    """
    prompt_ids = encoder.encode(prompt)
    responses, repaired, appended = [], False, False
    for whole in wholes:
        ids = encoder.encode(whole)
        if ids[: len(prompt_ids)] == prompt_ids:
            response = ids[len(prompt_ids) :]
        else:
            response, repaired = encoder.encode_continuation(whole[len(prompt) :]), True
        response, added = encoder.end_turn(response)
        responses.append(response)
        appended = appended or added
    notes = (*pair.notes, BOUNDARY_REPAIRED) if repaired else pair.notes
    return TokenPair(prompt_ids, responses[0], responses[1], pair.source, notes), appended


# Too long -----------------------------------------------------------------------------------------


def _bos_length(prompt: list[int], encoder: Encoder) -> int:
    return int(prompt[:1] == [encoder.tokenizer.bos_token_id])


def _cut_prompt(tokens: TokenPair, head: int, tail: int, max_seq_length: int) -> TokenPair | None:
    """Cut prompt ids after the first `head` ones; None unless one is left before the `tail`."""
    ids, too_many = tokens.prompt, tokens.longest - max_seq_length
    if len(ids) - head - too_many <= tail:
        return None
    return replace(tokens, prompt=ids[:head] + ids[head + too_many :])


def _cut_chat(
    pair: PreferencePair, encoder: Encoder, max_seq_length: int
) -> TokenPair | Drop | None:
    """Drop the oldest turns; then cut into the text of the last user turn.

    If that text has no room beside the system turn, the system turn goes too; last of all goes the
    head of the template, but never its end, where the answer begins.
    """
    shortest = pair
    for shorter in _with_fewer_turns(pair):
        tokens = _tokenize(shorter, encoder)
        if isinstance(tokens, Drop) or tokens.longest <= max_seq_length:
            return tokens
        shortest = shorter
    for candidate in (shortest, _without_system(shortest)):
        tokens = _tokenize(candidate, encoder)
        if isinstance(tokens, Drop) or tokens.longest <= max_seq_length:
            return tokens
        head, tail = _template_around(candidate, tokens, encoder)
        if cut := _cut_prompt(tokens, head, tail, max_seq_length):
            return cut
    return _cut_prompt(tokens, _bos_length(tokens.prompt, encoder), tail, max_seq_length)


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
    prompt[last] = {"role": prompt[last]["role"], "content": PROBE}
    other = _tokenize(replace(pair, prompt=prompt), encoder)
    if isinstance(other, Drop):
        return _bos_length(tokens.prompt, encoder), 0
    head = _shared(tokens.prompt, other.prompt)
    tail = _shared(tokens.prompt[head:][::-1], other.prompt[head:][::-1])
    return head, tail


def _shared(a: list[int], b: list[int]) -> int:
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
    lengths = {
        "prompt": [len(pair.prompt) for pair in pairs],
        "chosen": [len(pair.chosen) for pair in pairs],
        "rejected": [len(pair.rejected) for pair in pairs],
    }
    return {
        f"{name}_{label}": int(np.percentile(values, q, method="inverted_cdf"))
        for name, values in lengths.items()
        for label, q in (("p50", 50), ("p95", 95), ("max", 100))
    }


def decode_pair(pair: TokenPair, tokenizer: Tokenizer) -> dict[str, str]:
    """Return prompt, chosen and rejected as text decoded from the ids, and the source."""
    return {
        "source": pair.source,
        "prompt": str(tokenizer.decode(pair.prompt)),
        "chosen": str(tokenizer.decode(pair.chosen)),
        "rejected": str(tokenizer.decode(pair.rejected)),
    }


def split_pairs(
    pairs: Sequence[TokenPair], fraction: float, seed: int
) -> tuple[list[TokenPair], list[TokenPair]]:
    """Hold out pairs for validation; pairs with the same prompt stay on the same side.

    Args:
        fraction: share of the pairs to hold out, in [0, 1); above 0 it is at least one pair where
            there are two prompts, and no more than the share unless a single prompt has more.
        seed: of the draw.

    Returns:
        Training and validation pairs, each in the order given.
    """
    groups: dict[tuple[int, ...], int] = {}
    for pair in pairs:
        groups[tuple(pair.prompt)] = groups.get(tuple(pair.prompt), 0) + 1
    if fraction <= 0 or len(groups) < 2:
        return list(pairs), []
    prompts = list(groups)
    drawn = np.random.Generator(np.random.PCG64(seed)).permutation(len(prompts))
    wanted = max(1, round(fraction * len(pairs)))
    held: set[tuple[int, ...]] = set()
    count = 0
    for prompt in (prompts[i] for i in drawn):
        if count + groups[prompt] <= wanted and len(held) + 1 < len(prompts):
            held.add(prompt)
            count += groups[prompt]
    if not held:
        held.add(min((prompts[i] for i in drawn), key=lambda prompt: groups[prompt]))
    train = [pair for pair in pairs if tuple(pair.prompt) not in held]
    return train, [pair for pair in pairs if tuple(pair.prompt) in held]
