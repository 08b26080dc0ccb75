"""From counts to findings: which numbers are worth a warning, and what to do about them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from orpo_mlx.data.checkup.counts import percent
from orpo_mlx.data.checkup.findings import Finding, Level, Tally
from orpo_mlx.data.checkup.lengths import LengthBias
from orpo_mlx.data.layouts.context import SYSTEM_DIFFERS
from orpo_mlx.data.layouts.detect import PROMPT_DIFFERS, Layout
from orpo_mlx.data.pipeline import DUPLICATE, WRONG_VALUES, Rules, nothing_left, too_few
from orpo_mlx.data.tokens import tokenize
from orpo_mlx.data.types import THOUGHT_KEYS, Account
from orpo_mlx.data.unpaired import weights_note
from orpo_mlx.text.formatting import counted

MANY_DROPPED = 0.2
MANY_CUT = 0.1
MANY_ALIKE = 0.01
TELLING = 0.65
"""Accuracy of a rule of length alone from which it is worth a warning."""
FEW_TO_LEARN = 200
FEW = 20
LOPSIDED = 4
"""So many times more of one label than of the other is worth a warning."""
"""Pairs under which shares say little."""


def slug(reason: str) -> str:
    """Return a reason as a code: "empty chosen" is empty-chosen."""
    return re.sub(r"[^a-z0-9]+", "-", reason.split(":")[0].lower()).strip("-")


def on_errors(account: Account, messages: Sequence[str]) -> Iterator[Finding]:
    """Yield what makes a training refuse the whole dataset."""
    if messages:
        yield Finding(
            "error",
            "wrong-values",
            "\n".join(messages[:3]),
            "Correct or remove these rows: a training refuses the whole dataset for them.",
            len(messages),
            account.offenders.get(WRONG_VALUES, []),
        )


def on_account(
    account: Account, overlong: Sequence[int], rules: Rules, smallest: int, left: tuple[int, int]
) -> Iterator[Finding]:
    """Yield whether enough is left to train on.

    Args:
        account: of all rows.
        overlong: tokens of the pairs dropped for their length.
        rules: of the training.
        smallest: pairs it needs.
        left: pairs for training, and held out.
    """
    if not account.read:
        yield Finding("error", "no-rows", "there are no rows", "Give a file with pairs.")
    elif not account.kept:
        error = nothing_left(account, overlong, rules.max_seq_length)
        yield Finding("error", "nothing-left", error.message, error.what_to_do, account.read)
    elif left[0] < smallest:
        error = too_few("the data", *left, smallest, account)
        yield Finding("error", "too-few", error.message, error.what_to_do)
    elif account.kept < FEW_TO_LEARN:
        yield on_few(*left)
    dropped = account.read - account.kept
    if account.kept and dropped > MANY_DROPPED * account.read:
        text = f"{percent(dropped / account.read)} of the rows are dropped"
        advice = "Look at the reasons; such a share is seldom meant."
        yield Finding("warning", "many-dropped", text, advice, dropped)


def on_few(train: int, valid: int) -> Finding:
    """Return what it means to have so few pairs."""
    held = f" and {valid:,} to judge by" if valid else ""
    text = (
        f"there are only {counted(train, 'pair')} to learn from{held}: a model soon knows them by "
        "heart, and numbers on them say little about other prompts"
    )
    advice = "Add pairs: hundreds show a direction, thousands are usual."
    return Finding("warning" if train + valid < FEW else "info", "few-pairs", text, advice)


def on_drops(account: Account) -> Iterator[Finding]:
    """Yield each reason for which rows are dropped, the most frequent first."""
    for reason, count in sorted(account.dropped.items(), key=lambda item: -item[1]):
        if reason == WRONG_VALUES:
            continue
        code = f"dropped-{slug(reason)}"
        rows = account.offenders.get(reason, [])
        yield Finding("info", code, f"dropped: {reason}", _drop_advice(reason), count, rows)


def _drop_advice(reason: str) -> str:
    if reason.startswith("template refused"):
        return "These words are the template's own; correct the turns of the rows."
    return _DROP_ADVICE.get(reason, "")


_DROP_ADVICE = {
    DUPLICATE: "--keep-duplicates keeps them.",
    "tie in the scores": "--keep-ties keeps them.",
    "chosen scored below rejected": "--keep-inverted keeps them; check which side is which.",
    tokenize.RESPONSE_TOO_LONG: "A higher --max-seq-length keeps them; answers are never cut.",
    tokenize.UNSHOWN["tool_calls"]: "Take a model whose template knows calls of tools.",
    tokenize.NO_ROOM: "A higher --max-seq-length keeps them.",
    tokenize.THOUGHTS_UNWANTED: "--thinking auto keeps them.",
}


def on_notes(account: Account, layouts: Sequence[Layout]) -> Iterator[Finding]:
    """Yield what was unusual about kept rows."""
    for reason, count in sorted(account.noted.items(), key=lambda item: -item[1]):
        level, text, advice = _note(reason, count / max(1, account.kept), layouts)
        yield Finding(level, slug(reason), text, advice, count, account.offenders.get(reason, []))


def _note(reason: str, share: float, layouts: Sequence[Layout]) -> tuple[Level, str, str]:
    if reason == tokenize.PROMPT_CUT:
        level = "warning" if share > MANY_CUT else "info"
        text = "prompts are cut: their oldest turns or tokens do not fit"
        return level, text, "A higher --max-seq-length keeps more of them."
    if reason == tokenize.CONTROL_TOKENS and not any(layout.needs_template for layout in layouts):
        text = "texts hold control tokens; plain text is taken as it is, so they act as such"
        return "info", text, ""
    return _NOTES.get(reason, ("info", f"kept, with a note: {reason}", ""))


_NOTES: dict[str, tuple[Level, str, str]] = {
    **{
        reason: (
            "warning" if key in THOUGHT_KEYS else "info",
            f"turns have {key}, and the chat template does not show it; it is not learned",
            "Put the thoughts into the texts as the model writes them, or take another template."
            if key in THOUGHT_KEYS
            else "",
        )
        for key, reason in tokenize.UNSHOWN.items()
    },
    tokenize.CONTROL_TOKENS: (
        "warning",
        "texts hold control tokens of the model, which would act as such inside a turn",
        "Remove them, or add --escape-special to learn them as plain characters.",
    ),
    tokenize.CONTROL_ESCAPED: (
        "info",
        "control tokens in texts are learned as plain characters",
        "",
    ),
    tokenize.END_APPENDED: (
        "warning",
        "the chat template ends answers without a token that generation stops at; one was added",
        "Check the template: the model may expect another end of turn than the one learned.",
    ),
    tokenize.SYSTEM_FOLDED: (
        "info",
        "the template takes no system turn: its text was put before the first user turn",
        "",
    ),
    tokenize.HEADER_DIFFERS: (
        "info",
        "the template starts a finished answer otherwise than a new one; the finished form is "
        "learned",
        "",
    ),
    tokenize.BOUNDARY_REPAIRED: (
        "info",
        "a token would have spanned the end of the prompt; prompt and answer were parted there",
        "",
    ),
    tokenize.TOOLS_UNUSED: (
        "warning",
        "rows offer tools, and the chat template does not show them",
        "Take a model whose template knows tools, or remove them from the data.",
    ),
    SYSTEM_DIFFERS: (
        "warning",
        "the system column says otherwise than the system turn; the turn is used",
        "Remove one of the two.",
    ),
    tokenize.THOUGHT_NOT_OPENED: (
        "warning",
        "answers close a thought that is not open there, or close it twice; that is learned",
        "Begin such answers with <think>, or take a template that writes thoughts as they do.",
    ),
    tokenize.THOUGHT_CUT: (
        "warning",
        "the chat template cuts the thoughts out of answers: what follows them is learned alone",
        "Take a template that keeps them, if the model is to think.",
    ),
    PROMPT_DIFFERS: (
        "info",
        "the prompt column is none of the turns; the turns are used",
        "",
    ),
}


def on_labels(good: int, bad: int) -> Iterator[Finding]:
    """Yield what the numbers of good and bad answers mean for a training with KTO."""
    text = f"{counted(good, 'answer')} labelled as good, {bad:,} as bad"
    if not (good and bad):
        yield Finding("error", "one-label", text, "KTO needs both: add answers of the other label.")
    elif note := weights_note(good, bad):
        level = "warning" if max(good, bad) >= LOPSIDED * min(good, bad) else "info"
        yield Finding(level, "labels", text, f"{note}.")
    else:
        yield Finding("info", "labels", text)


def on_lengths(bias: LengthBias | None, pairs: int) -> Iterator[Finding]:
    """Yield what the length of the answers gives away."""
    if bias is None:
        return
    longer = bias.chosen_longer + bias.equal / 2 >= 0.5
    word = "longer" if longer else "shorter"
    share = bias.chosen_longer if longer else 1 - bias.chosen_longer - bias.equal
    text = (
        f"chosen is the {word} answer in {percent(share)} of the pairs (median "
        f"{bias.factor:.1f} times as long as rejected); a rule of length alone would be right in "
        f"{percent(bias.accuracy)}"
    )
    telling = bias.accuracy >= TELLING and pairs >= FEW
    advice = (
        f"The model may just learn to answer {'at length' if longer else 'briefly'}; balance the "
        "lengths if that is not meant."
        if telling
        else ""
    )
    yield Finding("warning" if telling else "info", "length-bias", text, advice)


def on_likeness(near: Tally, kept: int) -> Iterator[Finding]:
    """Yield how many rows say nearly the same as an earlier one."""
    if near.count:
        level = "warning" if near.count > MANY_ALIKE * kept and kept >= FEW else "info"
        yield Finding(
            level,
            "near-duplicates",
            "rows say nearly the same as an earlier one (prompt and chosen share about four fifths "
            "of their three-word sequences)",
            "They weigh more than others, and may stand on both sides of a split."
            if level == "warning"
            else "",
            near.count,
            near.rows,
        )


def on_leaks(exact: Tally, near: Tally) -> Iterator[Finding]:
    """Yield validation rows that training would have seen."""
    advice = "Numbers on them say nothing about new prompts; take them out of one of the two."
    if exact.count:
        text = "validation rows have a prompt of the training data"
        yield Finding("warning", "train-valid-overlap", text, advice, exact.count, exact.rows)
    if near.count:
        text = "validation rows say nearly the same as a training row"
        yield Finding("warning", "train-valid-near", text, advice, near.count, near.rows)


def on_plan(note: str) -> Finding:
    """Return a note of the training as a finding."""
    if note.startswith("--valid-data is the training data"):
        return Finding("warning", "valid-is-train", note, "Give other rows as --valid-data.")
    return Finding("info", "template" if "template" in note else "note", note)


def on_score(right: int, pairs: int) -> Finding:
    """Return what the base model makes of the pairs before any training."""
    low, high = interval(right, pairs)
    text = (
        f"the base model already gives chosen the higher mean log-prob in {percent(right / pairs)} "
        f"of {pairs} pairs (95 % interval {percent(low)} to {percent(high)})"
    )
    if low > 0.9:
        return Finding("warning", "base-model", text, "There is little left to learn from them.")
    if high < 0.35:
        advice = "Check that chosen and rejected are not the wrong way round."
        return Finding("warning", "base-model", text, advice)
    return Finding("info", "base-model", text)


def interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927)."""
    z, share = 1.96, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    half = z * math.sqrt(spread) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def counted_limit(account: Account, limit: int) -> dict[str, int]:
    """Return what the account says about the limit in use."""
    reasons = (tokenize.RESPONSE_TOO_LONG, tokenize.PAIR_TOO_LONG, tokenize.NO_ROOM)
    dropped = sum(account.dropped.get(reason, 0) for reason in reasons)
    cut = account.noted.get(tokenize.PROMPT_CUT, 0)
    return {"max_seq_length": limit, "cut": cut, "dropped": dropped}
