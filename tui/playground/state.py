"""What the test screen knows: answers as they come, scores, the model behind them; pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from orpo_mlx.text.formatting import counted
from tui.shell.charset import CharsetName

Side = Literal["base", "adapter"]
SIDES: tuple[Side, Side] = ("base", "adapter")


@dataclass(frozen=True)
class Draws:
    """How answers are drawn; each setting goes round a few values.

    Attributes:
        top_p: only the likeliest tokens that make up this share; 1 for all.
        max_tokens: longest answer.
    """

    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0
    max_tokens: int = 256

    def with_next(self, name: str) -> Draws:
        """Return the same with the next value of one setting; seeds go on for ever."""
        value = getattr(self, name)
        if name == "seed":
            return replace(self, seed=value + 1)
        values = _ROUNDS[name]
        return replace(self, **{name: values[(values.index(value) + 1) % len(values)]})

    def text(self) -> str:
        """Return them with the keys that change them."""
        return (
            f"F2 temperature {self.temperature:g} · F3 seed {self.seed} · F4 top-p {self.top_p:g} "
            f"· F5 {self.max_tokens} tokens"
        )


_ROUNDS: dict[str, tuple[float, ...]] = {
    "temperature": (0.0, 0.3, 0.7, 1.0),
    "top_p": (1.0, 0.95, 0.8),
    "max_tokens": (256, 1024, 64),
}


@dataclass
class PlaygroundState:
    """Built from the messages of `orpo_mlx.serving.playground`; see its docstring for them.

    Attributes:
        ready: the model is loaded.
        failed: what went wrong last, "" if nothing did.
        answers: text so far by side.
        done: figures of each finished answer by side.
        tokens, scores: of the pair scored last.
        pairs: held-out pairs of the run.
        held_out: whether they are that; else the adapter has learned them.
    """

    ready: bool = False
    failed: str = ""
    model: str = ""
    checkpoints: list[str] = field(default_factory=list)
    checkpoint: str = ""
    memory_bytes: int = 0
    is_busy: bool = True
    answers: dict[str, str] = field(default_factory=dict)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, list[str]] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    held_out: bool = True

    def apply(self, message: dict[str, Any]) -> None:
        """Take one message in."""
        event = message.get("event")
        if event != "text":
            self.is_busy = False
        if event == "failed":
            said = message["message"].rstrip()
            stop = "" if said.endswith((".", "!", "?")) else "."
            self.failed = f"{said}{stop} {message['what_to_do']}"
            return
        self.failed = ""
        if event == "ready":
            self.ready = True
            self.model, self.checkpoints = message["model"], message["checkpoints"]
            self.checkpoint = message["checkpoint"] or ""
            self.memory_bytes = message["memory_bytes"]
        elif event == "text":
            side = message["side"]
            self.answers[side] = self.answers.get(side, "") + message["text"]
        elif event == "answered":
            self.done = message["sides"]
            self.answers = {side: value["text"] for side, value in self.done.items()}
        elif event == "scored":
            self.tokens, self.scores = message["tokens"], message["sides"]
        elif event == "pairs":
            self.pairs, self.held_out = message["pairs"], message["held_out"]
        elif event == "loaded":
            self.checkpoint = message["checkpoint"]
            self.tokens, self.scores = {}, {}  # another adapter's

    def begin(self) -> None:
        """Note that the model is being loaded."""
        self.ready, self.is_busy, self.failed = False, True, ""

    def pair_text(self, index: int) -> str:
        """Return what a pair is and what can be done with it."""
        number = f"{index + 1} of {len(self.pairs)}"
        trained = f"Pair {number}, trained on: none is held out."
        what = f"Held-out pair {number}." if self.held_out else trained
        if before := self.pairs[index].get("turns_before", 0):
            what += f" {counted(before, 'turn')} before it; edited, a prompt is asked alone."
        return f"{what} Enter answers it, ctrl+r scores it."

    def forget(self) -> None:
        """Drop answers and scores: they are of another pair."""
        self.answers, self.done, self.tokens, self.scores = {}, {}, {}, {}

    def asked(self) -> None:
        """Note that something was asked; old answers go."""
        self.is_busy, self.failed = True, ""
        self.answers, self.done = {}, {}

    def figures(self, side: Side) -> str:
        """Return the line under an answer."""
        found = self.done.get(side)
        if not found:
            return ""
        mean = found["mean_logp"]
        logp = "" if mean is None else f", log-prob {mean:+.2f}"
        end = "" if found["ended"] else ", cut"
        return f"{counted(found['tokens'], 'token')}, {found['tokens_per_second']:.0f}/s{logp}{end}"

    def score_rows(self, charset: CharsetName) -> list[tuple[str, str, str, str, str]]:
        """Return (side, chosen, rejected, log-odds ratio, what it prefers) per side."""
        rows = []
        for side in SIDES:
            if side in self.scores:
                score = self.scores[side]
                ratio = score["log_odds_ratio"]
                word = "chosen ✓" if ratio > 0 else "rejected ✗"
                if charset == "ascii":
                    word = word[:-2]
                rows.append(
                    (
                        side,
                        f"{score['chosen_logps']:+.3f}",
                        f"{score['rejected_logps']:+.3f}",
                        f"{ratio:+.3f}",
                        word,
                    )
                )
        return rows

    def change(self) -> float | None:
        """Return how much the adapter moved the log-odds ratio, None without both sides."""
        if len(self.scores) < 2:
            return None
        return self.scores["adapter"]["log_odds_ratio"] - self.scores["base"]["log_odds_ratio"]
