"""The proofs that a training computes what it should, on a user's own model and rows.

Losses and log-probs are compared with a second computation that shares no code with the first:
float64 NumPy from the logits of each row by itself, written out below. Everything that makes a
step fast or small (ways of scoring, chunks, checkpointing, micro-batches, compilation) is compared
with plain rows: loss and gradient of every adapter parameter must not change. Short trainings
show that a run can be repeated and resumed.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.pairs import TokenPair
from orpo_mlx.errors import describe
from orpo_mlx.head import head_logps
from orpo_mlx.losses import PairScores, StepTotals, orpo_loss, token_logps
from orpo_mlx.optim import build_optimizer
from orpo_mlx.preparation import Prepared, objective, prepare
from orpo_mlx.probe import WAYS, choose_scoring
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import Event, StepCompleted
from orpo_mlx.scoring import Scoring, Shifted, score_logits
from orpo_mlx.seams import run_body, run_head
from orpo_mlx.step import TrainStep, checkpoint_layers, evaluate
from orpo_mlx.train import TrainResult, resume, train

TOKEN_BUDGET = 4096
"""Tokens of both rows of all pairs looked at: more pairs prove little more and take longer."""

EXACT = 1e-5
"""Largest relative difference of numbers that come from the same logits."""

CPU_SUM = 1e-8
"""What each entry of the vocabulary may add to that on a CPU, in nats: MLX adds them up one after
the other in float32 there, and the smallest get lost (9e-4 nats of 152,000 entries)."""


@dataclass(frozen=True)
class Limits:
    """How far numbers may lie apart that differ by the order of additions alone.

    Attributes:
        scores: relative difference of log-probs and losses.
        gradient: relative difference of a parameter's gradient, by norm.
        why: the precision these limits are for.
    """

    scores: float
    gradient: float
    why: str


FULL_PRECISION = Limits(EXACT, EXACT, "float32")
HALF_PRECISION = Limits(2e-2, 1e-1, "half precision")
"""Half precision keeps 8 to 11 bits, so another order of additions gives another number."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        value: what was measured; None where nothing could be.
        limit: the largest value that passes.
        note: what the number is, or why there is none.
    """

    name: str
    passed: bool
    value: float | None
    limit: float
    note: str = ""


def run_checks(config: TrainConfig, pairs: int = 6) -> Iterator[Check]:
    """Check the computation on a model and a few rows; yields each result as it is known.

    Args:
        config: model, data, and the settings of adapter and objective; how a run is divided,
            validated and reported is replaced by what the checks need.
        pairs: look at this many, the shortest first, within `TOKEN_BUDGET`.

    Raises:
        OrpoError: the model or the data cannot be used.
    """
    prepared = prepare(config.model_copy(update=_WITHOUT_A_RUN))
    rows = shortest(prepared.data.train, pairs)
    yield from _check_rows(rows, prepared.tokenizer)
    bench = _Bench(prepared, rows, config.scoring)
    yield from _check_numbers(bench)
    way = bench.way
    del prepared, bench
    gc.collect()  # the trainings load the model again
    yield from _check_trainings(config, rows, way)


_WITHOUT_A_RUN: dict[str, Any] = {
    "scoring": "plain", "dropout": 0.0, "grad_checkpoint": False, "compile": "off",
    "valid_data": None, "valid_fraction": 0.0, "sample_prompts": 0, "micro_batch_size": 1,
    "batching": "fixed", "init_adapter": None, "run_dir": None,
}  # fmt: skip


def shortest(pairs: Sequence[TokenPair], count: int) -> list[TokenPair]:
    """Return the shortest pairs: at most `count` and `TOKEN_BUDGET` tokens, at least one."""
    chosen: list[TokenPair] = []
    for pair in sorted(pairs, key=lambda pair: pair.size)[:count]:
        if chosen and sum(p.size for p in chosen) + pair.size > TOKEN_BUDGET:
            break
        chosen.append(pair)
    return chosen


def _measured(name: str, limit: float, note: str, measure: Callable[[], float]) -> Check:
    """Compare a measurement with its limit; one that breaks off is a failed check."""
    try:
        value = float(measure())
    except Exception as error:  # whatever the model or the device objects to is the finding
        return Check(name, False, None, limit, describe(error))
    if not math.isfinite(value):
        return Check(name, False, None, limit, f"{note}: not a finite number")
    return Check(name, value <= limit, value, limit, note)


# Rows


def _check_rows(pairs: Sequence[TokenPair], tokenizer: Any) -> Iterator[Check]:
    yield _measured(
        "every response ends with a token that generation stops at", 0, "responses without",
        lambda: _without_end(pairs, tokenizer),
    )  # fmt: skip
    yield _measured(
        "response tokens are scored, all of them and no others", 0, "positions scored wrongly",
        lambda: sum(_wrongly_scored(pair) for pair in pairs),
    )  # fmt: skip


def _without_end(pairs: Sequence[TokenPair], tokenizer: Any) -> int:
    stops = {int(token) for token in tokenizer.eos_token_ids}
    sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    return sum(not side or side[-1] not in stops for side in sides)


def _wrongly_scored(pair: TokenPair) -> int:
    """Count the logits that move a response's log-prob and should not, or the reverse.

    Only which positions count is looked at, so a vocabulary of 5 will do.
    """
    sides = (pair.chosen, pair.rejected)
    prompt, chosen, rejected = ([token % 5 for token in ids] for ids in (pair.prompt, *sides))
    small = TokenPair(prompt, chosen, rejected)
    shifted = Shifted(*Scoring("plain", "full").build([small], [0]).arrays)
    logits = mx.random.normal((*shifted.inputs.shape, 5), key=mx.random.key(0))
    first, wrong = len(pair.prompt) - 1, 0
    for row, which in enumerate(("chosen_logps", "rejected_logps")):
        slope = mx.grad(lambda x, w=which: getattr(score_logits(x, shifted), w).sum())(logits)
        moving = np.abs(np.array(slope)).sum(axis=-1) > 0
        # The logits at t predict token t + 1, so the first response token is scored one before.
        wanted = np.zeros_like(moving)
        wanted[row, first : first + len(sides[row])] = True
        wrong += int((moving != wanted).sum())
    return wrong


# The second computation: nothing below uses losses.py or scoring.py


@dataclass(frozen=True)
class Reference:
    """What the second computation found.

    Attributes:
        scores: [4, B] mean chosen and rejected log-prob, NLL sum, and how many tokens it counts.
        loss: of all pairs together.
        limit: how exactly float32 log-probs of the same logits can agree with these.
    """

    scores: np.ndarray
    loss: float
    limit: float


def compute_reference(
    model: Any, pairs: Sequence[TokenPair], config: TrainConfig, widths: Sequence[int]
) -> Reference:
    """Compute log-probs and loss in float64, pair by pair, from the definition.

    Args:
        model: in evaluation mode.
        pairs: to look at.
        config: the objective's settings.
        widths: to which each pair's two rows are padded. The same as in the computation that is
            checked, because half precision gives other logits for other shapes.
    """
    columns, vocabulary = [], 0
    for pair, width in zip(pairs, widths, strict=True):
        rows = [[*pair.prompt, *side] for side in (pair.chosen, pair.rejected)]
        inputs = [(row[:-1] + [0] * width)[:width] for row in rows]
        logits = model(mx.array(inputs, mx.int32))
        vocabulary = logits.shape[-1]
        chosen, rejected = (_row_logps(*each) for each in zip(logits, rows, strict=True))
        first = len(pair.prompt) - 1
        counted = chosen if config.nll_scope == "full" else chosen[first:]
        means = chosen[first:].mean(), rejected[first:].mean()
        columns.append((*means, -counted.sum(), len(counted)))
    scores = np.array(columns).T
    limit = EXACT if _is_on_gpu() else max(EXACT, CPU_SUM * vocabulary)
    return Reference(scores, reference_loss(scores, config), limit)


def _row_logps(logits: mx.array, row: list[int]) -> np.ndarray:
    """Return log P(row[t] | row[:t]) for t = 1, 2, ... from logits [T, V]."""
    found = []
    for t in range(1, len(row)):
        at = np.array(logits[t - 1].astype(mx.float32)).astype(np.float64)
        at -= at.max()
        found.append(at[row[t]] - np.log(np.exp(at).sum()))
    return np.array(found)


def reference_loss(scores: np.ndarray, config: TrainConfig) -> float:
    """Return the loss of all pairs from [4, B] scores, in float64."""
    chosen, rejected, nll_sums, tokens = scores
    by_token = config.nll_reduction == "token"
    nll = nll_sums.sum() / tokens.sum() if by_token else (nll_sums / tokens).mean()
    if config.preference == "odds_ratio":
        # odds = p / (1 - p), and 1 - p = -expm1(log p)
        ratio = (chosen - np.log(-np.expm1(chosen))) - (rejected - np.log(-np.expm1(rejected)))
    else:
        ratio = chosen - rejected
    preference = np.logaddexp(0.0, -ratio).mean()  # -log sigmoid(ratio)
    weight = 0.0 if config.preference == "none" else config.lam
    return float(config.nll_weight * nll + weight * preference)


# The first computation, as a training does it

Gradient = dict[str, np.ndarray]


class _Bench:
    """A model with an adapter that does something, and rows to try on it.

    Attributes:
        way: how a training would score the pairs.
        plain: loss and gradient of plain rows.
    """

    def __init__(self, prepared: Prepared, pairs: Sequence[TokenPair], wanted: str) -> None:
        self.config, self.model, self.pairs = prepared.config, prepared.model, pairs
        self.all = list(range(len(pairs)))
        _fill_adapter(self.model)
        self.limits = FULL_PRECISION if _is_full_precision(self.model) else HALF_PRECISION
        self.model.train()
        self.way = choose_scoring(self.model, wanted, self.config.nll_scope, pairs, False).name
        self.plain = self.gradient("plain")

    def scores(self, way: str, indices: Sequence[int]) -> np.ndarray:
        """Return [4, B] as in `Reference`."""
        scoring = Scoring(way, self.config.nll_scope)
        self.model.eval()
        found = scoring.score(self.model, scoring.build(self.pairs, indices).arrays)
        return np.array([np.array(part.astype(mx.float32)) for part in found], np.float64)

    def one_by_one(self, way: str) -> np.ndarray:
        """Return [4, B], each pair in a batch of its own."""
        return np.concatenate([self.scores(way, [i]) for i in self.all], axis=1)

    def loss(self) -> float:
        """Return the loss of all pairs, each in a plain batch of its own."""
        scoring = Scoring("plain", self.config.nll_scope)
        batches = [scoring.build(self.pairs, [i]) for i in self.all]
        return float(evaluate(self.model, batches, objective(self.config), scoring)[0])

    def gradient(
        self, way: str, division: Sequence[Sequence[int]] = (), compiled: bool = False
    ) -> Gradient:
        """Return a training step's gradient over all pairs, in one micro-batch or as divided."""
        scoring = Scoring(way, self.config.nll_scope)
        optimizer = build_optimizer(self.config)
        step = TrainStep(self.model, optimizer, objective(self.config), scoring, compiled=compiled)
        batches = [scoring.build(self.pairs, part) for part in division or [self.all]]
        flat: Any = tree_flatten(step.gradient(batches, mx.random.key(0)))
        return {name: np.array(value.astype(mx.float32)) for name, value in flat}


