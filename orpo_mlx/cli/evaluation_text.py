"""A judgement as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orpo_mlx.cli.terminal import terminal_width
from orpo_mlx.data.accounting import account_lines, account_of
from orpo_mlx.runs.evaluation import interval_text
from orpo_mlx.runs.metrics import metric
from orpo_mlx.text.formatting import counted, excerpt, visible

_LABELS = {
    "preference_accuracy": "preference accuracy",
    "log_odds_ratio": "log-odds ratio",
    "logps_margin": "margin of log-probs",
    "chosen_logps": "log-prob of chosen",
    "rejected_logps": "log-prob of rejected",
    "chosen_nll": "NLL of chosen, per token",
}
"""Short ones, for a column of `_WIDTH`."""
_WIDTH, _COLUMN = 26, 27


def judgement_lines(content: dict[str, Any]) -> list[str]:
    """Return what `orpo-mlx evaluate` prints for people.

    Args:
        content: as printed with --json.
    """
    counts = content["counts"]
    noun = "held-out pair" if counts["held_out"] else "pair"
    lines = [f"{name:<8}{visible(str(text))}" for name, text in content["sides"].items()]
    lines += account_lines(account_of(counts["rows"]), limit=counts["max_seq_length"])
    lines.append(
        f"{'pairs':<8}{counted(counts['pairs'], noun)} of {counted(counts['groups'], 'prompt')}"
        + (f", drawn from {counts['available']:,}" * (counts["available"] > counts["pairs"]))
    )
    lines += ["", *_table(content)]
    lines += [*_like_length(content), *_score_gaps(content), *_ties(content)]
    lines += _drift(content["drift"])
    lines += ["", *(f"note: {visible(note)}" for note in content["notes"])]
    return [*lines, visible(content["verdict"]["text"])]


def _table(content: dict[str, Any]) -> list[str]:
    metrics = content["metrics"]
    columns = list(next(iter(metrics.values())))
    head = f"{'95 % intervals':<{_WIDTH}}" + "".join(f"{name:<{_COLUMN}}" for name in columns)
    lines = [head.rstrip()]
    for name, row in metrics.items():
        label = _LABELS.get(name) or metric(name).label
        lines.append(_row(label, name, row, columns))
    return lines


def _row(label: str, name: str, row: Mapping[str, Any], columns: list[str]) -> str:
    cells = "".join(
        f"{interval_text(name, row[column], column == 'difference'):<{_COLUMN}}"
        if column in row
        else " " * _COLUMN
        for column in columns
    )
    return f"{label:<{_WIDTH}}{cells}".rstrip()


def _like_length(content: dict[str, Any]) -> list[str]:
    found = content["like_length"]
    columns = list(next(iter(content["metrics"].values())))
    longer = f"{'always the longer answer':<{_WIDTH}}{100 * found['longer_is_chosen']:.1f} %"
    if not found["pairs"]:
        return [longer]
    label = f"{counted(found['pairs'], 'pair')} of like length"
    return ["", _row(label, "preference_accuracy", found, columns), longer]


def _score_gaps(content: dict[str, Any]) -> list[str]:
    columns = list(next(iter(content["metrics"].values())))
    return [
        _row(
            f"score gap {row['low']:g} to {row['high']:g} ({row['pairs']})",
            "preference_accuracy", row, columns,
        )
        for row in content["score_gaps"]
    ]  # fmt: skip


def _drift(drift: dict[str, Any] | None) -> list[str]:
    """Return drift, and the answer that differs most."""
    if drift is None:
        return []
    asked = f"drift from the base on {counted(drift['prompts'], 'neutral prompt')}"
    lines = ["", f"{asked}, answers of at most {counted(drift['longest_answer'], 'token')}"]
    for side, found in drift["kl_per_token"].items():
        lines.append(f"{f'KL per token ({side})':<{_WIDTH}}{interval_text('kl', found)}")
    columns = list(drift["text_nll"])
    head = "".join(f"{name:<{_COLUMN}}" for name in columns)
    lines.append(f"{'':<{_WIDTH}}{head}".rstrip())
    lines.append(_row("NLL of plain text", "text_nll", drift["text_nll"], columns))
    width = terminal_width()
    for shown in drift["answers"][:1]:
        lines.append(f"furthest apart, {shown['kl_per_token']:.3f} per token:")
        for name in ("prompt", *(key for key in shown if key in ("base", "other", "adapter"))):
            lines += excerpt(name, shown[name], width, 3, keep_end=False)
    return lines


def _ties(content: dict[str, Any]) -> list[str]:
    ties = {side: count for side, count in content["counts"]["ties"].items() if count}
    if not ties:
        return []
    said = ", ".join(f"{count} ({side})" for side, count in ties.items())
    return [f"ties, counted as not preferred: {said}"]
