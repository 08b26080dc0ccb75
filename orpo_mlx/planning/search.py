"""Settings that fit into the memory there is: the least costly change, and the largest values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.planning.plan import LONGEST, Question

SHORTEST = 128
"""Shortest --max-seq-length that is tried, in tokens."""
SMALLEST_BATCH, LARGEST_BATCH = 256, 1 << 16
"""Range of --tokens-per-batch that is searched, in tokens."""


@dataclass(frozen=True)
class Suggestion:
    """Settings that fit.

    Attributes:
        what: what they are good for.
        changes: settings to their values.
        total: estimated peak in bytes.
        recompute_every: one of so many blocks would be recomputed; 0: none.
    """

    what: str
    changes: dict[str, Any]
    total: int
    recompute_every: int = 0

    @property
    def flags(self) -> str:
        """The settings as they are typed."""
        return flags_of(self.changes)


def flags_of(changes: dict[str, Any]) -> str:
    """Return settings as command-line flags, in the order of their declaration."""
    words = []
    for setting in iter_settings():
        if setting.name in changes:
            value = changes[setting.name]
            on = setting.flag if value else f"--no-{setting.flag[2:]}"
            words.append(on if setting.kind == "bool" else f"{setting.flag} {value}")
    return " ".join(words)


def suggest(question: Question) -> list[Suggestion]:
    """Return settings that fit, the least costly change first."""
    config = question.config
    found = [
        first_fit("as it is" if question.fits() else "instead", question),
        _fastest(question),
        _longest(question),
    ]
    if 0 < config.num_layers < len(question.shape.blocks):
        changes = {**_division(config), "num_layers": -1}
        found.append(first_fit("all blocks adapted", question, changes, layers=False))
    different: dict[str, Suggestion] = {}
    for one in found:
        if one is not None and one.changes:
            different.setdefault(one.flags, one)
    return list(different.values())


def _division(config: TrainConfig) -> dict[str, Any]:
    """Fixed batches cannot be made smaller without other steps: divide them by tokens."""
    return {} if config.batching == "tokens" else {"batching": "tokens"}


def _fitting(
    what: str, question: Question, changes: dict[str, Any], recomputing: str = ""
) -> Suggestion | None:
    """Return the changes as a suggestion if they fit.

    Args:
        what: what they are good for.
        question: the run.
        changes: of settings.
        recomputing: value of grad_checkpoint to try; "auto" need not be told where it is set, since
            it finds by itself what "off" or any other value would.
    """
    recomputing = recomputing or question.config.grad_checkpoint
    plan = question.plan(**{**changes, "grad_checkpoint": recomputing})
    if plan.estimate.total > question.limit:
        return None
    if question.config.grad_checkpoint not in ("auto", recomputing):
        changes = {**changes, "grad_checkpoint": recomputing}
    return Suggestion(what, changes, plan.estimate.total, plan.savings.recompute_every)


def _ways_to_recompute(config: TrainConfig) -> tuple[str, ...]:
    """Return the values of grad_checkpoint that may be tried, the cheapest first."""
    return ("on", "auto") if config.grad_checkpoint == "on" else ("off", "auto")


def first_fit(
    what: str, question: Question, base: dict[str, Any] | None = None, layers: bool = True
) -> Suggestion | None:
    """Return the first of the cheaper settings that fits, None if not even the last does."""
    for changes, recomputing in _cheaper(question, base or {}, layers):
        if found := _fitting(what, question, changes, recomputing):
            return found
    return None


def without_recomputing(question: Question) -> Suggestion | None:
    """Return the largest smaller forward pass for which no block need be computed again."""
    config = question.config
    for tokens in _halves(config.tokens_per_batch, SMALLEST_BATCH)[1:]:
        changes = {**_division(config), "tokens_per_batch": tokens}
        if found := _fitting("no block computed again", question, changes, "off"):
            return found
    return None


def _cheaper(
    question: Question, base: dict[str, Any], layers: bool
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield changes in the order of what they cost: nothing, time, learning, and data."""
    config = question.config
    yield base, config.grad_checkpoint
    count = len(question.shape.blocks)
    adapted = min(count, config.num_layers) if config.num_layers > 0 else count
    for length in _halves(config.max_seq_length, SHORTEST):
        for blocks in _halves(adapted, 1) if layers else [adapted]:
            for recomputing in _ways_to_recompute(config):
                for tokens in _halves(config.tokens_per_batch, SMALLEST_BATCH):
                    wanted = {
                        "max_seq_length": (length, config.max_seq_length),
                        "num_layers": (blocks, adapted),
                        "tokens_per_batch": (tokens, config.tokens_per_batch),
                    }
                    own = {n: new for n, (new, old) in wanted.items() if new != old}
                    yield {**own, **_division(config), **base}, recomputing


def _halves(start: int, end: int) -> list[int]:
    found = [start]
    while found[-1] // 2 >= end:
        found.append(found[-1] // 2)
    return found


def _fastest(question: Question) -> Suggestion | None:
    """Return the largest forward pass that fits, without checkpointing if possible."""
    for recomputing in ("off", "auto"):
        tokens = LARGEST_BATCH
        while tokens >= SMALLEST_BATCH:
            changes = {**_division(question.config), "tokens_per_batch": tokens}
            if found := _fitting("largest forward pass", question, changes, recomputing):
                return found
            tokens //= 2
    return None


def _longest(question: Question) -> Suggestion | None:
    """Return the longest pairs that fit, one a forward pass, with checkpointing if needed."""
    base = _division(question.config)
    base["tokens_per_batch"] = min(question.config.tokens_per_batch, SMALLEST_BATCH)
    enough = max((pair.longest for pair in question.train), default=LONGEST)
    best, length = None, SHORTEST
    while length <= LONGEST:
        changes = {**base, "max_seq_length": length}
        found = _fitting("longest pairs", question, changes, "auto")
        if found is None:
            break
        best = found
        if length >= enough:
            break
        length *= 2
    return best