def _fill_adapter(model: Any) -> None:
    """Draw B, which starts at 0: the gradient of A would be 0 too, and nothing be compared."""
    named: Any = tree_flatten(model.trainable_parameters())
    drawn = [
        (name, 0.02 * mx.random.normal(value.shape, value.dtype, key=mx.random.key(i)))
        for i, (name, value) in enumerate(named)
        if name.endswith("lora_b")
    ]
    model.load_weights(drawn, strict=False)
    mx.eval(model.trainable_parameters())


def _is_full_precision(model: Any) -> bool:
    arrays: Any = tree_flatten(model.parameters())
    return all(array.dtype not in (mx.float16, mx.bfloat16) for _, array in arrays)


def _relative(found: Any, wanted: Any) -> float:
    """Return the largest relative difference of the elements (absolute where they are below 1)."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    return float((np.abs(found - wanted) / np.maximum(np.abs(wanted), 1.0)).max())


def _apart(found: Gradient, wanted: Gradient) -> float:
    """Return the largest relative difference of a parameter's gradient, by norm."""
    if found.keys() != wanted.keys():
        raise ValueError("not the same parameters have a gradient")
    distances = []
    for name, value in wanted.items():
        size = float(np.linalg.norm(value))
        distances.append(float(np.linalg.norm(found[name] - value)) / (size or 1.0))
    return float(np.max(distances))  # max() would lose a NaN


