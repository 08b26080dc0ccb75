"""The result of a run as lines; pure functions of facts and width."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict

from orpo_mlx.runs.evaluation import TITLES, Measured, RunEvaluation, interval_text
from orpo_mlx.text.formatting import visible
from tui.charts.interval_bar import interval_bar
from tui.result.facts import AnswerPair, ResultFacts
from tui.shell.charset import CharsetName
from tui.shell.commands import key_of
from tui.shell.lines import TextLine

_SHOWN = ("preference_accuracy", "log_odds_ratio", "chosen_nll")
_LABEL, _NUMBERS = 13, 27
_LONGEST_BAR = 60


def result_lines(
    facts: ResultFacts, width: int, charset: CharsetName, keys: Mapping[str, str]
) -> list[TextLine]:
    """Return all that the screen shows of a run.

    Args:
        facts: of the run.
        width: cells of a line.
        charset: what bars are drawn with.
        keys: the user's own keys by command id.
    """
    lines = [*_wrapped(facts.problem, width, "bad"), ()] if facts.problem else []
    found = facts.evaluation
    if found is not None:
        lines += [*_wrapped(_sentence(found.verdict), width, "kind"), ()]
        for name in _shown_metrics(found):
            lines += _metric_lines(name, found.metrics[name], width, charset)
        lines += _drift_lines(found, width, charset)
    else:
        lines += _none_lines(facts, width, keys)
    lines += _answer_lines(facts.answers, width, found is not None and bool(found.answers))
    for note in found.notes if found is not None else []:
        lines += _wrapped(f"note: {note}", width, "quiet")
    if facts.report is not None:
        lines.append((("quiet", "report  "), ("text", visible(str(facts.report)))))
    return [*lines, *_next_lines(width, keys)]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _shown_metrics(found: RunEvaluation) -> list[str]:
    rewards = [name for name in found.metrics if "reward" in name]
    return [name for name in (*_SHOWN, *rewards) if name in found.metrics]


# Numbers


def _metric_lines(
    name: str, row: Mapping[str, Measured], width: int, charset: CharsetName
) -> list[TextLine]:
    sides = [row[side] for side in ("base", "adapter") if side in row]
    if not sides:
        return []
    is_share = name == "preference_accuracy"
    start = 0.0 if is_share else min(side.low for side in sides)
    end = 1.0 if is_share else max(side.high for side in sides)
    title = visible(TITLES.get(name, name.replace("_", " ")))
    title = title[:1].upper() + title[1:]
    scale = "0 to 100 %" if is_share else f"{start:.2f} to {end:.2f}"
    lines: list[TextLine] = [(("kind", title), ("quiet", f"   bars: {scale}"))]
    room = _bar_width(width)
    for side in ("base", "adapter"):
        if side in row:
            bar = interval_bar(row[side], start, end, room, charset)
            lines.append(_row(side, interval_text(name, asdict(row[side])), bar))
    if "difference" in row:
        lines.append(_row("difference", interval_text(name, asdict(row["difference"]), True), ""))
    return [*lines, ()]


def _bar_width(width: int) -> int:
    return min(_LONGEST_BAR, width - _LABEL - _NUMBERS - 1)


def _row(label: str, numbers: str, bar: str) -> TextLine:
    # The longest numbers, "+100.0 pt (+100.0 to +100.0)", run into the room of a bar.
    return (
        ("quiet", f"  {label:<{_LABEL - 2}}"),
        ("text", f"{numbers:<{_NUMBERS}} "),
        ("kind", bar),
    )


def _drift_lines(found: RunEvaluation, width: int, charset: CharsetName) -> list[TextLine]:
    if found.drift is None:
        return []
    end = max(1.0, found.drift.high)
    bar = interval_bar(found.drift, 0.0, end, _bar_width(width), charset)
    return [
        (("kind", "Drift"), ("quiet", f"   KL per token from the base; bar: 0 to {end:.2g}")),
        _row("adapter", interval_text("kl", asdict(found.drift)), bar),
        (),
    ]


def _none_lines(facts: ResultFacts, width: int, keys: Mapping[str, str]) -> list[TextLine]:
    lines: list[TextLine] = [(("kind", "Whether it helped is not known."),)]
    lines += _wrapped(facts.why_none, width, "text")
    if not facts.can_compare:
        return [*lines, ()]
    key = key_of("result.evaluate", keys)
    return [*lines, (("quiet", f"{key} compares base and adapter now, as orpo-mlx evaluate"),), ()]


# Answers


def _answer_lines(answers: tuple[AnswerPair, ...], width: int, are_neutral: bool) -> list[TextLine]:
    if not answers:
        return []
    said = "to neutral prompts" if are_neutral else "the run sampled, before and after"
    differ = any(pair.base != pair.adapter for pair in answers)
    title = "Answers that differ most" if differ else "Answers, word for word the same"
    lines: list[TextLine] = [(("kind", title), ("quiet", f"   {said}"))]
    names = ("base", "adapter") if are_neutral else ("before", "after")
    for pair in answers:
        lines += _wrapped(f"> {pair.prompt}", width, "quiet")[:2]
        for name, text in zip(names, (pair.base, pair.adapter), strict=True):
            lines += _answer(name, text, width)
        lines.append(())
    return lines


def _answer(name: str, text: str, width: int) -> list[TextLine]:
    parts = textwrap.wrap(" ".join(visible(text).split()), max(10, width - 10)) or ["(nothing)"]
    more = len(parts) > 3
    shown = [*parts[:2], parts[2][: width - 14] + " ..."] if more else parts
    heads = [f"  {name:<8}", *[" " * 10] * (len(shown) - 1)]
    return [(("quiet", head), ("text", part)) for head, part in zip(heads, shown, strict=True)]


def _next_lines(width: int, keys: Mapping[str, str]) -> list[TextLine]:
    names = ("chat", "test", "export", "new-from-this")
    chat, test, export, again = (key_of(f"result.{name}", keys) for name in names)
    text = (
        f"next    {chat} chats with base and adapter, {test} scores answers of both, {export} "
        f"exports the adapter, {again} plans a new run from this one with a change"
    )
    return _wrapped(text, width, "quiet")


def _wrapped(text: str, width: int, kind: str) -> list[TextLine]:
    return [
        ((kind, line),)
        for part in visible(text).split("\n")
        for line in textwrap.wrap(part, max(10, width)) or [""]
    ]


def result_sentence(run_id: str, facts: ResultFacts | None) -> str:
    """Return the result screen as one sentence."""
    if facts is None:
        return f"Result of {run_id}: reading."
    if facts.evaluation is None:
        return f"Result of {run_id}: not known. {facts.problem or facts.why_none}"
    drift = facts.evaluation.drift
    said = "" if drift is None else f" Drift is {drift.value:.3f} nats per token."
    return f"Result of {run_id}: {facts.evaluation.verdict}.{said}"
