"""One chat as a front end has it: lines in, requests for the model and words for the person out.

The requests go to `orpo_mlx.serving.playground`, whose messages come back through `apply`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orpo_mlx.chat.commands import help_text, read_command
from orpo_mlx.chat.conversation import SIDES, ChatSide, Conversation, Exchange
from orpo_mlx.chat.feedback import (
    GivenOpinion,
    Opinion,
    better_side,
    count_rows,
    keep_opinion,
    take_back,
)
from orpo_mlx.chat.prompt_set import (
    answers_by_side,
    keep_prompt,
    prompt_title,
    read_saved_prompts,
    saved_prompts_file,
)
from orpo_mlx.chat.saved import save_conversation
from orpo_mlx.data.types import Message
from orpo_mlx.errors import ConfigError, DataError
from orpo_mlx.text.formatting import counted

MOST_SEED = (1 << 31) - 1
MOST_TEMPERATURE = 10.0
MOST_TOKENS = 1 << 20

_TURN = re.compile(r"#(\d{1,6})(?:\s+|$)")


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn.

    Attributes:
        max_tokens: longest answer.
    """

    temperature: float = 0.7
    seed: int = 0
    max_tokens: int = 512


@dataclass(frozen=True)
class Outcome:
    """What came of a line.

    Attributes:
        text: to be shown, "" for nothing.
        request: to be sent to the model, None for none.
        leaves: the person wants to leave.
    """

    text: str = ""
    request: dict[str, Any] | None = None
    leaves: bool = False


