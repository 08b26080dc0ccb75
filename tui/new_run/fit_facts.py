"""What `orpo-mlx fit --json` says, for people: a verdict in sign and word, parts, time; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from orpo_mlx.text.formatting import counted, format_bytes, format_duration, visible
from tui.new_run.draft import value_text
from tui.shell.charset import CharsetName

_BAR = {"ascii": ("#", ".")}
_SIGNS = {"ascii": {"✓": "v", "✗": "x"}}

PART_NAMES = {
    "weights": "weights",
    "adapter": "adapter + optimizer",
    "activations": "activations",
    "attention": "attention",
    "head": "head (logits)",
    "cache": "cache",
    "at_work": "MLX at work",
    "margin": "margin",
}
"""Parts of the estimate; one that is not known here is shown by its own name."""


class FitVerdict(NamedTuple):
    """How well a run fits: sign and word say it without colour."""

    sign: str
    word: str
    tone: str
    """good, warn or bad."""


def verdict(needed: float, available: float, charset: CharsetName = "braille") -> FitVerdict:
    """Return how well `needed` bytes fit into `available` ones.

    >>> verdict(5e9, 10e9).word, verdict(9e9, 10e9).word, verdict(11e9, 10e9).word
    ('fits easily', 'tight', 'too large')
    """
    share = needed / available if available > 0 else float("inf")
    if share > 1:
        found = FitVerdict("✗", "too large", "bad")
    elif share > 0.85:
        found = FitVerdict("!", "tight", "warn")
    else:
        found = FitVerdict("✓", "fits" if share > 0.6 else "fits easily", "good")
    return found._replace(sign=_SIGNS.get(charset, {}).get(found.sign, found.sign))


def verdict_of(answer: Mapping[str, Any], charset: CharsetName = "braille") -> FitVerdict:
    """Return the verdict of an answer of `orpo-mlx fit`."""
    return verdict(needed_bytes(answer), answer["available_bytes"], charset)


def needed_bytes(answer: Mapping[str, Any]) -> int:
    """Return the peak of the run; of several processes on this machine that of all together."""
    several = answer.get("processes")
    return several["together_bytes"] if several else answer["estimated_bytes"]


def needed_text(answer: Mapping[str, Any]) -> str:
    """Return the same in words: "2.7 GB", "2 x 2.7 GB"."""
    if several := answer.get("processes"):
        return f"{several['processes']} x {format_bytes(several['process_bytes'])}"
    return format_bytes(answer["estimated_bytes"])


def summary(answer: Mapping[str, Any], charset: CharsetName = "braille") -> str:
    """Return the answer in a line."""
    text = memory_text(answer, charset)
    return f"{text} · {time_text(answer)}" if answer.get("time") else text


def memory_text(answer: Mapping[str, Any], charset: CharsetName = "braille") -> str:
    """Return whether it fits, and into what."""
    found = verdict_of(answer, charset)
    there = format_bytes(answer["available_bytes"])
    return f"{found.sign} {found.word}: about {needed_text(answer)} of {there}"


def part_lines(answer: Mapping[str, Any], width: int = 30) -> list[str]:
    """Return a line for each part that weighs something; of several processes those of one."""
    parts = dict(answer["parts"])
    if several := answer.get("processes"):
        parts["exchange"] = several["process_bytes"] - answer["estimated_bytes"]
        parts["each process"] = several["process_bytes"]
    lines = []
    for name, size in parts.items():
        if size:
            label = PART_NAMES.get(name, name.replace("_", " "))
            lines.append(f"{label:<{width - 9}}{format_bytes(size):>9}")
    return lines


def bar(share: float, width: int, charset: CharsetName = "braille") -> str:
    """Return a bar that is filled to `share`, 0 to 1 and full beyond."""
    full, empty = _BAR.get(charset, ("▰", "▱"))
    count = min(width, max(0, round(share * width)))
    return full * count + empty * (width - count)


def basis(answer: Mapping[str, Any]) -> str:
    """Return what the estimate is made from, and what finished runs here say of it."""
    said = "for the longest pairs the settings allow"
    if pairs := answer.get("pairs"):
        said = f"from the lengths of {counted(pairs, 'pair')}"
    taken = answer.get("taken_bytes", 0)
    others = f"other trainings may take {format_bytes(taken)}" if taken else ""
    return "\n".join(text for text in (said, others, calibration(answer)) if text)


def calibration(answer: Mapping[str, Any]) -> str:
    """Return which peak finished runs on this machine let expect, "" if there are none.

    The answer's `past_runs` are their peak / estimate, in any order.
    """
    past = sorted(answer.get("past_runs") or [])
    if not past:
        return ""
    ends = list(dict.fromkeys(f"{share:.0%}".replace("%", " %") for share in (past[0], past[-1])))
    needed = answer["estimated_bytes"]
    peaks = dict.fromkeys(format_bytes(needed * share) for share in (past[0], past[-1]))
    runs = counted(len(past), "run")
    said = f"peak in {runs} here: {'-'.join(ends).replace(' %-', '-')} of the estimate, "
    said += f"so {' to '.join(peaks)}"
    low = sum(share > 1 for share in past)
    return f"{said}; it was too low for {low}: leave room" if low else said


class RunTime(NamedTuple):
    """How long a run and a step of it take, in seconds."""

    total: float
    step: float


def time_of(answer: Mapping[str, Any]) -> RunTime | None:
    """Return the time a run takes, None if no probe measured it.

    One process is measured; how long several take follows, where it is known how they share a step.
    """
    time = answer.get("time")
    if not time:
        return None
    alone = time["seconds_per_step"]
    step = (answer.get("processes") or {}).get("seconds_per_step") or alone
    return RunTime(time["seconds_total"] * step / alone, step)


def time_text(answer: Mapping[str, Any]) -> str:
    """Return the time a run takes, if a probe measured it."""
    if not (time := time_of(answer)):
        return "time not measured yet"
    return f"about {format_duration(time.total)} ({time.step:.3g} s a step)"


def assumed_text(answer: Mapping[str, Any]) -> str:
    """Return what the time of several processes assumes, "" where none is told."""
    several = answer.get("processes")
    if not (several and answer.get("time")):
        return ""
    if several["seconds_per_step"] is None:
        return "of one process: how several share a step is not known"
    return (
        f"if each of {several['processes']} is as fast as the one measured, which took "
        f"{several['alone_seconds_per_step']:.3g} s a step: not where one fills the machine, as on "
        f"a Mac's GPU. {several['link_gbit']:g} Gbit/s between them"
    )


def share_text(answer: Mapping[str, Any] | None) -> str:
    """Return how evenly several processes share a step, "" where it is not known."""
    several = (answer or {}).get("processes") or {}
    if several.get("busiest_share") is None:
        return ""
    busiest = f"{several['busiest_share']:.0%}".replace("%", " %")
    idle = several["idle_processes"]
    said = f"the busiest has {busiest} of a step"
    return f"{said}, {idle:.2g} have nothing to do" if idle >= 0.05 else said


def first_suggestion(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the first suggestion that fits, {} if there is none."""
    count = (answer.get("processes") or {}).get("processes", 1)
    for one in answer.get("suggestions") or []:
        if count * one["bytes"] <= answer["available_bytes"]:
            return dict(one["settings"])
    return {}


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings in a line."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in settings.items())


def settings_lines(settings: Mapping[str, Any], width: int = 66) -> list[str]:
    """Return settings in lines of at most `width` columns, no value apart from its name."""
    lines, line = [], ""
    for name, value in settings.items():
        word = f"{name} {visible(value_text(value))}"
        if line and len(line) + len(word) + 2 > width:
            lines.append(f"{line},")
            line = word
        else:
            line = f"{line}, {word}" if line else word
    return [*lines, line] if line else []