# Numbers


def _check_numbers(bench: _Bench) -> Iterator[Check]:
    reference = _reference_of(bench)
    yield from _check_plain(bench, reference)
    for way in WAYS[:-1]:
        yield from _check_way(bench, way, reference)
    yield from _check_composition(bench)
    yield from _check_savings(bench)


def _reference_of(bench: _Bench) -> Reference:
    scoring = Scoring("plain", bench.config.nll_scope)
    widths = [scoring.build(bench.pairs, [i]).arrays[0].shape[1] for i in bench.all]
    bench.model.eval()
    return compute_reference(bench.model, bench.pairs, bench.config, widths)


def _check_plain(bench: _Bench, reference: Reference) -> Iterator[Check]:
    note = "relative difference from float64 NumPy"
    yield _measured(
        "log-probs of each pair", reference.limit, note,
        lambda: _relative(bench.one_by_one("plain"), reference.scores),
    )  # fmt: skip
    yield _measured(
        "loss of all pairs", reference.limit, note,
        lambda: _relative(bench.loss(), reference.loss),
    )  # fmt: skip
    yield _measured(
        "loss at log-probs from -0.0001 to -100", EXACT, note,
        lambda: _relative(*_losses_over_the_range(bench.config)),
    )  # fmt: skip
    yield _measured(
        "every adapter parameter gets a gradient", 0, "parameters without",
        lambda: sum(not np.abs(value).max() > 0 for value in bench.plain.values()),
    )  # fmt: skip


