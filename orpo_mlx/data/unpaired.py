"""Rows of KTO: answers with a label each, in an order, each with an answer to another prompt.

The other answers are what KTO's KL is estimated from. They are chosen once, within the rows of a
step, so what a reference says of them is found once; whole steps are shuffled, not their rows.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.tokens.store import TokenPairs, gather, pair_labels, select
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import DataError
from orpo_mlx.text.formatting import counted

SLACK = 1.1
"""A weight for less than so much is not worth a word."""
MOST_GOOD = 4 / 3
"""Good answers should weigh 1 to so many times what the bad ones do; KTO, section 4.2."""


def rows_for(pairs: Sequence[TokenPair], config: TrainConfig) -> Sequence[TokenPair]:
    """Return the rows that an objective learns from: pairs as they are, or KTO's.

    Raises:
        DataError: as `require_kind`.
    """
    require_kind({label is not None for label in pair_labels(pairs)}, config)
    if config.objective != "kto" or not pairs:
        return pairs
    rows: Sequence[TokenPair] = gather(unpaired(pairs)) if config.unpair else pairs
    size = step_rows(config)
    if config.order == "shuffled":
        rows = select(rows, mixed_order(rows, size, config.seed))
    if config.kto_loss != "kto":
        return rows
    return with_other_answers(rows, size, config.max_seq_length)


def step_rows(config: TrainConfig) -> int:
    """Return the rows of a step."""
    return config.micro_batch_size * config.grad_accumulation_steps


def require_kind(are_labelled: Collection[bool], config: TrainConfig) -> None:
    """Refuse labelled answers where pairs are needed, and the reverse.

    Args:
        are_labelled: of the rows, or of their layouts.
        config: with the objective.

    Raises:
        DataError: saying what would do.
    """
    if config.objective != "kto" and True in are_labelled:
        raise DataError(
            f"{config.data}: found answers with a label each; --objective {config.objective} needs "
            "pairs of a better and a worse answer.",
            "Train with --objective kto; or make pairs of prompts that have both with "
            "`orpo-mlx data pairs`.",
        )
    if config.objective == "kto" and False in are_labelled and not config.unpair:
        raise DataError(
            f"{config.data}: found pairs; --objective kto needs answers with a label each (prompt, "
            "completion, label).",
            "Add --unpair to take each pair as a good and a bad answer; pairs say more as pairs: "
            "--objective dpo.",
        )


def require_both_labels(rows: Sequence[TokenPair], config: TrainConfig) -> None:
    """Refuse rows that KTO cannot be trained on: of one label only, or of one prompt.

    Raises:
        DataError: saying how many there are.
    """
    good, bad = count_labels(rows)
    if good and bad:
        first = rows[0].prompt if config.kto_loss == "kto" else None
        if any(row.prompt != first for row in rows):
            return
        raise DataError(
            f"{config.data}: {len(rows):,} answers for training, all to one prompt; kto estimates "
            "its KL from answers to other prompts.",
            "Add answers to other prompts, or take --kto-loss apo_zero_unpaired.",
        )
    found, other = ("good", "bad") if good else ("bad", "good")
    raise DataError(
        f"{config.data}: {counted(good or bad, 'answer')} for training, labelled as {found} one "
        "and all; --objective kto needs good and bad ones.",
        f"Add answers that are {other}"
        + ("; good ones alone are for --objective sft, which takes pairs." if good else "."),
    )


def count_labels(rows: Sequence[TokenPair]) -> tuple[int, int]:
    """Return how many answers are labelled as good, and how many as bad."""
    labels = pair_labels(rows)
    return sum(label is True for label in labels), sum(label is False for label in labels)


def weights_note(good: int, bad: int, weights: tuple[float, float] = (1.0, 1.0)) -> str:
    """Return which weight would make up for labels that differ much in number, "" if none must.

    Args:
        good, bad: how many answers there are, at least one of each.
        weights: of both, as they are set.

    Example:
        300 good and 100 bad answers: 300 / (4/3 * 100) = 2.25 for the bad ones.
    """
    of_good, of_bad = weights[0] * good, weights[1] * bad
    if of_bad / SLACK <= of_good <= MOST_GOOD * of_bad * SLACK or not (of_good and of_bad):
        return ""
    few = "bad" if of_good > of_bad else "good"
    flag, value = "--desirable-weight", of_bad / good
    if few == "bad":
        flag, value = "--undesirable-weight", of_good / (MOST_GOOD * bad)
    return (
        f"{good:,} answers are labelled as good and {bad:,} as bad; {flag} {value:.3g} would make "
        f"up for how few are {few}"
    )


def unpaired(pairs: Sequence[TokenPair]) -> list[TokenPair]:
    """Return both answers of each pair, labelled; rows that are labelled already stay.

    One answer of each prompt comes first, good and bad by turns, then the other ones: neighbours
    have different prompts.
    """
    kept = [pair for pair in pairs if pair.label is not None]
    whole = [pair for pair in pairs if pair.label is None]
    first = [_answer(pair, i % 2 == 0) for i, pair in enumerate(whole)]
    second = [_answer(pair, i % 2 == 1) for i, pair in enumerate(whole)]
    return [*kept, *first, *second]


def _answer(pair: TokenPair, label: bool) -> TokenPair:
    return replace(pair, chosen=pair.chosen if label else pair.rejected, rejected=[], label=label)


def mixed_order(rows: Sequence[TokenPair], size: int, seed: int) -> list[int]:
    """Return an order in which each step has both labels and no prompt twice, where that can be.

    Args:
        rows: labelled answers.
        size: rows of a step.
        seed: of the draw; the labels are spread evenly.
    """
    drawn = np.random.Generator(np.random.PCG64(seed)).permutation(len(rows)).tolist()
    labels, prompts = zip(*((row.label, tuple(row.prompt)) for row in rows), strict=True)
    queues = {label: deque(i for i in drawn if labels[i] is label) for label in (True, False)}
    share = len(queues[True]) / len(rows)
    order: list[int] = []
    while len(order) < len(rows):
        taken: set[tuple[int, ...]] = set()
        for place in range(len(order), min(len(order) + size, len(rows))):
            # A step up or none: labels in their share, evenly.
            wanted = int((place + 1) * share) > int(place * share)
            order.append(_next(queues[wanted] or queues[not wanted], prompts, taken))
            taken.add(prompts[order[-1]])
    return order


def _next(
    queue: deque[int], prompts: Sequence[tuple[int, ...]], taken: set[tuple[int, ...]]
) -> int:
    """Take the first of a queue whose prompt is not in the step yet; if all are, the first."""
    place = next((n for n, i in enumerate(queue) if prompts[i] not in taken), 0)
    found = queue[place]
    del queue[place]
    return found


def with_other_answers(rows: Sequence[TokenPair], size: int, longest: int) -> TokenPairs:
    """Give each row, as its rejected side, the answer of the row before it in its step.

    The first of a step gets that of the last. It must be an answer to another prompt: rows with the
    same one are passed over, and where a step has no other, it is one of an earlier step; where
    there is none at all, its own.

    Args:
        rows: labelled answers, in their order.
        size: rows of a step; the last step may be shorter.
        longest: tokens of prompt plus answer; the other answer is cut on the right.

    Source:
        KTO, section 4.1; TRL pairs them the same way.
    """
    prompts = [row.prompt for row in rows]
    done = (
        replace(row, rejected=rows[other].chosen[: longest - len(row.prompt)])
        for row, other in ((row, _other(prompts, i, size)) for i, row in enumerate(rows))
    )
    return gather(done)


def _other(prompts: Sequence[list[int]], place: int, size: int) -> int:
    start = place // size * size
    count = min(size, len(prompts) - start)
    within = (start + (place - start - back) % count for back in range(1, count))
    elsewhere = ((start - back) % len(prompts) for back in range(1, len(prompts)))
    others = itertools.chain(within, elsewhere)
    return next((other for other in others if prompts[other] != prompts[place]), place)
