"""Does a run fit into memory, and which settings would? `orpo-mlx fit`, and the check in train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo_mlx.config import TrainConfig, iter_settings
from orpo_mlx.data.pairs import TokenPair
from orpo_mlx.errors import ConfigError
from orpo_mlx.formatting import format_bytes
from orpo_mlx.memory import (
    Estimate,
    Lengths,
    available_bytes,
    estimate,
    longest_batch,
    parse_size,
)
from orpo_mlx.model_shape import ModelShape, read_shape
from orpo_mlx.runs.listing import memory_shares

SHORTEST, LONGEST = 128, 1 << 17
"""Range of --max-seq-length that is searched, in tokens."""
SMALLEST_BATCH, LARGEST_BATCH = 256, 1 << 16
"""Range of --tokens-per-batch that is searched, in tokens."""


@dataclass(frozen=True)
class Question:
    """A run whose memory is asked for.

    Attributes:
        shape: of the model.
        config: the settings.
        train, valid: lengths of the pairs, of any length: those beyond `max_seq_length` are cut or
            dropped as in a run. Without training pairs the worst the settings allow is assumed.
        way: of scoring.
    """

    shape: ModelShape
    config: TrainConfig
    train: Sequence[Lengths] = ()
    valid: Sequence[Lengths] = ()
    way: str = "packed"

    def answer(self, **changes: Any) -> Estimate:
        """Return the estimate, with other values of some settings."""
        config = self.config.model_copy(update=changes)
        train = clipped(self.train, config.max_seq_length) if self.train else []
        train = train or _worst_pairs(config)
        found = estimate(self.shape, config, longest_batch(train, config, self.way))
        valid = clipped(self.valid, config.max_seq_length)
        valid = valid[: config.eval_pairs] if config.eval_pairs else valid
        if not valid:
            return found
        tokens = longest_batch(valid, config, self.way, members=len(valid))
        evaluation = estimate(self.shape, config, tokens, trains=False)
        return max(found, evaluation, key=lambda one: one.total)


def lengths_of(pairs: Sequence[TokenPair]) -> list[Lengths]:
    """Return the tokens of each pair."""
    return [Lengths(len(p.prompt), len(p.chosen), len(p.rejected)) for p in pairs]


def clipped(pairs: Sequence[Lengths], limit: int) -> list[Lengths]:
    """Return the lengths of the pairs after prompts were cut and too long pairs dropped."""
    answers = [max(pair.chosen, pair.rejected) for pair in pairs]
    return [
        pair._replace(prompt=min(pair.prompt, limit - answer))
        for pair, answer in zip(pairs, answers, strict=True)
        if answer < limit
    ]


def _worst_pairs(config: TrainConfig) -> list[Lengths]:
    """Return a step of pairs as long as may be: all answer, which attention costs most."""
    longest = config.max_seq_length - 1
    return [Lengths(1, longest, longest)] * config.micro_batch_size * config.grad_accumulation_steps


@dataclass(frozen=True)
class Suggestion:
    """Settings that fit.

    Attributes:
        what: what they are good for.
        changes: settings to their values.
        total: estimated peak in bytes.
    """

    what: str
    changes: dict[str, Any]
    total: int

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


@dataclass(frozen=True)
class Answer:
    """What `orpo-mlx fit` found.

    Attributes:
        estimate: of the settings as given.
        limit: bytes there are.
        suggestions: settings that fit, the least costly change first.
        way: of scoring that was assumed.
        pairs: training pairs the lengths are from; 0: the worst the settings allow.
        past: peak / estimate of finished runs, sorted.
    """

    estimate: Estimate
    limit: int
    suggestions: list[Suggestion]
    way: str = "packed"
    pairs: int = 0
    past: list[float] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether the settings as given fit."""
        return self.estimate.total <= self.limit


def suggest(question: Question, limit: int) -> list[Suggestion]:
    """Return settings that fit into `limit` bytes, the least costly change first."""
    config = question.config
    found = [
        _first_fit("as it is" if _fits(question, limit) else "instead", question, limit),
        _fastest(question, limit),
        _longest(question, limit),
    ]
    if 0 < config.num_layers < len(question.shape.blocks):
        changes = {**_division(config), "num_layers": -1}
        found.append(_first_fit("all blocks adapted", question, limit, changes, layers=False))
    different: dict[str, Suggestion] = {}
    for one in found:
        if one is not None and one.changes:
            different.setdefault(one.flags, one)
    return list(different.values())


def _fits(question: Question, limit: int, **changes: Any) -> bool:
    return question.answer(**changes).total <= limit


def _division(config: TrainConfig) -> dict[str, Any]:
    """Fixed batches cannot be made smaller without other steps: divide them by tokens."""
    return {} if config.batching == "tokens" else {"batching": "tokens"}


def _first_fit(
    what: str,
    question: Question,
    limit: int,
    base: dict[str, Any] | None = None,
    layers: bool = True,
) -> Suggestion | None:
    """Return the first of the cheaper settings that fits, None if not even the last does."""
    for changes in _cheaper(question, base or {}, layers):
        total = question.answer(**changes).total
        if total <= limit:
            return Suggestion(what, changes, total)
    return None