def _losses_over_the_range(config: TrainConfig) -> tuple[list[float], list[float]]:
    """Return the preference term and its reference for log-probs that a few rows never reach."""
    config = config.model_copy(update={"lam": 1.0})
    ladder = (-np.geomspace(1e-4, 100, 13)).astype(np.float32).tolist()
    found, wanted, totals = [], [], StepTotals(mx.array(1.0), mx.array(1.0))
    for chosen, rejected in itertools.product(ladder, ladder):
        column = np.array([[chosen], [rejected], [0.0], [1.0]])  # no NLL, one token
        scores = PairScores(*(mx.array(part, mx.float32) for part in column))
        loss: Any = orpo_loss(scores, totals, objective(config))[0].item()
        found.append(loss)
        wanted.append(reference_loss(column, config))
    return found, wanted


def _check_way(bench: _Bench, way: str, reference: Reference) -> Iterator[Check]:
    """Check a way of scoring; one that cannot be computed and is not used is no failure."""
    limits, used = bench.limits, ", used in training" if way == bench.way else ""
    try:
        bench.gradient(way, [bench.all[:1]])
    except Exception as error:  # models that do not fit fail each in their own way
        note = f"does not fit this model ({describe(error)[:80]})" + used
        yield Check(f"{way} scoring", not used, None, limits.gradient, note)
        return
    yield _measured(
        f"{way} scoring: log-probs{used}", max(limits.scores, reference.limit),
        f"relative difference from float64 NumPy, {limits.why}",
        lambda: _relative(bench.scores(way, bench.all), reference.scores),
    )  # fmt: skip
    yield _gradient_check(bench, f"{way} scoring: gradient{used}", lambda: bench.gradient(way))


