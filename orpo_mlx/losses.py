"""ORPO and its relatives as pure functions of log-probabilities.

Nothing here knows a model, a tokenizer or a setting file. Shapes: B pairs, T tokens per row, V
vocabulary. Log-probs are in nats; everything from the log-softmax on is float32.

Source: ORPO, Hong et al. 2024, https://arxiv.org/abs/2403.07691.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import mlx.core as mx
import mlx.nn as nn

LARGEST_LOGP = -1e-10
"""Log-probs above this are taken as this: at exactly 0 the odds are infinite."""

_LOG_HALF = -math.log(2.0)


def log1mexp(x: mx.array) -> mx.array:
    """Return log(1 - exp(x)) for x < 0, exact at both ends, with finite gradients.

    Two forms, each where it keeps its digits: log(-expm1(x)) near 0 and log1p(-exp(x)) below
    -log 2. MLX differentiates both branches of a `where`, so each gets an input it can bear; the
    guards are `where` too, because `minimum` and `maximum` halve the gradient at a tie.
    """
    is_near = x > _LOG_HALF
    near = mx.where(is_near, x, _LOG_HALF)
    far = mx.where(is_near, _LOG_HALF, x)
    return mx.where(is_near, mx.log(-mx.expm1(near)), mx.log1p(-mx.exp(far)))


def log_odds(logps: mx.array) -> mx.array:
    """Return log(p / (1 - p)) for p = exp(logps).

    Args:
        logps: any shape, nats, below 0. Values above `LARGEST_LOGP` count as that value.

    Returns:
        float32, the same shape.

    Numerics:
        1 - p is never formed: in float32 it is 0 from -3e-8 on, and in bfloat16 from -2e-3.

    Example:
        p = 0.5 has odds 1 and log-odds 0; p = 0.2 has odds 1/4 and log-odds -1.3863.

    Source:
        ORPO, equation 4.
    """
    x = logps.astype(mx.float32)
    x = mx.where(x > LARGEST_LOGP, LARGEST_LOGP, x)
    return x - log1mexp(x)


class OddsRatio(NamedTuple):
    """Per-pair results of `odds_ratio_loss`, float32, not averaged."""

    loss: mx.array
    """[B] nats, >= 0."""
    log_odds_ratio: mx.array
    """[B] nats, above 0 when the chosen response has the higher odds."""


def odds_ratio_loss(chosen_logps: mx.array, rejected_logps: mx.array) -> OddsRatio:
    """Charge each pair for how weakly the model prefers the chosen response.

    With p = exp(mean log-prob per response token) and odds(p) = p / (1 - p):

        log_odds_ratio = log odds(p_chosen) - log odds(p_rejected)
        loss           = -log sigmoid(log_odds_ratio)

    A pair the model already separates costs nearly nothing; a pair in the wrong order costs about
    as many nats as it is wrong by.

    Args:
        chosen_logps: [B] nats per response token, each below 0, as from `mean_logps`.
        rejected_logps: [B] the same pairs in the same order.

    Raises:
        ValueError: the shapes differ; one side was filtered without the other.

    Example:
        p_chosen = 0.5 has odds 1 and p_rejected = 0.2 has odds 1/4: the ratio is 4, sigmoid(log 4)
        is 4/5, and the loss is -log(4/5) = 0.2231.

    Source:
        ORPO, equations 4 and 7.
    """
    _require_same_shape(chosen_logps, rejected_logps)
    ratio = log_odds(chosen_logps) - log_odds(rejected_logps)
    return OddsRatio(loss=-nn.log_sigmoid(ratio), log_odds_ratio=ratio)


def probability_ratio_loss(chosen_logps: mx.array, rejected_logps: mx.array) -> mx.array:
    """Return -log sigmoid(chosen - rejected) [B]: the paper's ablation without odds.

    Args:
        chosen_logps: [B] nats per response token.
        rejected_logps: [B] the same pairs in the same order.

    Raises:
        ValueError: the shapes differ.

    Example:
        p_chosen = 0.5 and p_rejected = 0.2: the ratio is 2.5, the loss -log(2.5/3.5) = 0.3365.

    Source:
        ORPO, section 7.1 and equation 9 (probability ratio).
    """
    _require_same_shape(chosen_logps, rejected_logps)
    difference = chosen_logps.astype(mx.float32) - rejected_logps.astype(mx.float32)
    return -nn.log_sigmoid(difference)


def _require_same_shape(chosen: mx.array, rejected: mx.array) -> None:
    if chosen.shape != rejected.shape:
        raise ValueError(
            f"{chosen.shape} chosen and {rejected.shape} rejected log-probs: they must be the same "
            "pairs in the same order; filter pairs, not responses"
        )


def token_logps(logits: mx.array, targets: mx.array) -> mx.array:
    """Return the log-prob of each target under its logits.

    Args:
        logits: [..., V] any float type; cast to float32 before the log-softmax, because half
            precision sums lose 1e-3 to 3e-2 nats per token.
        targets: [...] token ids, already shifted: targets[t] is what logits[t] predicts.

    Returns:
        [...] float32 nats.
    """
    logits = logits.astype(mx.float32)
    # Only differences matter, and large logits lose them to rounding: 2e-6 nats at 30.
    logits = logits - mx.stop_gradient(logits.max(axis=-1, keepdims=True))
    picked = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
    return picked - _logsumexp(logits)


def logps_and_slopes(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Return what `token_logps` does, and the gradient of each log-prob by its logits.

    That gradient is 1 at the target less the probabilities, float32 and as large as the logits; it
    can be made in the buffer of the powers.
    """
    logits = logits.astype(mx.float32)
    top = logits.max(axis=-1, keepdims=True)
    picked = mx.take_along_axis(logits, targets[..., None], axis=-1) - top
    if mx.default_device().type == mx.DeviceType.gpu:
        logits = logits - top
        total = mx.logsumexp(logits, axis=-1, keepdims=True)
        slopes = -mx.exp(logits - total)
    else:
        powers: Any = _exp_on_cpu(logits - top)
        sums = _sum_in_blocks(powers)[..., None]
        total, slopes = mx.log(sums), powers * (-1 / sums)
    logps = picked - total
    slopes = mx.put_along_axis(slopes, targets[..., None], -mx.expm1(logps), axis=-1)
    return logps.squeeze(-1), slopes