@dataclass
class ChatSession:
    """What a chat knows.

    Attributes:
        run: its name, "" for a model alone.
        sides: which answer the next turn.
        ready: the model is loaded.
        is_chat: it has a chat template.
        waiting: sides whose answers are being made.
        occupied: what else the model is doing, in words; "" for nothing.
        report: the answers to the saved prompts, once they were asked.
        failed: why the last request came to nothing, "" if it did not.
        unsent: the turn that a failed request had, for the person to send again.
    """

    run: str = ""
    talk: Conversation = field(default_factory=Conversation)
    sides: tuple[ChatSide, ...] = SIDES
    drawing: Drawing = field(default_factory=Drawing)
    ready: bool = False
    model: str = ""
    checkpoints: list[str] = field(default_factory=list)
    checkpoint: str = ""
    is_chat: bool = True
    memory_bytes: int = 0
    waiting: set[ChatSide] = field(default_factory=set)
    occupied: str = ""
    report: str = ""
    failed: str = ""
    unsent: str = ""
    _opinion: GivenOpinion | None = None
    _dropped: list[Exchange] = field(default_factory=list)
    """What an edited turn replaced, until it has an answer."""
    _saved: set[Path] = field(default_factory=set)
    _asked: list[list[Message]] = field(default_factory=list)

    @property
    def is_busy(self) -> bool:
        """Whether the model is at work."""
        return bool(self.waiting or self.occupied)

    @property
    def about(self) -> dict[str, Any]:
        """What answers here."""
        return {"run": self.run or None, "model": self.model}

    def begin(self) -> None:
        """Note that the model is being loaded."""
        self.ready, self.failed, self.occupied = False, "", ""
        self.waiting.clear()

    @property
    def cut(self) -> str:
        """Why an answer to the last turn ends where it does, "" if all ended by themselves."""
        if (last := self.talk.last) is None:
            return ""
        figures = [done for done in last.done.values() if not done["ended"]]
        longest = last.drawn["max_tokens"]
        if any(done.get("is_full") for done in figures):
            return (
                "cut: the model's context is full; say an earlier turn again (/edit #1), or begin "
                "anew (/new)"
            )
        if any(done["tokens"] >= longest for done in figures):
            return f"cut after {longest} tokens; /max-tokens allows more"
        return ""

    # Messages of the model

    def apply(self, message: dict[str, Any]) -> None:
        """Take a message of the playground in; unknown ones change nothing."""
        last = self.talk.last
        match message.get("event"):
            case "ready":
                self.ready, self.failed = True, ""
                self.model, self.checkpoints = message["model"], list(message["checkpoints"])
                self.checkpoint = message["checkpoint"] or ""
                self.is_chat, self.memory_bytes = message["chat"], message["memory_bytes"]
                if not self.checkpoint:
                    self.sides = ("base",)
            case "text" if last is not None:
                side = message["side"]
                last.answers[side] = last.answers.get(side, "") + message["text"]
            case "answered" if last is not None:
                for side, figures in message["sides"].items():
                    last.answers[side], last.done[side] = figures["text"], figures
                self.waiting -= {*message["sides"]}
            case "loaded":
                self.checkpoint, self.occupied = message["checkpoint"], ""
            case "asking":
                done, total = message["done"], message["total"]
                self.occupied = f"{message['label']}, {done} of {total}"
            case "asked":
                self.occupied, self.report = "", _report(self._asked, message["answers"])
            case "failed":
                said = message["message"].rstrip()
                stop = "" if said.endswith((".", "!", "?")) else "."
                self.fail(f"{said}{stop} {message['what_to_do']}")

    def fail(self, text: str) -> None:
        """Note why the model did not do what was asked; a turn without an answer is taken back."""
        self.failed = text
        last = self.talk.last
        if self.waiting and last is not None and not last.kept:
            self.unsent = self.talk.exchanges.pop().user
            if self._dropped:
                self.unsent = f"/edit #{len(self.talk.exchanges) + 1} {self.unsent}"
                self.talk.exchanges += self._dropped
        self.waiting.clear()
        self.occupied = ""

    # Lines of the person

    def take(self, line: str) -> Outcome:
        """Do what a line says: a command, or a turn to be answered.

        Raises:
            OrpoError: it cannot be done; nothing has changed.
        """
        line = line.encode("utf-8", "replace").decode()  # what no encoding has, no file can keep
        command = read_command(line)
        if command is None:
            return self._say(line[1:] if line.startswith("//") else line)
        name, rest = command
        return self._commands()[name](rest)

    def _commands(self) -> dict[str, Callable[[str], Outcome]]:
        return {
            "help": lambda _: Outcome(help_text()),
            "quit": lambda _: Outcome(leaves=True),
            **{side: lambda _, side=side: self._answer_by((side,)) for side in SIDES},
            "both": lambda _: self._answer_by(SIDES),
            "checkpoint": self._switch,
            "system": self._set_system,
            "temperature": self._set_temperature,
            "seed": self._set_seed,
            "max-tokens": self._set_max_tokens,
            "edit": self._edit,
            "retry": lambda _: self._retry(),
            "like": lambda _: self._think("like"),
            "dislike": lambda _: self._think("dislike"),
            "better": self._better,
            "correct": self._correct,
            "keep": lambda _: self._keep(),
            "ask": lambda _: self._ask(),
            "save": self._save,
            "new": lambda _: self._begin_anew(),
        }

    def _say(self, text: str) -> Outcome:
        if not text.strip():
            raise DataError("There is nothing to answer.", "Type something first.")
        self._require_rest()
        drawn = {"checkpoint": self.checkpoint or None, **vars(self.drawing)}
        exchange = self.talk.ask(text, self.sides, drawn)
        self._dropped = []
        self._opinion, self.failed, self.unsent = None, "", ""
        return Outcome(request=self._request(exchange))

    def _request(self, exchange: Exchange) -> dict[str, Any]:
        self.waiting = {*self.sides}
        drawing = {key: exchange.drawn[key] for key in vars(self.drawing)}
        return {"op": "answer", "turns": self.talk.prompt(), "sides": [*self.sides], **drawing}

    def _require_rest(self) -> None:
        if not self.ready:
            raise ConfigError("The model is not loaded.", "Wait until it is there.")
        if self.is_busy:
            raise ConfigError("The model is answering.", "Wait for it, or stop it.")

    def _require_answered(self) -> Exchange:
        self._require_rest()
        if self.talk.last is None:
            raise DataError("Nothing was said yet.", "Say something first.")
        return self.talk.last

    def _answer_by(self, sides: tuple[ChatSide, ...]) -> Outcome:
        if "adapter" in sides and self.ready and not self.checkpoint:
            raise ConfigError("There is no adapter: a model alone.", "Give a run to chat with.")
        self.sides = sides
        return Outcome(f"{' and '.join(sides)} {'answer' if len(sides) > 1 else 'answers'}.")

    def _switch(self, name: str) -> Outcome:
        self._require_rest()
        if name not in self.checkpoints:
            found = ", ".join(self.checkpoints) or "none, for this is no run"
            raise ConfigError(f"checkpoint {name}: there is none of this name.", f"Found: {found}.")
        self.occupied, self.failed = f"Loading checkpoint {name}", ""
        return Outcome(request={"op": "checkpoint", "name": name})

    def _set_system(self, text: str) -> Outcome:
        if text and not self.is_chat:
            raise ConfigError(
                "The model has no chat template, and so no place for a system prompt.",
                "Say it in your own turn.",
            )
        self._require_rest()
        self.talk.system = text
        return Outcome("System prompt set." if text else "No system prompt.")

    def _set_temperature(self, text: str) -> Outcome:
        value = _number(text)
        if value is None or not 0 <= value <= MOST_TEMPERATURE:
            raise ConfigError(
                f"/temperature: {text[:40]!r} is not a number from 0 to {MOST_TEMPERATURE:g}.",
                "Write /temperature 0.7",
            )
        self.drawing = replace(self.drawing, temperature=value)
        return Outcome(f"Temperature {value:g}.")

    def _set_seed(self, text: str) -> Outcome:
        self.drawing = replace(self.drawing, seed=_whole("seed", text, 0, MOST_SEED))
        return Outcome(f"Seed {self.drawing.seed}.")

    def _set_max_tokens(self, text: str) -> Outcome:
        longest = _whole("max-tokens", text, 1, MOST_TOKENS)
        self.drawing = replace(self.drawing, max_tokens=longest)
        return Outcome(f"Longest answer: {counted(longest, 'token')}.")

    def edit_line(self, number: int | None = None) -> str:
        """Return the line that says a turn again, to be changed: turn 1, 2, ..., or the last.

        Raises:
            DataError: there is no such turn.
        """
        exchanges = self.talk.exchanges
        number = len(exchanges) if number is None else number
        if not 1 <= number <= len(exchanges):
            turns = [f"#{n} {' '.join(e.user.split())[:20]}" for n, e in enumerate(exchanges, 1)]
            raise DataError(
                f"/edit: there is no turn {number}.",
                f"The turns: {', '.join(turns)}." if turns else "Say something first.",
            )
        return f"/edit #{number} {exchanges[number - 1].user}"

    def _edit(self, text: str) -> Outcome:
        self._require_answered()
        found = _TURN.match(text)
        number = int(found[1]) if found else None
        text = text[found.end() :] if found else text
        line = self.edit_line(number)
        if not text:
            raise ConfigError("/edit: needs TEXT; what the turn shall say.", f"Write {line}")
        return self._say_anew(len(self.talk.exchanges) if number is None else number, text)

    def _say_anew(self, number: int, text: str) -> Outcome:
        """Say a turn in other words; it and what followed are dropped."""
        exchanges = self.talk.exchanges
        dropped = exchanges[number - 1 :]
        del exchanges[number - 1 :]
        outcome = self._say(text)
        self._dropped = dropped
        return outcome

    def _retry(self) -> Outcome:
        last = self._require_answered()
        if self.drawing.temperature == 0 and last.drawn.get("temperature") == 0:
            raise ConfigError(
                "At temperature 0 the answer would be the same.", "Raise it: /temperature 0.7"
            )
        if last.drawn.get("seed") == self.drawing.seed:
            self.drawing = replace(self.drawing, seed=(self.drawing.seed + 1) % (MOST_SEED + 1))
        return self._say_anew(len(self.talk.exchanges), last.user)

    # What is said of the answers

    def _better(self, side: str) -> Outcome:
        if side not in ("left", "right"):
            raise ConfigError(f"/better: {side[:40]!r} is neither left nor right.", "Say which.")
        return self._think("left" if side == "left" else "right")

    def _correct(self, text: str) -> Outcome:
        last = self._require_answered()
        if not text:
            if not last.correction:
                raise DataError("Nothing is corrected.", "Write /correct and the better answer.")
            return self._forget()
        before, last.correction = last.correction, text
        try:
            return self._keep_opinion("correct")
        except DataError:
            last.correction = before
            raise

    def _think(self, opinion: Opinion) -> Outcome:
        last = self._require_answered()
        if self._opinion is not None and self._opinion.opinion == opinion:
            return self._forget()
        if last.correction:
            raise DataError(
                "The answer is corrected; that says which is better.",
                "Write /correct alone to take the correction back.",
            )
        if opinion in ("like", "dislike") and len(last.answers) > 1:
            raise DataError("There are two answers.", "Say which is better, left or right.")
        outcome = self._keep_opinion(opinion)
        last.preferred = better_side(opinion)
        return outcome

    def _keep_opinion(self, opinion: Opinion) -> Outcome:
        given = keep_opinion(self.talk, opinion, self.is_chat, self.about)
        if self._opinion is not None:
            take_back(self._opinion)
        self._opinion = given
        if self.talk.last is not None:
            self.talk.last.opinion = given.text
        rows = counted(count_rows(given.path), "row")
        return Outcome(f"{given.text}. {rows} in {given.path}")

    def _forget(self) -> Outcome:
        last = self.talk.last
        if self._opinion is not None:
            take_back(self._opinion)
            self._opinion = None
        if last is not None:
            last.preferred, last.correction, last.opinion = None, "", ""
        return Outcome("Taken back.")

    def _keep(self) -> Outcome:
        path = saved_prompts_file()
        is_new = keep_prompt(self.talk)
        counts = counted(count_rows(path), "prompt")
        return Outcome(f"{'Kept' if is_new else 'It is there already'}: {counts} in {path}")

    def _ask(self) -> Outcome:
        self._require_rest()
        self._asked = [prompt.turns for prompt in read_saved_prompts()]
        self.occupied, self.failed, self.report = "Asking the saved prompts", "", ""
        longest = self.drawing.max_tokens
        return Outcome(request={"op": "ask", "prompts": self._asked, "max_tokens": longest})

    def _save(self, name: str) -> Outcome:
        path = save_conversation(self.talk, name, self.about, self._saved)
        self._saved.add(path)
        return Outcome(f"Saved: {path}")

    def _begin_anew(self) -> Outcome:
        self._require_rest()
        self.talk = Conversation(self.talk.system)
        self._opinion, self._saved = None, set()
        return Outcome("A new conversation.")


def _report(prompts: list[list[Message]], answers: list[dict[str, Any]]) -> str:
    """Return the answers to each prompt below each other, by step."""
    lines: list[str] = []
    for number, (turns, given) in enumerate(zip(prompts, answers, strict=True), start=1):
        lines += ["", prompt_title(turns, number, len(prompts))]
        lines += [f"  {label:<9} {text}" for label, text in answers_by_side(given).items()]
    return "\n".join(lines[1:])


def _whole(name: str, text: str, low: int, high: int) -> int:
    if len(text) < 12 and text.isascii() and text.isdigit() and low <= int(text) <= high:
        return int(text)
    raise ConfigError(
        f"/{name}: {text[:40]!r} is not a whole number from {low} to {high}.",
        f"Write /{name} 100",
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