def _gradient_check(
    bench: _Bench, name: str, compute: Callable[[], Gradient], wanted: Gradient | None = None
) -> Check:
    note = f"largest relative difference of a parameter from plain rows, {bench.limits.why}"
    wanted = bench.plain if wanted is None else wanted
    return _measured(name, bench.limits.gradient, note, lambda: _apart(compute(), wanted))


def _check_composition(bench: _Bench) -> Iterator[Check]:
    """Who shares a batch with a pair, in which order, must not matter to its numbers."""
    way, limits, backwards = bench.way, bench.limits, bench.all[::-1]
    yield _measured(
        f"padding and order of pairs ({way})", limits.scores,
        f"relative difference of log-probs, {limits.why}",
        lambda: _relative(
            [bench.scores(way, bench.all), bench.scores(way, backwards)[:, ::-1]],
            [bench.one_by_one(way)] * 2,
        ),
    )  # fmt: skip
    for name, division in {
        "each pair by itself": [[i] for i in bench.all],
        "two uneven parts": [part for part in (bench.all[:1], bench.all[1:]) if part],
    }.items():
        name = f"micro-batches, {name} ({way}): gradient"
        yield _gradient_check(bench, name, lambda d=division: bench.gradient(way, d))


def _check_savings(bench: _Bench) -> Iterator[Check]:
    """What saves memory or time must not matter to the gradient."""
    for size in (1, 7, 64):
        yield _measured(
            f"head in chunks of {size}", bench.limits.gradient,
            f"relative difference from the whole head, {bench.limits.why}",
            lambda size=size: _chunks_apart(bench, size),
        )  # fmt: skip
    for way in dict.fromkeys((bench.way, "plain")):
        if way in ("packed", "plain"):
            name = f"gradient checkpointing ({way}): gradient"
            yield _gradient_check(bench, name, lambda w=way: _recomputed_gradient(bench, w))
    if _can_compile():
        name = "compiled step (plain): gradient"
        yield _gradient_check(bench, name, lambda: bench.gradient("plain", compiled=True))


def _recomputed_gradient(bench: _Bench, way: str) -> Gradient:
    with _checkpointed(bench.model.layers):
        return bench.gradient(way)


@contextmanager
def _checkpointed(layers: Sequence[Any]) -> Iterator[None]:
    classes = [type(layer) for layer in layers]
    checkpoint_layers(layers)
    try:
        yield
    finally:
        for layer, cls in zip(layers, classes, strict=True):
            layer.__class__ = cls


def _chunks_apart(bench: _Bench, size: int) -> float:
    """Compare log-probs and their slopes by the hidden states: in chunks, and all at once."""
    model, pair = bench.model, bench.pairs[0]
    ids = mx.array([*pair.prompt, *pair.chosen])
    model.train()
    hidden, targets = run_body(model, ids[None, :-1])[0], ids[1:]
    weights = mx.random.normal(targets.shape, key=mx.random.key(0))

    def computed(logps: Callable[[mx.array], mx.array]) -> list[np.ndarray]:
        values, slopes = mx.vjp(logps, [hidden], [weights])
        return [np.array(array.astype(mx.float32)) for array in (values[0], slopes[0])]

    found = computed(lambda states: head_logps(model, states, targets, chunk=size))
    wanted = computed(lambda states: token_logps(run_head(model, states[None])[0], targets))
    return _apart(
        dict(zip(("logps", "slopes"), found, strict=True)),
        dict(zip(("logps", "slopes"), wanted, strict=True)),
    )


