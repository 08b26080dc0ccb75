"""The data doctor: every row looked at on the way it takes into a training, and a verdict.

It goes through `pipeline.iter_fates`, as a training does, and keeps counts, lengths and a few
examples of each row, never the rows: 60,000 pairs need some ten megabytes here. The tokenizer is
handed in; without one, what needs tokens is left out.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

from orpo_mlx.data.checkup.counts import Reservoir, Seen, compared_text, plain_prompt_key
from orpo_mlx.data.checkup.examples import Example, Examples, TokenWriter
from orpo_mlx.data.checkup.findings import Finding, Tally, Verdict, in_order, judge
from orpo_mlx.data.checkup.lengths import LengthTable, least_matters, usual_limits
from orpo_mlx.data.checkup.near_duplicates import NearDuplicates
from orpo_mlx.data.checkup.rules import (
    counted_limit,
    on_account,
    on_drops,
    on_errors,
    on_labels,
    on_leaks,
    on_lengths,
    on_likeness,
    on_notes,
    on_plan,
)
from orpo_mlx.data.checkup.unused import Unused
from orpo_mlx.data.layouts.detect import Layout
from orpo_mlx.data.layouts.several import ONE_OF_SEVERAL
from orpo_mlx.data.pipeline import Fate, Part, Rules, iter_fates, take_account
from orpo_mlx.data.split import hold_out
from orpo_mlx.data.tokens.encoder import Encoder
from orpo_mlx.data.tokens.store import TokenPairsBuilder
from orpo_mlx.data.tokens.tokenize import frame_length, least_limit
from orpo_mlx.data.types import Account, TokenPair

OnRow = Callable[[int], None]
"""Called with the rows done so far."""

SAMPLE_SEED = 0


@dataclass(frozen=True)
class CheckupPlan:
    """What a training would do with the pairs, and what its caller knows of them.

    Attributes:
        valid_fraction, seed: of the split.
        smallest: pairs a training needs.
        notes: on template and files, as the training gives them.
        sample: keep so many kept pairs, drawn by seed, to score.
    """

    valid_fraction: float = 0.0
    seed: int = 0
    smallest: int = 1
    notes: Sequence[str] = ()
    sample: int = 0


@dataclass
class Checkup:
    """What was found out about a dataset.

    Attributes:
        layouts: of the rows, by member.
        account: where every row went.
        lengths, limits: see `lengths.LengthTable`; None without a tokenizer.
        split: pairs for training and validation; None without a tokenizer.
        valid: account of the validation file, if there is one.
        sample: kept pairs to score.
        labels: how many answers that are kept are labelled as good and as bad; None of pairs.
    """

    layouts: list[Layout]
    account: Account
    max_seq_length: int
    findings: list[Finding]
    lengths: dict[str, dict[str, Any]] | None
    limits: list[dict[str, int]] | None
    examples: list[Example]
    split: dict[str, int] | None
    valid: Account | None = None
    sample: list[TokenPair] = field(default_factory=list)
    writer: TokenWriter | None = None
    labels: tuple[int, int] | None = None

    @property
    def verdict(self) -> Verdict:
        """The whole in one line."""
        return judge(self.findings, self.account.read, self.account.kept)

    def add(self, findings: Iterable[Finding]) -> None:
        """Take in what was found elsewhere."""
        self.findings = in_order([*self.findings, *findings])

    def as_dict(self) -> dict[str, Any]:
        """Return what `orpo-mlx data check --json` prints, but for data and model."""
        account = self.account
        content: dict[str, Any] = {
            "layout": {
                "name": "; ".join(dict.fromkeys(layout.name for layout in self.layouts)),
                "columns": {a: b for a, b in self.layouts[0].mapping.items() if a != b},
            },
            "labels": dict(zip(("good", "bad"), self.labels, strict=True)) if self.labels else None,
            "read": account.read,
            "kept": account.kept,
            "dropped": _reasons(account.dropped, account),
            "notes": _reasons(account.noted, account),
            "max_seq_length": self.max_seq_length,
            "findings": [vars(finding) for finding in self.findings],
            "lengths": self.lengths,
            "limits": self.limits,
            "pairs": [self._pair(example) for example in self.examples],
            "split": self.split,
            "verdict": vars(self.verdict),
        }
        if self.valid is not None:
            content["valid_data"] = {
                "read": self.valid.read,
                "kept": self.valid.kept,
                "dropped": _reasons(self.valid.dropped, self.valid),
                "notes": _reasons(self.valid.noted, self.valid),
            }
        return content

    def _pair(self, example: Example) -> dict[str, Any]:
        shown = {
            "where": example.where,
            "prompt": example.prompt,
            "chosen": example.chosen,
            "rejected": example.rejected,
            "raw": as_json(example.raw),
            "dropped": example.reason,
            "label": example.label,
            "tokens": None,
        }
        if example.tokens is not None and self.writer is not None:
            write = self.writer.write
            shown["tokens"] = {
                part: [token._asdict() for token in write(ids)]
                for part, ids in example.tokens.items()
                if example.label is None or part != "rejected"
            }
        return shown


def _reasons(counts: dict[str, int], account: Account) -> dict[str, dict[str, Any]]:
    return {
        reason: {"count": count, "rows": account.offenders.get(reason, [])}
        for reason, count in counts.items()
    }


def examine(
    parts: Sequence[Part],
    encoder: Encoder | None,
    rules: Rules,
    plan: CheckupPlan | None = None,
    valid: Sequence[Part] = (),
    on_row: OnRow | None = None,
) -> Checkup:
    """Look at every row of a dataset.

    Args:
        parts: rows, read once and in order, with their layouts.
        encoder: of the model that is to be trained; None: text is all there is to look at.
        rules: of the training.
        plan: of the training.
        valid: the same of a validation file.
        on_row: called after each row.

    Raises:
        DataError: the chat template cannot render the rows at all.
    """
    plan = plan or CheckupPlan()
    doctor = _Doctor([layout for _, layout in parts], encoder, rules, plan)
    watched = [(doctor.unused.watch(rows, layout), layout) for rows, layout in parts]
    for done, fate in enumerate(iter_fates(watched, encoder, rules), start=1):
        doctor.see(fate)
        if on_row is not None:
            on_row(done)
    held = None
    if valid:
        held = Account()
        for fate in iter_fates(valid, encoder, rules):
            take_account(fate, held)
            doctor.see_valid(fate)
    return doctor.conclude(held)


class _Doctor:
    """Takes in one row after the other."""

    def __init__(
        self, layouts: list[Layout], encoder: Encoder | None, rules: Rules, plan: CheckupPlan
    ) -> None:
        self.layouts, self.encoder, self.rules, self.plan = layouts, encoder, rules, plan
        self.account = Account()
        self.lengths = LengthTable()
        self.examples = Examples()
        self.seen = Seen(encoder)
        self.unused = Unused()
        self.split_notes: list[str] = []
        self.near, self.near_tally = NearDuplicates(), Tally()
        self.errors: list[str] = []
        self.overlong: list[int] = []
        self.prompts: set[bytes] = set()
        self.kept_prompts = TokenPairsBuilder()
        self.leaks, self.near_leaks = Tally(), Tally()
        self.sample = Reservoir(plan.sample, SAMPLE_SEED)
        self.labels = Counter[bool]()

    def see(self, fate: Fate) -> None:
        take_account(fate, self.account)
        marks = [mark for mark in (fate.dropped, *fate.notes) if mark]
        if fate.error is not None:
            self.errors.append(fate.error.message)
        if fate.lengths is not None:
            self.lengths.add(*fate.lengths, self._least_limit(fate, fate.lengths))
        if fate.longest:
            self.overlong.append(fate.longest)
        if not fate.dropped:
            marks += self._see_kept(fate)
        self.examples.take(fate, marks)

    def _least_limit(self, fate: Fate, lengths: tuple[int, int, int]) -> int:
        """Return the shortest limit that keeps a pair, where a limit to show could tell; or 0."""
        pair, encoder = fate.pair, self.encoder
        if pair is None or encoder is None:
            return 0
        frame = frame_length(pair, lengths[0], encoder)
        is_near = least_matters(lengths, frame, self.rules.max_seq_length)
        return least_limit(pair, lengths, encoder) if is_near else 0

    def _see_kept(self, fate: Fate) -> list[str]:
        source = fate.row.source
        marks = self.seen.take(fate)
        text = compared_text(fate)
        is_further = ONE_OF_SEVERAL in fate.row.notes and not source.endswith("[0]")
        if not is_further and self.near.find(text, source) is not None:
            self.near_tally.add(source)
            marks.append("near-duplicates")
        self.prompts.add(plain_prompt_key(fate))
        label = fate.pair.label if fate.pair else None
        if label is not None:
            self.labels[label] += 1
        if fate.tokens is not None:
            self.kept_prompts.add(_prompt_only(fate.tokens))
            if label is None:
                self.sample.take(fate.tokens)
        return marks

    def see_valid(self, fate: Fate) -> None:
        if fate.error is not None:
            self.errors.append(fate.error.message)
        if fate.dropped:
            return
        if plain_prompt_key(fate) in self.prompts:
            self.leaks.add(fate.row.source)
        elif self.near.seen(compared_text(fate)) is not None:
            self.near_leaks.add(fate.row.source)

    def conclude(self, valid: Account | None) -> Checkup:
        split = self._split(valid)
        limits = None
        if len(self.lengths):
            longest = int(self.lengths.column("total").max())
            limits = self.lengths.under_limits(usual_limits(longest, self.rules.max_seq_length))
            limits = [self._as_counted(row) for row in limits]
        return Checkup(
            layouts=self.layouts,
            account=self.account,
            max_seq_length=self.rules.max_seq_length,
            findings=in_order(list(self._findings(split, valid))),
            lengths=self.lengths.summary(),
            limits=limits,
            examples=self.examples.all(),
            split=split,
            valid=valid,
            sample=self.sample.kept,
            writer=TokenWriter(self.encoder) if self.encoder else None,
            labels=(self.labels[True], self.labels[False]) if self.labels else None,
        )

    def _split(self, valid: Account | None) -> dict[str, int] | None:
        if self.encoder is None:
            return None
        if valid is not None:
            return {"train": self.account.kept, "valid": valid.kept}
        plan, tokenizer = self.plan, self.encoder.tokenizer
        pairs = self.kept_prompts.build()
        train, held = hold_out(pairs, plan.valid_fraction, plan.seed, tokenizer, self.split_notes)
        return {"train": len(train), "valid": len(held)}

    def _as_counted(self, row: dict[str, int]) -> dict[str, int]:
        """Return what the account says for the limit in use."""
        if row["max_seq_length"] != self.rules.max_seq_length:
            return row
        return counted_limit(self.account, self.rules.max_seq_length)

    def _findings(self, split: dict[str, int] | None, valid: Account | None) -> Iterator[Finding]:
        left = (split["train"], split["valid"]) if split else (self.account.kept, 0)
        yield from on_errors(self.account, self.errors)
        yield from on_account(self.account, self.overlong, self.rules, self.plan.smallest, left)
        if valid is not None and not valid.kept:
            yield from on_account(valid, (), self.rules, 0, (0, 0))
        yield from on_drops(self.account)
        yield from on_notes(self.account, self.layouts)
        yield from self.unused.findings()
        yield from self.seen.findings(self.account.kept)
        if self.labels:
            yield from on_labels(self.labels[True], self.labels[False])
        else:
            yield from on_lengths(self.lengths.bias(), len(self.lengths))
        yield from on_likeness(self.near_tally, self.account.kept)
        yield from on_leaks(self.leaks, self.near_leaks)
        for note in (*self.plan.notes, *self.split_notes):
            yield on_plan(note)


def count_rows(parts: Sequence[Part]) -> int:
    """Return how many rows there are, 0 if some are not in memory."""
    sized = [rows for rows, _ in parts if isinstance(rows, Sized)]
    return sum(map(len, sized)) if len(sized) == len(parts) else 0


def as_json(value: Any) -> Any:
    """Return a value of a row as JSON knows it; what it does not know becomes text."""
    if isinstance(value, dict):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)


def _prompt_only(pair: TokenPair) -> TokenPair:
    """Return what a split looks at, in little memory."""
    ids: Any = array("i", pair.prompt)
    return TokenPair(ids, [], [])
