"""What the judging screen knows: how far the answers are, the duel shown, how it stands; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orpo_mlx.text.formatting import counted, visible
from orpo_mlx.text.progress import progress_text
from tui.shell.names import short_name


@dataclass
class JudgeState:
    """Built from the messages of `orpo_mlx.cli.judge.serve`; see its docstring for them.

    Attributes:
        progress: what is done before the first duel, in words.
        failed: what went wrong, "" if nothing did.
        is_ready: both sides have answered.
        duel: place, prompt, first and second of what waits for a verdict, None for nothing.
        is_sent: a verdict on it is on its way.
        number, total: of the duel, among those that are asked about.
        standing: how it stands, in one line.
        verdict: what it shows, as a sentence.
    """

    progress: str = "Looking at the run ..."
    failed: str = ""
    is_ready: bool = False
    sides: dict[str, str] = field(default_factory=dict)
    compared: list[str] = field(default_factory=list)
    journal: str = ""
    notes: list[str] = field(default_factory=list)
    duel: dict[str, Any] | None = None
    is_sent: bool = False
    number: int = 0
    total: int = 0
    standing: str = ""
    verdict: str = ""
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether all is judged."""
        return self.is_ready and not self.failed and bool(self.verdict) and self.duel is None

    @property
    def may_go_back(self) -> bool:
        """Whether a verdict can be given anew."""
        return self.is_ready and not self.is_sent and not self.failed

    def take_progress(self, event: dict[str, Any]) -> None:
        """Take how far the answers are."""
        self.progress = progress_text(
            event["done"], event["total"], event["label"], event["unit"], event.get("seconds", 0.0)
        )

    def apply(self, message: dict[str, Any]) -> None:
        """Take one message in; unknown ones change nothing."""
        match message.get("event"):
            case "ready":
                self.is_ready = True
                self.sides, self.compared = message["sides"], message["compared"]
                self.journal, self.notes = message["journal"], message["notes"]
            case "duel":
                self.is_sent = False
                self.duel = message["duel"]
                self.number, self.total = message["number"], message["total"]
                self.standing, self.verdict = message["standing"], message["verdict"]
                self.counts = message["counts"]
            case "failed":
                self.fail(f"{message['message']}\n{message['what_to_do']}")

    def fail(self, text: str) -> None:
        """Note why it cannot go on."""
        self.failed, self.duel = text, None

    def verdict_on(self, says: str) -> dict[str, Any] | None:
        """Return what to send for a verdict, None while nothing waits for one."""
        if self.duel is None or self.is_sent or self.failed:
            return None
        self.is_sent = True
        return {"place": self.duel["place"], "says": says}

    # In words

    def prompt(self) -> str:
        """Return the prompt, or what stands in its place."""
        if self.failed:
            return visible(self.failed)
        if self.duel is not None:
            return visible(self.duel["prompt"])
        return visible(self.verdict) if self.is_done else f"{self.progress}"

    def answers(self) -> tuple[str, str]:
        """Return both answers as they are shown; at the end, who they were."""
        if self.duel is not None:
            return visible(self.duel["first"]), visible(self.duel["second"])
        if self.is_done:
            return self._end(), "\n".join(map(visible, [*self.notes, f"Kept in {self.journal}"]))
        return "", ""

    def _end(self) -> str:
        before, after = (visible(short_name(self.sides.get(side, side))) for side in self.compared)
        count = self.counts
        lines = [f"{after} against {before}:"]
        lines += [f"{count[name]} {word}" for name, word in _WORDS.items() if count.get(name)]
        return "\n".join(lines)

    def status(self) -> str:
        """Return the line below: where one is and how it stands."""
        if self.failed:
            return "It cannot go on. What was judged is kept."
        if not self.is_ready:
            return "The models answer first. Leaving is no loss: answers are kept."
        parts = [f"{self.number} of {self.total}"] if self.duel is not None else ["All is judged"]
        return " · ".join([*parts, *([self.standing] if self.standing else [])])

    def sentence(self, names: str) -> str:
        """Return what is shown, in one sentence; `names`: of the runs."""
        if self.duel is None:
            return f"Judging {names}: {' '.join(self.prompt().split())} {self.status()}."
        first, second = (" ".join(text.split()) for text in self.answers())
        prompt = " ".join(self.prompt().split())
        total = counted(self.total, "comparison")
        return (
            f"Judging {names}, {self.number} of {total}: {prompt} First answer: {first} "
            f"Second answer: {second}"
        )


_WORDS = {
    "wins": "won", "ties": "tied", "losses": "lost", "identical": "of the ties are equal answers",
    "skipped": "skipped",
}  # fmt: skip
