"""The evaluation a run keeps, read back: verdict, intervals, drift, answers; light and bounded.

`evaluation.json` is what `orpo-mlx evaluate --json` prints. A run's folder may be damaged or made
to do harm, so everything is looked at for kind and size, and texts are cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.errors import RunError, reason_of
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.typed import LARGEST_INT, is_number
from orpo_mlx.storage.regular import read_regular

MAX_BYTES = 1 << 23
_MOST_METRICS, _MOST_ANSWERS, _LONGEST_TEXT = 40, 8, 8000
SIDES = ("base", "adapter", "difference")
TITLES = {
    "preference_accuracy": "preference accuracy",
    "log_odds_ratio": "log-odds ratio",
    "logps_margin": "margin of mean log-probs",
    "chosen_logps": "mean log-prob of chosen",
    "rejected_logps": "mean log-prob of rejected",
    "chosen_nll": "NLL of chosen, nats per token",
}


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DriftAnswer:
    """Greedy answers of base and adapter to a neutral prompt, and how far apart in nats a token."""

    prompt: str
    base: str
    adapter: str
    kl: float


@dataclass(frozen=True)
class RunEvaluation:
    """How base and adapter compare.

    Attributes:
        verdict: one sentence.
        is_shown: whether there is a difference that chance does not explain.
        pairs: scored, of the `available` held out.
        metrics: by name, those of `SIDES` there are.
        drift: mean KL per token from the base, in nats; None if not measured.
        answers: that differ most, the furthest apart first.
        notes: what else was said.
    """

    verdict: str
    is_shown: bool
    pairs: int
    available: int
    metrics: dict[str, dict[str, Measured]]
    drift: Measured | None
    answers: list[DriftAnswer]
    notes: list[str]


def read_evaluation(path: Path) -> RunEvaluation | None:
    """Return what a run's evaluation.json holds, None if there is none.

    Raises:
        RunError: it is damaged; what to do is to make it again.
    """
    try:
        return _evaluation(json.loads(read_regular(path, MAX_BYTES)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(path, reason_of(error)) from None
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    except _Unusable as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> RunError:
    return RunError(
        f"{path}: the evaluation cannot be read ({why})",
        f"Make it again: orpo-mlx evaluate {RunDirectory(path.parent).argument} --save",
    )


class _Unusable(Exception):
    pass


def _evaluation(raw: Any) -> RunEvaluation:
    content = _mapping(raw, "the whole")
    verdict, counts = (_mapping(content.get(name), name) for name in ("verdict", "counts"))
    drift = content.get("drift")
    if drift is not None:
        drift = _mapping(drift, "drift")
    notes = content.get("notes", [])
    return RunEvaluation(
        verdict=_text(verdict.get("text"), "verdict.text"),
        is_shown=verdict.get("is_shown") is True,
        pairs=_count(counts.get("pairs"), "counts.pairs"),
        available=_count(counts.get("available"), "counts.available"),
        metrics=_metrics(_mapping(content.get("metrics"), "metrics")),
        drift=_drift(drift) if drift else None,
        answers=_answers(drift) if drift else [],
        notes=[_text(note, "notes") for note in _list(notes, "notes")[:_MOST_ANSWERS]],
    )


def _metrics(raw: Mapping[str, Any]) -> dict[str, dict[str, Measured]]:
    found = {}
    for name, row in list(raw.items())[:_MOST_METRICS]:
        row = _mapping(row, f"metrics.{name}")
        sides = {side: _measured(row[side], f"{name}.{side}") for side in SIDES if side in row}
        found[_text(name, "metrics")] = sides
    return found


def _drift(raw: Mapping[str, Any]) -> Measured:
    return _measured(
        _mapping(raw.get("kl_per_token"), "drift.kl_per_token").get("adapter"), "kl_per_token"
    )


def _answers(raw: Mapping[str, Any]) -> list[DriftAnswer]:
    found = []
    for row in _list(raw.get("answers", []), "drift.answers")[:_MOST_ANSWERS]:
        row = _mapping(row, "drift.answers")
        prompt, base, adapter = (
            _text(row.get(name), f"drift.answers.{name}") for name in ("prompt", "base", "adapter")
        )
        kl = row.get("kl_per_token")
        if not is_number(kl):
            raise _Unusable("drift.answers.kl_per_token is no number")
        found.append(DriftAnswer(prompt, base, adapter, kl))
    return found


def _measured(raw: Any, name: str) -> Measured:
    row = _mapping(raw, name)
    values = [row.get(key) for key in ("value", "low", "high")]
    if not all(map(is_number, values)):
        raise _Unusable(f"{name[:80]} is not {{value, low, high}} of numbers")
    return Measured(*map(float, values))  # type: ignore[arg-type]


def _mapping(raw: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise _Unusable(f"{name[:80]} is no object")
    return raw


def _list(raw: Any, name: str) -> list[Any]:
    if not isinstance(raw, list):
        raise _Unusable(f"{name} is no list")
    return raw


def _text(raw: Any, name: str) -> str:
    if not isinstance(raw, str):
        raise _Unusable(f"{name} is no text")
    return raw[:_LONGEST_TEXT]


def _count(raw: Any, name: str) -> int:
    if isinstance(raw, int) and 0 <= raw <= LARGEST_INT:
        return raw
    raise _Unusable(f"{name} is no count")


# As text


def interval_text(name: str, found: Mapping[str, float], is_difference: bool = False) -> str:
    """Return a value with its interval: "83.0 % (78.0 to 88.0)", "+0.120 (+0.050 to +0.200)"."""
    is_share = name == "preference_accuracy"
    has_sign = is_difference or name in ("log_odds_ratio", "logps_margin")
    form = f"{'+' if has_sign else ''}.{1 if is_share else 3}f"
    factor = 100 if is_share else 1
    value, low, high = (
        _no_minus_zero(format(factor * found[key], form)) for key in ("value", "low", "high")
    )
    unit = "" if not is_share else " pt" if is_difference else " %"
    return f"{value}{unit} ({low} to {high})"


def _no_minus_zero(text: str) -> str:
    return text[1:] if text[0] in "+-" and float(text) == 0 else text