def _can_compile() -> bool:
    """Tell whether MLX can compile here: on a CPU it calls a C++ compiler."""
    return _is_on_gpu() or any(shutil.which(name) for name in ("c++", "g++"))


def _is_on_gpu() -> bool:
    return mx.default_device().type == mx.DeviceType.gpu


# Trainings

_STEPS, _INTERRUPTED_AFTER = 4, 2


def _check_trainings(config: TrainConfig, pairs: Sequence[TokenPair], way: str) -> Iterator[Check]:
    """Train a few steps, again, and once more with an interruption: the bytes must be the same."""
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-verify-") as name:
        folder = Path(name)
        _write_pairs(folder / "pairs.jsonl", pairs)
        settings = config.model_copy(update=_short_run(config, folder / "pairs.jsonl", pairs, way))

        def adapter_of(name: str, run: Callable[[TrainConfig], Path]) -> bytes:
            return _read_adapter(run(settings.model_copy(update={"run_dir": str(folder / name)})))

        try:
            first = adapter_of("first", _uninterrupted)
        except Exception as error:  # as in `_measured`
            yield Check(f"a training of {_STEPS} steps", False, None, 0, describe(error))
            return
        note = "adapter files that differ"
        yield _measured(
            "a second training gives the same bytes", 0, note,
            lambda: adapter_of("second", _uninterrupted) != first,
        )  # fmt: skip
        yield _measured(
            "an interrupted and resumed training gives the same bytes", 0, note,
            lambda: adapter_of("resumed", _interrupted) != first,
        )  # fmt: skip


def _short_run(
    config: TrainConfig, data: Path, pairs: Sequence[TokenPair], way: str
) -> dict[str, Any]:
    return {
        "data": str(data), "valid_data": None, "valid_fraction": 0.0, "init_adapter": None,
        "steps": _STEPS, "micro_batch_size": min(2, len(pairs)), "grad_accumulation_steps": 2,
        "batching": "fixed", "scoring": way, "grad_checkpoint": False,
        "dropout": config.dropout or 0.1,  # so that random numbers are part of it
        "report_every": 1, "eval_every": 0, "sample_every": 0, "sample_prompts": 0,
        "save_every": 0, "early_stop": 0, "keep_best": False,
    }  # fmt: skip


def _write_pairs(path: Path, pairs: Sequence[TokenPair]) -> None:
    rows = [
        {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
        for pair in pairs
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _read_adapter(folder: Path) -> bytes:
    return (folder / "adapters.safetensors").read_bytes()


def _uninterrupted(config: TrainConfig) -> Path:
    return _result(train(config))


def _interrupted(config: TrainConfig) -> Path:
    """Train until a request stops the run, then go on with it as a user would."""
    run = RunDirectory(Path(str(config.run_dir)))
    stopped = train(config, report=_StopsRun(run))
    if (stopped.reason, stopped.step) != ("stopped", _INTERRUPTED_AFTER):
        raise RuntimeError(f"the run did not stop when asked: {stopped.reason} at {stopped.step}")
    return _result(resume(run))


class _StopsRun:
    """A report that shows nothing and asks its run to stop after a step."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    def handle(self, event: Event, line: str = "") -> None:
        """Ask when the step has come."""
        if isinstance(event, StepCompleted) and event.step == _INTERRUPTED_AFTER:
            send_request(self.run, "stop")

    def catch_up(self, events: Iterable[Event]) -> None:
        """Nothing to take in."""

    def progress(self, done: int, total: int, label: str) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to close."""


def _result(result: TrainResult) -> Path:
    if result.reason != "completed" or result.adapter_path is None:
        raise RuntimeError(f"the run did not complete: {result.reason} at step {result.step}")
    return result.adapter_path