def _cheaper(question: Question, base: dict[str, Any], layers: bool) -> Iterator[dict[str, Any]]:
    """Yield changes in the order of what they cost: nothing, time, learning, and data."""
    config = question.config
    yield base
    count = len(question.shape.blocks)
    adapted = min(count, config.num_layers) if config.num_layers > 0 else count
    for length in _halves(config.max_seq_length, SHORTEST):
        for blocks in _halves(adapted, 1) if layers else [adapted]:
            for checkpoint in dict.fromkeys((config.grad_checkpoint, True)):
                for tokens in _halves(config.tokens_per_batch, SMALLEST_BATCH):
                    wanted = {
                        "max_seq_length": (length, config.max_seq_length),
                        "num_layers": (blocks, adapted),
                        "grad_checkpoint": (checkpoint, config.grad_checkpoint),
                        "tokens_per_batch": (tokens, config.tokens_per_batch),
                    }
                    own = {n: new for n, (new, old) in wanted.items() if new != old}
                    yield {**own, **_division(config), **base}


def _halves(start: int, end: int) -> list[int]:
    found = [start]
    while found[-1] // 2 >= end:
        found.append(found[-1] // 2)
    return found


def _fastest(question: Question, limit: int) -> Suggestion | None:
    """Return the largest forward pass that fits, without checkpointing if possible."""
    config, steps = question.config, []
    tokens = LARGEST_BATCH
    while tokens >= SMALLEST_BATCH:
        steps.append(tokens)
        tokens //= 2
    for checkpoint in (False, True):
        for tokens in steps:
            changes = {**_division(config), "tokens_per_batch": tokens}
            if checkpoint != config.grad_checkpoint:
                changes["grad_checkpoint"] = checkpoint
            total = question.answer(**changes).total
            if total <= limit:
                return Suggestion("largest forward pass", changes, total)
    return None


def _longest(question: Question, limit: int) -> Suggestion | None:
    """Return the longest pairs that fit, one a forward pass, with checkpointing."""
    base = {**_division(question.config), "grad_checkpoint": True}
    base["tokens_per_batch"] = min(question.config.tokens_per_batch, SMALLEST_BATCH)
    enough = max((pair.longest for pair in question.train), default=LONGEST)
    best, length = None, SHORTEST
    while length <= LONGEST:
        total = question.answer(**base, max_seq_length=length).total
        if total > limit:
            break
        best = Suggestion("longest pairs", {**base, "max_seq_length": length}, total)
        if length >= enough:
            break
        length *= 2
    return best


def require_fit(question: Question, limit: int) -> int:
    """Return the estimated peak in bytes.

    Raises:
        ConfigError: it is above `limit`, and overcommitting is not allowed.
    """
    found = question.answer()
    if found.total <= limit or question.config.allow_overcommit:
        return found.total
    parts = ", ".join(
        f"{name.replace('_', ' ')} {format_bytes(size)}" for name, size in found.parts().items()
    )
    better = _first_fit("instead", question, limit)
    advice = f"These settings would fit: {better.flags}" if better else "Take a smaller model"
    raise ConfigError(
        f"this run needs about {format_bytes(found.total)} of memory and "
        f"{format_bytes(limit)} are there ({parts}).",
        f"{advice}. `orpo-mlx fit` shows more; --allow-overcommit trains all the same.",
    )


# The command


def answer(config: TrainConfig, limit: int) -> Answer:
    """Estimate a run and look for settings that fit into `limit` bytes.

    Raises:
        ModelError: there is no such model, or its sizes cannot be told.
        DataError: the data cannot be read.
    """
    shape = read_shape(config.model or "", config.revision)
    train = _read_lengths(config, config.data)
    valid = _read_lengths(config, config.valid_data)
    way = "packed" if config.scoring == "auto" else config.scoring
    question = Question(shape, config, train, valid, way)
    kept = len(clipped(train, config.max_seq_length))
    return Answer(
        estimate=question.answer(),
        limit=limit,
        suggestions=suggest(question, limit),
        way=way,
        pairs=kept,
        past=memory_shares(config.runs_dir),
    )


def _read_lengths(config: TrainConfig, data: str | None) -> list[Lengths]:
    """Tokenize the pairs of a file, uncut."""
    if not data:
        return []
    from orpo_mlx import models
    from orpo_mlx.data import sources, tokens
    from orpo_mlx.hub import download_settings

    rows = sources.read_rows(data)
    path = Path(config.model or "").expanduser()
    folder = path if path.exists() else download_settings(str(config.model), config.revision)
    tokenizer = models.load_tokenizer(folder, config.chat_template)
    return lengths_of(tokens.prepare_rows(rows, tokenizer, LONGEST).pairs)


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx fit`; return 0 if the settings as given fit, 1 if they do not."""
    from orpo_mlx import report
    from orpo_mlx.command_line import parse_fit

    command = parse_fit(argv)
    limit = parse_size(command.memory) if command.memory is not None else available_bytes()
    found = answer(command.config, limit)
    report.print_fit(found, command.as_json)
    return 0 if found.fits else 1
