"""Answers and verdicts as they are kept: one fact a line, appended, read back after any end.

A line that is damaged, or holds no known fact, harms only itself: that answer is made, that verdict
asked for again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from orpo_mlx.errors import DataError, reason_of
from orpo_mlx.storage.journal import Journal

Says = Literal["first", "second", "tie", "skip", "none"]
"""A verdict on two answers as they were shown; "none": what a model replied is no verdict."""
SAYS: tuple[Says, ...] = get_args(Says)
PERSON = "person"


@dataclass(frozen=True)
class GivenAnswer:
    """What one side answered.

    Attributes:
        text: without special tokens and thoughts.
        tokens: its length with its thought, the end of turn not counted.
        is_cut: the longest answer was reached.
    """

    text: str
    tokens: int
    is_cut: bool


@dataclass(frozen=True)
class Ask:
    """One question to a judge.

    Attributes:
        judge: whose verdict it is.
        place: of the prompt, from 0.
        after_first: whether the later side's answer is the first of the two.
    """

    judge: str
    place: int
    after_first: bool


class Ledger:
    """The open journal of one comparison; nobody else may have it open.

    Args:
        folder: of all journals of a run; made if it is missing.
        identity: all that the answers depend on. It names the file, so other models, data or
            settings have one of their own.
        begin_anew: forget what is there.

    Attributes:
        is_new: nothing was kept before.
        others: journals of other comparisons in the folder.
        damaged: lines that were passed over.

    Raises:
        DataError: it cannot be written, is in use, or its first line is damaged.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], begin_anew: bool = False) -> None:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"{digest[:12]}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if begin_anew:
                self.path.unlink(missing_ok=True)
            self.others = sum(1 for path in folder.glob("*.jsonl") if path != self.path)
            self.is_new = not self.path.exists()
        except OSError as error:
            raise DataError(
                f"{folder}: the journal cannot be kept there ({reason_of(error)}).",
                "Check folder and space, or give another with --journal FOLDER.",
            ) from error
        self.answers: dict[tuple[str, int], GivenAnswer] = {}
        self.verdicts: dict[Ask, Says] = {}
        self._journal = Journal(self.path, identity, passes_damaged=True)
        unread = sum(not self._take(entry) for entry in self._journal.entries)
        self.damaged = self._journal.damaged + unread

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.__exit__()

    def _take(self, entry: dict[str, Any]) -> bool:
        """Take a fact; return whether it is one."""
        place = entry.get("place")
        if type(place) is not int:
            return False
        if entry.get("fact") == "answer":
            side, text, tokens, cut = (entry.get(k) for k in ("side", "text", "tokens", "is_cut"))
            if not (isinstance(side, str) and isinstance(text, str) and isinstance(cut, bool)):
                return False
            if type(tokens) is not int or not 0 <= tokens < 1 << 31:
                return False
            self.answers[side, place] = GivenAnswer(text, tokens, cut)
            return True
        judge, says, first = (entry.get(k) for k in ("judge", "says", "after_first"))
        if not (isinstance(judge, str) and says in SAYS and isinstance(first, bool)):
            return False
        self.verdicts[Ask(judge, place, first)] = says
        return True

    def keep_answer(self, side: str, place: int, answer: GivenAnswer) -> None:
        """Add an answer; when this returns it is on the disk.

        Raises:
            DataError: it cannot be written.
        """
        fact = {"fact": "answer", "side": side, "place": place, **asdict(answer)}
        self._journal.append(fact)
        self.answers[side, place] = answer

    def keep_verdict(self, ask: Ask, says: Says, reply: str = "") -> None:
        """Add a verdict; when this returns it is on the disk.

        Args:
            ask: what was asked.
            says: the verdict.
            reply: what a model said, shortened.

        Raises:
            DataError: it cannot be written.
        """
        said = {"reply": reply} if reply else {}
        self._journal.append({"fact": "verdict", **asdict(ask), "says": says, **said})
        self.verdicts[ask] = says
