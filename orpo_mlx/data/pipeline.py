"""What becomes of each row of a dataset: converted, tokenized, kept or dropped with a reason.

`iter_fates` is the one path from rows to pairs. A training takes the pairs from it, the doctor
looks at the same rows on the way; so nothing is trained on that the doctor did not show.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.layouts.detect import Layout, LayoutChoice, laid_out, to_pairs
from orpo_mlx.data.sources.rows import Row, report_problems
from orpo_mlx.data.sources.source import read_rows
from orpo_mlx.data.tokens.encoder import Encoder, Tokenizer
from orpo_mlx.data.tokens.store import TokenPairs, TokenPairsBuilder
from orpo_mlx.data.tokens.tokenize import (
    Overlong,
    Rendered,
    encoder_of,
    finish_pair,
    fit_pair,
    render_pair,
)
from orpo_mlx.data.types import Account, Drop, Pair, TokenPair
from orpo_mlx.errors import DataError

DUPLICATE = "duplicate row"
CHUNK = 256
"""Pairs whose texts are encoded at once."""
WRONG_VALUES = "values of a wrong kind"


@dataclass(frozen=True)
class PreparedRows:
    """What a data file became: the pairs to train on and where every other row went."""

    pairs: TokenPairs
    account: Account
    layout: str


def prepare_file(
    path: str | Path, tokenizer: Tokenizer | Encoder, rules: Rules | int
) -> PreparedRows:
    """A file to token pairs: `read_rows`, then `prepare_rows`.

    Raises:
        DataError: as those do.
    """
    return prepare_rows(read_rows(path), tokenizer, rules)


def prepare_rows(
    rows: Sequence[Row], tokenizer: Tokenizer | Encoder, rules: Rules | int
) -> PreparedRows:
    """Rows of one layout to token pairs; as `prepare_members`."""
    return prepare_members([rows], tokenizer, rules)


def prepare_members(
    members: Sequence[Sequence[Row]],
    tokenizer: Tokenizer | Encoder,
    rules: Rules | int,
    on_row: Callable[[int], None] | None = None,
) -> PreparedRows:
    """Rows of a dataset to token pairs: layout, conversion, tokenization.

    Args:
        members: rows of each source, each of one layout.
        tokenizer: of the model that is trained.
        rules: or just the longest prompt + response, in tokens.
        on_row: called with the number of rows done so far.

    Raises:
        DataError: unknown layout, wrong types, or nothing left to train on.
    """
    rules = Rules(rules) if isinstance(rules, int) else rules
    parts = with_layouts(members, rules)
    fates = iter_fates(parts, encoder_of(tokenizer), rules)
    return collect(_counted(fates, on_row) if on_row else fates, layout_name(parts), rules)


def _counted(fates: Iterable[Fate], on_row: Callable[[int], None]) -> Iterator[Fate]:
    for done, fate in enumerate(fates, start=1):
        yield fate
        on_row(done)


Part = tuple[Iterable[Row], Layout]
"""Rows of one source and their layout."""


def with_layouts(members: Sequence[Sequence[Row]], rules: Rules) -> list[Part]:
    """Return the rows of each source with their layout.

    Raises:
        DataError: no layout fits, or several do.
    """
    return [laid_out(rows, rules.choice) for rows in members]


def layout_name(parts: Sequence[Part]) -> str:
    """Return the layouts of a dataset by name, each once."""
    return "; ".join(dict.fromkeys(layout.name for _, layout in parts))


@dataclass(frozen=True)
class Rules:
    """What is done with pairs besides the template.

    Attributes:
        max_seq_length: tokens of prompt plus longer response.
        overlong: "cut" the prompt of pairs that are longer, or "drop" them.
        vocab_size: rows of the model's embedding; given, larger token ids are refused.
        keep_duplicates: whether a row that is equal to an earlier one stays.
        choice: what the user said about columns and scores.
    """

    max_seq_length: int
    overlong: Overlong = "cut"
    vocab_size: int | None = None
    keep_duplicates: bool = False
    choice: LayoutChoice = field(default_factory=LayoutChoice)


def rules_of(config: TrainConfig, vocab_size: int | None = None) -> Rules:
    """Return what the settings of a training say about rows."""
    return Rules(
        config.max_seq_length,
        vocab_size=vocab_size,
        keep_duplicates=config.keep_duplicates,
        choice=LayoutChoice.of(config),
    )


def encoder_for(config: TrainConfig, tokenizer: Tokenizer) -> Encoder:
    """Return the encoder that the settings of a training describe."""
    return Encoder(tokenizer, config.thinking, config.escape_special)


@dataclass(frozen=True)
class Fate:
    """What became of one row.

    Attributes:
        row: as it was read.
        pair: the row in normal form, None if it was dropped or refused before.
        tokens: what is trained on, None if the row is dropped or there is no tokenizer.
        lengths: tokens of prompt, chosen and rejected before anything was cut, if known.
        dropped: the reason, "" for a kept row.
        longest: for a row dropped for its length, tokens of prompt plus longer response.
        notes: what was unusual about a kept row.
        error: what is wrong with the row's values; one such row and the file is refused.
    """

    row: Row
    pair: Pair | None = None
    tokens: TokenPair | None = None
    lengths: tuple[int, int, int] | None = None
    dropped: str = ""
    longest: int = 0
    notes: tuple[str, ...] = ()
    error: DataError | None = None


def iter_fates(parts: Iterable[Part], encoder: Encoder | None, rules: Rules) -> Iterator[Fate]:
    """Yield what becomes of each row, in order: the one path of training and doctor.

    Args:
        parts: of one dataset.
        encoder: of the model that is trained; without one rows are converted, not tokenized.
        rules: for lengths and duplicates.

    Raises:
        DataError: messages without a chat template, or a template that does not end.
    """
    converted = _iter_converted(parts, rules)
    if encoder is None:
        yield from converted
        return
    while chunk := list(itertools.islice(converted, CHUNK)):
        yield from _tokenized_together(chunk, encoder, rules)


def _iter_converted(parts: Iterable[Part], rules: Rules) -> Iterator[Fate]:
    seen: set[bytes] = set()
    for row, layout in ((row, layout) for rows, layout in parts for row in rows):
        fate = _convert(row, layout)
        key = content_key(fate.pair) if fate.pair is not None else None
        if key is not None and key in seen and not rules.keep_duplicates:
            fate = replace(fate, dropped=DUPLICATE)
        if key is not None:
            seen.add(key)
        yield fate


def _tokenized_together(fates: Sequence[Fate], encoder: Encoder, rules: Rules) -> Iterator[Fate]:
    """Tokenize some pairs, their texts encoded at once."""
    rendered = [
        render_pair(fate.pair, encoder) if fate.pair is not None and not fate.dropped else None
        for fate in fates
    ]
    encoder.encode_ahead([t for r in rendered if isinstance(r, Rendered) for t in r.texts])
    for fate, text in zip(fates, rendered, strict=True):
        if fate.pair is None or text is None:
            yield fate
        else:
            yield _tokenized(fate, fate.pair, text, encoder, rules)


def _convert(row: Row, layout: Layout) -> Fate:
    account = Account()
    try:
        pairs = to_pairs([row], layout, account)
    except DataError as error:
        return Fate(row, dropped=WRONG_VALUES, error=error)
    if not pairs:
        return Fate(row, dropped=next(iter(account.dropped)))
    return Fate(row, pairs[0], notes=(*pairs[0].notes, *account.noted))


def content_key(pair: Pair) -> bytes:
    """Return a digest that equal pairs share, wherever they come from."""
    tools = getattr(pair, "tools", None)
    content = repr((pair.prompt, pair.chosen, pair.rejected, tools, pair.label))
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _tokenized(
    fate: Fate, pair: Pair, rendered: Rendered | TokenPair | Drop, encoder: Encoder, rules: Rules
) -> Fate:
    whole = finish_pair(rendered, encoder)
    if isinstance(whole, Drop):
        return replace(fate, dropped=whole.reason, notes=())
    lengths = len(whole.prompt), len(whole.chosen), len(whole.rejected)
    result = fit_pair(whole, pair, encoder, rules.max_seq_length, rules.overlong)
    if isinstance(result, Drop):
        return replace(
            fate, lengths=lengths, dropped=result.reason, longest=result.longest, notes=()
        )
    if error := _unknown_id(result, rules.vocab_size):
        return replace(fate, lengths=lengths, dropped=WRONG_VALUES, error=error, notes=())
    notes = tuple(dict.fromkeys((*fate.notes, *result.notes)))
    return replace(fate, lengths=lengths, tokens=result, notes=notes)


def take_account(fate: Fate, account: Account) -> None:
    """Count a row where it went."""
    account.read += 1
    if fate.dropped:
        account.drop(fate.dropped, fate.row.source)
        return
    account.kept += 1
    for note in fate.notes:
        account.note(note, fate.row.source)


def collect(fates: Iterable[Fate], layout: str, rules: Rules) -> PreparedRows:
    """Gather the pairs to train on and the account of all rows.

    Raises:
        DataError: values of a wrong type or unknown roles, the first three rows named; or no pair
            is left.
    """
    account = Account()
    kept = TokenPairsBuilder()
    errors: list[DataError] = []
    overlong: list[int] = []
    for fate in fates:
        take_account(fate, account)
        if fate.error is not None:
            errors.append(fate.error)
        elif fate.longest:
            overlong.append(fate.longest)
        if fate.tokens is not None:
            kept.add(fate.tokens)
    if errors:
        raise report_problems([e.message for e in errors], errors[0].what_to_do, noun="rows")
    if not kept:
        raise nothing_left(account, overlong, rules.max_seq_length)
    return PreparedRows(kept.build(), account, layout)


def prepare_pairs(
    pairs: Sequence[Pair], tokenizer: Tokenizer | Encoder, rules: Rules | int
) -> tuple[TokenPairs, Account]:
    """Tokenize pairs and account for each.

    Args:
        pairs: text, messages, or token ids taken as they are; equal ones are all kept.
        tokenizer: of the model that is trained.
        rules: or just the longest prompt + response, in tokens.

    Returns:
        The kept pairs in their order, and the account: read = kept + sum of dropped.

    Raises:
        DataError: no pair is left, or a token id does not exist in the model.
    """
    rules = Rules(rules) if isinstance(rules, int) else rules
    encoder = encoder_of(tokenizer)
    given = (Fate(Row({}, pair.source), pair, notes=pair.notes) for pair in pairs)
    chunks = iter(lambda: list(itertools.islice(given, CHUNK)), [])
    fates = (fate for chunk in chunks for fate in _tokenized_together(chunk, encoder, rules))
    found = collect(fates, "", rules)
    return found.pairs, found.account


def _unknown_id(pair: TokenPair, vocab_size: int | None) -> DataError | None:
    # An id past the embedding is not an error on a GPU: it reads whatever lies there.
    if vocab_size is None:
        return None
    largest = max(map(max, filter(None, (pair.prompt, pair.chosen, pair.rejected))))
    if largest < vocab_size:
        return None
    return DataError(
        f"{pair.source}: token id {largest} does not exist; the model has {vocab_size}.",
        "Use the tokenizer that belongs to the model.",
    )


def nothing_left(account: Account, lengths: Sequence[int], max_seq_length: int) -> DataError:
    """Say why no pair is left: the reasons by their number, and a length that would do.

    Args:
        account: of all rows.
        lengths: tokens of the pairs that were dropped for their length.
        max_seq_length: the limit they met.
    """
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


def too_few(data: str, left: int, held_out: int, needed: int, account: Account) -> DataError:
    """Say what is left for training; a batch is never filled up with copies.

    Args:
        data: what the pairs are from.
        left: pairs for training.
        held_out: pairs for validation.
        needed: pairs of a micro-batch.
        account: of all rows.
    """
    are_left = "1 pair is left" if left == 1 else f"{left} pairs are left"
    beside = f" besides {held_out} held out for validation" if held_out else ""
    advice = f"Lower --micro-batch-size to {left} or less" if left else "Add pairs"
    other = ", set --valid-fraction 0, or add pairs." if held_out else ", or add pairs."
    reasons = ", ".join(f"{count:,} {why}" for why, count in account.dropped.items())
    dropped = f" Of {account.read:,} rows are dropped: {reasons}." if reasons else ""
    return DataError(
        f"{data}: {are_left} for training{beside}; --micro-batch-size is {needed}.{dropped}",
        advice + other,
    )