def _logsumexp(logits: mx.array) -> mx.array:
    """Return log(sum(exp(logits))) over the last axis, for logits of at most 0.

    On a CPU MLX adds a row up one after the other in float32, and the smallest entries get lost:
    4e-5 nats of 32,000 entries, 3e-4 of 152,000. Adding blocks first keeps them (2e-6) and is
    faster there, for one more buffer. A GPU adds in a tree already.
    """
    if mx.default_device().type == mx.DeviceType.gpu:
        return mx.logsumexp(logits, axis=-1)
    powers: Any = _exp_on_cpu(logits)
    return mx.log(_sum_in_blocks(powers))


def _sum_in_blocks(powers: mx.array) -> mx.array:
    size = powers.shape[-1]
    block = next((width for width in range(512, 31, -1) if size % width == 0), 256)
    whole = size // block * block
    sums = powers[..., :whole].reshape(*powers.shape[:-1], -1, block).sum(axis=-1).sum(axis=-1)
    if whole < size:
        sums = sums + powers[..., whole:].sum(axis=-1)
    return sums


@mx.custom_function
def _exp_on_cpu(x: mx.array) -> mx.array:
    """exp, as a power of 2: as exact as MLX's own on a CPU and two and a half times as fast there,
    and of the loss on a CPU exp is a third."""
    return mx.power(2.0, x * math.log2(math.e))


