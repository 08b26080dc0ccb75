"""Loss and log-probs a second time, in float64 NumPy from the definition.

Nothing here uses `objectives` or `scoring`: what is wrong there must not be wrong here, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.patches import run_body


@dataclass(frozen=True)
class Reference:
    """What the second computation found.

    Attributes:
        scores: [6, B] mean chosen and rejected log-prob (of a reward model: the rewards, and 0 for
            the NLL), NLL sum, how many tokens it counts, and the tokens of the chosen and of the
            rejected response.
        loss: of all pairs together.
    """

    scores: np.ndarray
    loss: float


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
    columns = []
    for pair, width in zip(pairs, widths, strict=True):
        rows = [[*pair.prompt, *side] for side in (pair.chosen, pair.rejected)]
        inputs = [(row + [0] * width)[:width] for row in rows]
        tokens = len(pair.chosen), len(pair.rejected)
        if config.objective == "reward":
            rated = _rewards(model, mx.array(inputs, mx.int32), [len(row) - 1 for row in rows])
            columns.append((*rated, 0.0, len(pair.chosen), *tokens))
            continue
        logits = model(mx.array(inputs, mx.int32))
        chosen, rejected = (_row_logps(*each) for each in zip(logits, rows, strict=True))
        first = len(pair.prompt) - 1
        counted = chosen if config.nll_scope == "full" else chosen[first:]
        means = chosen[first:].mean(), rejected[first:].mean() if pair.rejected else 0.0
        columns.append((*means, -counted.sum(), len(counted), *tokens))
    scores = np.array(columns).T
    compared_with = np.array([pair.reference or (0.0, 0.0) for pair in pairs], np.float64).T
    labels = np.array([bool(pair.label) for pair in pairs])
    return Reference(scores, reference_loss(scores, compared_with, config, labels))


def _row_logps(logits: mx.array, row: list[int]) -> np.ndarray:
    """Return log P(row[t] | row[:t]) for t = 1, 2, ... from logits [T, V]."""
    found = []
    for t in range(1, len(row)):
        at = np.array(logits[t - 1].astype(mx.float32)).astype(np.float64)
        at -= at.max()
        found.append(at[row[t]] - np.log(np.exp(at).sum()))
    return np.array(found)


def _rewards(model: Any, inputs: mx.array, last: Sequence[int]) -> list[float]:
    """Return what the head makes of the state of each row's last token."""
    hidden = np.array(run_body(model, inputs).astype(mx.float32)).astype(np.float64)
    head = np.array(model.score.weight)[0].astype(np.float64)
    return [float(row[place] @ head) for row, place in zip(hidden, last, strict=True)]


def reference_loss(
    scores: np.ndarray,
    compared_with: np.ndarray,
    config: TrainConfig,
    labels: np.ndarray | None = None,
) -> float:
    """Return the loss of all pairs, in float64.

    Args:
        scores: [6, B] as in `Reference`.
        compared_with: [2, B] what the objective compares with: summed log-probs, or margins and 0.
        config: the objective's settings.
        labels: [B] which answers are good; of KTO alone.
    """
    if config.objective == "kto":
        return float(_kto(scores[:2] * scores[4:6] - compared_with, labels, config).mean())
    nll_sums, tokens = scores[2:4]
    by_token = config.nll_reduction == "token"
    nll = nll_sums.sum() / tokens.sum() if by_token else (nll_sums / tokens).mean()
    default = 1.0 if config.objective in ("orpo", "sft", "cpo") else 0.0
    weight = default if config.nll_weight is None else config.nll_weight
    return float(_preference(scores, compared_with, config) + weight * nll)


def _preference(scores: np.ndarray, compared_with: np.ndarray, config: TrainConfig) -> float:
    """Return the mean preference term of the pairs, with its own weight."""
    chosen, rejected = scores[:2]
    sums = scores[:2] * scores[4:6]
    match config.objective:
        case "sft":
            return 0.0
        case "cpo":
            return _softplus(-(config.beta or 0.1) * (sums[0] - sums[1])).mean()
        case "simpo":
            return _softplus(config.gamma - (config.beta or 2.0) * (chosen - rejected)).mean()
        case "reward":
            apart = (scores[0] - scores[1]) - (compared_with[0] - compared_with[1])
            return (_softplus(-apart) + config.center * (scores[0] + scores[1]) ** 2).mean()
        case "dpo":
            return _dpo(sums - compared_with, scores[4:6], config).mean()
    if config.preference == "odds_ratio":
        # odds = p / (1 - p), and 1 - p = -expm1(log p)
        ratio = (chosen - np.log(-np.expm1(chosen))) - (rejected - np.log(-np.expm1(rejected)))
    else:
        ratio = chosen - rejected
    return 0.0 if config.preference == "none" else config.lam * _softplus(-ratio).mean()


def _dpo(ratios: np.ndarray, tokens: np.ndarray, config: TrainConfig) -> np.ndarray:
    """Return DPO's terms [B] from log-ratios [2, B] of chosen and rejected."""
    beta, eps = config.beta or 0.1, config.label_smoothing
    up, down = beta * ratios
    z = up - down
    match config.dpo_loss:
        case "sigmoid":
            return (1 - eps) * _softplus(-z) + eps * _softplus(z)
        case "robust":
            return ((1 - eps) * _softplus(-z) - eps * _softplus(z)) / (1 - 2 * eps)
        case "hinge":
            return np.maximum(0.0, 1 - z)
        case "ipo":
            ratio = ratios if config.ipo_length == "summed" else ratios / tokens
            return (ratio[0] - ratio[1] - 1 / (2 * beta)) ** 2
        case "apo_zero":
            return _sigmoid(-up) + _sigmoid(down)
        case "apo_down":
            return _sigmoid(up) + _sigmoid(-z)


def _kto(ratios: np.ndarray, labels: Any, config: TrainConfig) -> np.ndarray:
    """Return KTO's terms [B] from log-ratios [2, B] of the answers and of those for its KL."""
    beta = config.beta or 0.1
    kl = max(0.0, ratios[1].mean()) if config.kto_loss == "kto" else 0.0
    good = config.desirable_weight * (1 - _sigmoid(beta * (ratios[0] - kl)))
    bad = config.undesirable_weight * (1 - _sigmoid(beta * (kl - ratios[0])))
    return np.where(labels, good, bad)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-_softplus(-x))
