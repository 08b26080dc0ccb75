"""The pairs a model is judged by: those a run held out, or a file of their own; light, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.order import drawn_places
from orpo_mlx.data.layouts.fields import number_of
from orpo_mlx.data.layouts.scores import score_columns
from orpo_mlx.data.pipeline import rules_of, with_layouts
from orpo_mlx.data.prepare import (
    FoundData,
    PreparedData,
    find_training_data,
    hash_sources,
    prepare_data,
    read_source,
)
from orpo_mlx.data.sources.rows import Row
from orpo_mlx.data.sources.source import Choice, TrainingSources, find_data
from orpo_mlx.data.split import group_prompts, token_prompt_texts
from orpo_mlx.data.tokens.store import select
from orpo_mlx.data.types import Account, TokenPair
from orpo_mlx.errors import DataError
from orpo_mlx.models.load import ModelFolder
from orpo_mlx.text.progress import OnProgress

FEWEST = 10
"""Pairs below which no interval means anything."""


@dataclass(frozen=True)
class HeldOut:
    """Pairs to judge by.

    Attributes:
        pairs: in the order of their rows.
        groups: [N] which pairs have like prompts.
        gaps: [N] chosen less rejected score, NaN where a row has no scores.
        is_held_out: whether the run kept them from its training; else they are the user's own.
        available: pairs they were drawn from.
        account: of the rows they come from.
        notes: what the user should know of them.
    """

    pairs: Sequence[TokenPair]
    groups: np.ndarray
    gaps: np.ndarray
    is_held_out: bool
    available: int
    account: Account
    notes: list[str] = field(default_factory=list)

    @property
    def noun(self) -> str:
        """What the pairs are called in a sentence."""
        return "held-out pairs" if self.is_held_out else "pairs"


def find_own(config: TrainConfig, on_progress: OnProgress | None = None) -> FoundData:
    """Find and read pairs that are all to be judged by; of a folder its validation split.

    Args:
        config: with `data` set.
        on_progress: told of a download.

    Raises:
        DataError: they cannot be found or read, or have no known layout.
    """
    choice = Choice(config.data_split or "", config.data_subset or "", config.data_revision or "")
    source = find_data(str(config.data), choice, "valid", None, on_progress)
    found = FoundData(TrainingSources(source), {"data": source.content_hash()}, {})
    found.rows["data"] = read_source(found, "data", config)
    parts = with_layouts(found.rows["data"], rules_of(config))
    _require_pairs(any(layout.is_labelled for _, layout in parts), config)
    return found


def _require_pairs(is_labelled: bool, config: TrainConfig) -> None:
    if is_labelled:
        raise DataError(
            f"{config.data}: found answers with a label each; whether a run has helped is told "
            "from pairs of a better and a worse answer.",
            "Give pairs the model has not seen: --data FILE.",
        )


def find_of_run(
    config: TrainConfig, manifest: dict[str, Any], run: str, on_progress: OnProgress | None = None
) -> FoundData:
    """Find the data of a run again, and check that they are what it was trained on.

    Args:
        config: of the run.
        manifest: of a checkpoint of the run; {} if it has none.
        run: its id, for messages.
        on_progress: told of a download.

    Raises:
        DataError: they are gone, or have changed: then nobody knows what was held out.
    """
    _require_pairs(config.objective == "kto" and not config.unpair, config)
    content = manifest.get("content", {})
    found = find_training_data(config, content.get("data_revision"), on_progress)
    for name, digest in found.hashes.items():
        if content.get(name, digest) != digest:
            raise DataError(
                f"--{name.replace('_', '-')} {found.named[name].name}: the file has changed since "
                f"run {run} was trained on it; which pairs it held out cannot be told any more.",
                "Put the old file back, or give pairs it has not seen: --data FILE.",
            )
    return found


def tokenize_held_out(
    config: TrainConfig, found: FoundData, tokenizer: Any, folder: ModelFolder, is_of_run: bool,
    on_progress: OnProgress | None = None,
) -> HeldOut:  # fmt: skip
    """Tokenize pairs as the training does.

    Args:
        config: of the run, or made for `find_own`.
        found: of `find_of_run` or `find_own`.
        tokenizer: of the model.
        folder: of the model.
        is_of_run: whether only what the run held out is meant.
        on_progress: told of the rows while many are tokenized.

    Raises:
        DataError: no pairs are held out, or too few are left.
    """
    if not is_of_run:
        config = config.model_copy(update={"valid_fraction": 0.0, "micro_batch_size": 1})
    config = config_of_pairs(config)
    name = "valid_data" if is_of_run and "valid_data" in found.named else "data"
    data = prepare_data(
        config, found, tokenizer, folder.path, folder.vocab_size, folder.name, on_progress
    )
    pairs = data.valid if is_of_run else data.train
    _require_enough(len(pairs), config, data, is_of_run)
    gaps = _score_gaps(pairs, read_source(found, name, config))
    account = data.valid_account or data.account
    notes = notes_of_run(found.hashes) if is_of_run else list(data.notes)
    groups = grouped(pairs, tokenizer)
    return HeldOut(pairs, groups, gaps, is_of_run, len(pairs), account, notes)


def config_of_pairs(config: TrainConfig) -> TrainConfig:
    """Return settings that read the pairs of a run, which KTO takes apart."""
    if config.objective != "kto":
        return config
    return config.model_copy(update={"objective": "dpo", "unpair": False})


def grouped(pairs: Sequence[TokenPair], tokenizer: Any) -> np.ndarray:
    """Return [N] which pairs have like prompts."""
    return np.array(group_prompts(token_prompt_texts(pairs, tokenizer)))


def notes_of_run(hashes: Mapping[str, str]) -> list[str]:
    """Return what concerns the pairs a run held out; the rest it has said when it was trained.

    Args:
        hashes: of the content, by setting ("data", "valid_data").
    """
    if hashes.get("valid_data") != hashes["data"]:
        return []
    return ["the validation data of the run are its training data: it was trained on these pairs"]


def _require_enough(count: int, config: TrainConfig, data: PreparedData, is_of_run: bool) -> None:
    if is_of_run and not count:
        raise DataError(
            f"{config.data}: the run held out no pairs (valid_fraction {config.valid_fraction:g}, "
            f"no valid_data); at least {FEWEST} are needed to judge it.",
            "Give pairs it has not seen: --data FILE.",
        )
    if count < FEWEST:
        kind = "held-out pairs" if is_of_run else "usable pairs"
        dropped = ", ".join(f"{n} {why}" for why, n in data.account.dropped.items())
        raise DataError(
            f"{config.valid_data or config.data}: {count} {kind}"
            + (f" (dropped: {dropped})" if dropped else "")
            + f"; at least {FEWEST} are needed, and 100 or more to see anything but great changes.",
            "Give more pairs the model has not seen: --data FILE.",
        )


def draw(held: HeldOut, count: int, seed: int) -> HeldOut:
    """Draw pairs by a seed, all if `count` is 0 or there are no more; their order stays."""
    if count == 0 or count >= len(held.pairs):
        return held
    kept = drawn_places(len(held.pairs), count, seed)
    return HeldOut(
        select(held.pairs, kept), held.groups[kept], held.gaps[kept], held.is_held_out,
        held.available, held.account, held.notes,
    )  # fmt: skip


def score_gaps(
    config: TrainConfig, pairs: Sequence[TokenPair], pinned: dict[str, str]
) -> np.ndarray:
    """Read the scores of the pairs a run held out; the pairs themselves are at hand.

    Args:
        config: of the run.
        pairs: held out.
        pinned: commits of Hub datasets, by id.

    Returns:
        [N] chosen less rejected score; NaN for all if the data cannot be read again.
    """
    try:
        found = hash_sources(config, pinned)
        name = "valid_data" if "valid_data" in found.named else "data"
        return _score_gaps(pairs, read_source(found, name, config))
    except DataError:  # gone since it was read; only the scores are missing
        return np.full(len(pairs), np.nan)


def _score_gaps(pairs: Sequence[TokenPair], members: Sequence[Sequence[Row]]) -> np.ndarray:
    """Return chosen less rejected score of each pair, the mean where a row has several."""
    gaps = {row.source: gap for rows in members for row in rows if (gap := _gap(row)) is not None}
    return np.array([gaps.get(pair.source, np.nan) for pair in pairs], np.float64)


def _gap(row: Row) -> float | None:
    found = []
    for name, other in score_columns(row.values):
        chosen, rejected = number_of(row.values[name]), number_of(row.values[other])
        if chosen is not None and rejected is not None:
            found.append(chosen - rejected)
    return sum(found) / len(found) if found else None
