"""What came of judging, as lines on the terminal."""

from __future__ import annotations

from typing import Any

from orpo_mlx.data.accounting import account_lines, account_of
from orpo_mlx.text.formatting import counted, visible


def result_lines(content: dict[str, Any]) -> list[str]:
    """Return what `orpo-mlx judge` prints for people.

    Args:
        content: as printed with --json.
    """
    prompts, counts = content["prompts"], content["counts"]
    noun = "held-out prompt" if prompts["held_out"] else "prompt"
    lines = [
        _row(side, content["sides"][side]) for side in dict.fromkeys(("base", *content["compared"]))
    ]
    drawn = f", drawn from {prompts['available']:,}"
    lines += [
        _row("judge", content["judge"]),
        _row("prompts", counted(prompts["compared"], noun)
             + drawn * (prompts["available"] > prompts["compared"])),
        *account_lines(account_of(prompts["rows"]), limit=prompts["max_seq_length"]),
        "",
        _row("won", f"{counts['wins']}, tied {counts['ties']}, lost {counts['losses']}"
             + f" ({counts['identical']} ties are equal answers)" * bool(counts["identical"])),
    ]  # fmt: skip
    lines += _rate(content) + _besides(counts) + _lengths(content)
    lines += ["", _row("journal", content["journal"])]
    if counts["left"]:
        lines.append(_row("", "the same command goes on"))
    lines += ["", *(f"note: {visible(note)}" for note in content["notes"])]
    return [*lines, visible(content["verdict"])]


def _row(name: str, text: str) -> str:
    return f"{name:<9}{visible(text)}".rstrip()


def _rate(content: dict[str, Any]) -> list[str]:
    rate = content["win_rate"]
    if rate is None:
        return []
    value, low, high = (100 * rate[key] for key in ("value", "low", "high"))
    return [_row("win rate", f"{value:.1f} % ({low:.1f} to {high:.1f}), ties counted half")]


def _besides(counts: dict[str, int]) -> list[str]:
    said = [
        f"{counts[name]} {words}"
        for name, words in (
            ("skipped", "skipped"),
            ("dropped", "dropped, for no verdict was given"),
            ("left", "left"),
        )
        if counts[name]
    ]
    return [_row("", ", ".join(said))] if said else []


def _lengths(content: dict[str, Any]) -> list[str]:
    counts = content["counts"]
    sides = ", ".join(
        f"{side} {own['tokens']:.1f} tokens" + f" ({own['cut']} cut)" * bool(own["cut"])
        for side, own in content["lengths"].items()
    )
    decided = counts["wins"] + counts["losses"]
    longer = f"; the longer answer won {counts['longer_won']} of {decided}" if decided else ""
    return [_row("length", f"{sides}, on average{longer}")]