@_exp_on_cpu.vjp
def _exp_on_cpu_vjp(_: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * output


def masked_sum(values: mx.array, mask: mx.array) -> mx.array:
    """Sum the last axis where the mask is true; what stands elsewhere cannot leak in."""
    return mx.where(mask, values, 0.0).sum(axis=-1)


def mean_logps(logps: mx.array, mask: mx.array) -> mx.array:
    """Average token log-probs over the tokens that count.

    Args:
        logps: [B, T] nats.
        mask: [B, T] bool; the mean of a row where none is true is 0 (the data layer drops empty
            responses, so only a filling row has none).

    Returns:
        [B] nats per counted token.
    """
    return masked_sum(logps, mask) / mx.maximum(mask.sum(axis=-1), 1)


@dataclass(frozen=True)
class Objective:
    """What is minimised: nll_weight * NLL + lam * mean preference term."""

    lam: float = 0.1
    nll_scope: Literal["full", "response"] = "full"
    nll_reduction: Literal["token", "pair"] = "token"
    nll_weight: float = 1.0
    preference: Literal["odds_ratio", "probability_ratio", "none"] = "odds_ratio"


class PairScores(NamedTuple):
    """What the objective needs to know of a micro-batch; all [B]."""

    chosen_logps: mx.array
    rejected_logps: mx.array
    """Mean nats per response token."""
    nll_sum: mx.array
    """Nats, summed over the counted tokens of the chosen row."""
    nll_tokens: mx.array
    """How many tokens `nll_sum` counts; 0 for a pair that only fills a shape up."""


class StepTotals(NamedTuple):
    """Sizes of the whole optimizer step (or evaluation) a micro-batch belongs to."""

    pairs: mx.array
    nll_tokens: mx.array


METRICS = (
    "loss",
    "nll_loss",
    "odds_ratio_loss",
    "log_odds_ratio",
    "chosen_logps",
    "rejected_logps",
    "preference_accuracy",
    "logps_margin",
)
"""Order of the vector returned by `orpo_loss`."""


def orpo_loss(
    scores: PairScores, totals: StepTotals, objective: Objective
) -> tuple[mx.array, mx.array]:
    """Return a micro-batch's share of the step's loss, and of its metrics.

    Shares add up: summed over the micro-batches of a step they are the loss and the metrics of the
    whole step, whatever its division, because each is divided by the step's totals and not by its
    own.

    Args:
        scores: [B] arrays of the micro-batch.
        totals: pairs and NLL tokens of the whole step.
        objective: which terms and weights.

    Returns:
        (share of the loss, [8] shares of `METRICS`).

    Source:
        ORPO, equation 6.
    """
    is_real = scores.nll_tokens > 0
    scores = _without_filling(scores, is_real)
    if objective.nll_reduction == "token":
        nll = scores.nll_sum.sum() / totals.nll_tokens
    else:
        nll = (scores.nll_sum / scores.nll_tokens).sum() / totals.pairs
    odds = odds_ratio_loss(scores.chosen_logps, scores.rejected_logps)
    loss = objective.nll_weight * nll
    if objective.preference == "odds_ratio":
        loss = loss + objective.lam * (masked_sum(odds.loss, is_real) / totals.pairs)
    elif objective.preference == "probability_ratio":
        ratio = probability_ratio_loss(scores.chosen_logps, scores.rejected_logps)
        loss = loss + objective.lam * (masked_sum(ratio, is_real) / totals.pairs)
    margin = scores.chosen_logps - scores.rejected_logps
    per_pair = mx.stack(
        [odds.loss, odds.log_odds_ratio, scores.chosen_logps, scores.rejected_logps,
         (margin > 0).astype(mx.float32), margin]
    )  # fmt: skip
    means = masked_sum(per_pair, is_real) / totals.pairs
    return loss, mx.concatenate([mx.stack([loss, nll]), means])


def _without_filling(scores: PairScores, is_real: mx.array) -> PairScores:
    """Give pairs that stand for nothing log-probs from which odds can be computed."""
    return PairScores(
        mx.where(is_real, scores.chosen_logps, -1.0),
        mx.where(is_real, scores.rejected_logps, -1.0),
        scores.nll_sum,
        mx.maximum(scores.nll_tokens, 1),
    )
