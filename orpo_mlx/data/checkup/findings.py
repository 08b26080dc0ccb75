"""What the doctor says: findings, each with rows to look at and what to do, and one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from orpo_mlx.data.types import OFFENDERS
from orpo_mlx.text.formatting import counted

Level = Literal["error", "warning", "info"]
_ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass
class Finding:
    """Something about the data that a user should know.

    Attributes:
        level: "error": it cannot be trained on; "warning": it will probably hurt; "info": what is
            done, for those who want to know.
        code: a short name that stays the same, for programs.
        text: what was found.
        what_to_do: the next step, "" where there is none.
        count: rows it concerns, 0 if it concerns the whole.
        rows: the first of them, as "file:line".
    """

    level: Level
    code: str
    text: str
    what_to_do: str = ""
    count: int = 0
    rows: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """Rows that have something in common: how many, and the first of them."""

    count: int = 0
    rows: list[str] = field(default_factory=list)

    def add(self, source: str) -> None:
        """Count a row."""
        self.count += 1
        if len(self.rows) < OFFENDERS:
            self.rows.append(source)


@dataclass(frozen=True)
class Verdict:
    """The whole in one line; `level` decides the exit code."""

    level: Literal["good", "warnings", "unusable"]
    text: str


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Return errors, then warnings, then the rest, each in the order found."""
    return sorted(findings, key=lambda finding: _ORDER[finding.level])


def judge(findings: Sequence[Finding], read: int, kept: int) -> Verdict:
    """Return the verdict on a dataset of which `kept` of `read` rows would be trained on."""
    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    rows = f"{kept:,} of {read:,} rows can be trained on"
    if errors:
        return Verdict("unusable", f"not usable as it is: {counted(errors, 'problem')} to solve")
    if warnings:
        return Verdict("warnings", f"usable, with {counted(warnings, 'warning')}: {rows}")
    return Verdict("good", f"good: {rows}")
