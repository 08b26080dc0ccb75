"""Base and adapter answering the same prompt, and a pair scored by both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from textual import on, work
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, Static

from orpo_mlx.formatting import format_bytes
from orpo_mlx.runs.directory import RunDirectory
from tui.children import JsonLinesChild
from tui.commands import bindings
from tui.playground_state import SIDES, PlaygroundState, Side
from tui.screens.ask import Answer, AskScreen
from tui.screens.base import AppScreen
from tui.widgets.token_view import TokenView

_TEMPERATURES = (0.0, 0.3, 0.7, 1.0)
_MAX_TOKENS = 256


class PlaygroundScreen(AppScreen):
    """One model in memory, in a process of its own; the adapter is switched on and off in it.

    Args:
        run: the folder of a run.
    """

    AREA = "test"
    HELP = (
        "Type a prompt: the base model and your adapter answer side by side, with the same "
        "settings and seed. Write a good and a bad answer below and ctrl+r scores them: the "
        "log-odds ratio above 0 means that the good one is preferred. ctrl+n takes a pair the "
        "training did not see."
    )
    TITLE = "orpo-mlx · Test"
    CSS_PATH = "playground.tcss"
    BINDINGS = bindings("test", "screen")

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = RunDirectory(run)
        self.state = PlaygroundState()
        self.temperature, self.seed = 0.0, 0
        self.words = ["-m", "orpo_mlx.playground", "--run", str(run)]
        self._child: JsonLinesChild | None = None
        self._pair = -1

    def compose_body(self) -> Iterable[Widget]:
        charset = self.orpo.charset
        yield Input(placeholder="Prompt: type and press enter", id="prompt", compact=True)
        with Horizontal(id="answers"):
            for side in SIDES:
                with VerticalScroll(id=side, classes="answer"):
                    yield Static(side.upper(), classes="heading", id=f"{side}-heading")
                    yield Static("", id=f"{side}-text", markup=False)
                    yield Static("", id=f"{side}-figures", classes="figures", markup=False)
        with Vertical(id="pair"):
            yield Input(placeholder="A good answer", id="chosen", compact=True)
            yield Input(placeholder="A bad answer", id="rejected", compact=True)
            yield Static("", id="scores", markup=False)
            with VerticalScroll(id="strips"):
                yield TokenView("chosen", charset, id="chosen-tokens")
                yield TokenView("rejected", charset, id="rejected-tokens")
        yield Static("Loading the model ...", id="status", markup=False)

    def on_mount(self) -> None:
        self.query_one("#prompt").focus()
        self._show()
        self._serve()

    # The child

    @work(exclusive=True, group="playground")
    async def _serve(self) -> None:
        """Load the model in a child and take what it says; leaving the screen ends it."""
        async with JsonLinesChild(self.words) as child:
            self._child = child
            async for message in child:
                self._take(message)
        self._child = None
        if not self.state.failed:
            self.state.failed = child.complaint or f"The model's process ended ({child.exit_code})."
        self.state.ready = False
        self._show()

    def _take(self, message: dict[str, Any]) -> None:
        self.state.apply(message)
        if message["event"] == "pairs":
            self._next_pair()
        self._show()

    @work(group="send")
    async def _send(self, request: dict[str, Any]) -> None:
        if self._child is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `_serve` says it
                await self._child.send(request)

    # Asking

    @on(Input.Submitted, "#prompt")
    def action_ask(self) -> None:
        """Answer the prompt on both sides."""
        prompt = self.query_one("#prompt", Input).value
        if not prompt.strip():
            self._say("Type a prompt first.")
        elif self._may_ask():
            self.state.asked()
            self._send({"op": "answer", **self._prompt(prompt), **self._sampling()})
            self._show()

    def _prompt(self, text: str) -> dict[str, Any]:
        """Return the held-out pair itself where its prompt stands unchanged: all its turns."""
        pair = self.state.pairs[self._pair] if self.state.pairs and self._pair >= 0 else None
        return {"pair": self._pair} if pair and text == _line(pair["prompt"]) else {"prompt": text}

    def _sampling(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "seed": self.seed, "max_tokens": _MAX_TOKENS}

    @on(Input.Submitted, "#chosen")
    @on(Input.Submitted, "#rejected")
    def action_score(self) -> None:
        """Score the pair under both sides."""
        texts = {name: self.query_one(f"#{name}", Input).value for name in _PAIR}
        if not all(text.strip() for text in texts.values()):
            self._say("A score needs a prompt, a good answer and a bad one.")
        elif self._may_ask():
            pair = self.state.pairs[self._pair] if self.state.pairs and self._pair >= 0 else {}
            same = all(texts[name] == _line(pair.get(name, "\n")) for name in _PAIR)
            self.state.is_busy = True
            self._send({"op": "score", **({"pair": self._pair} if same else texts)})
            self._show()

    def _may_ask(self) -> bool:
        if self.state.ready and not self.state.is_busy:
            return True
        self._say("Wait for the answer, or end it with ctrl+g." if self.state.ready else "Not yet.")
        return False

    def action_stop(self) -> None:
        """End the answers where they are."""
        self._send({"op": "cancel"})

    def action_pair(self) -> None:
        """Take the next pair that was held out of the training."""
        if not self.state.ready:
            self._say("The model is still being loaded.")
        elif self.state.pairs:
            self._next_pair()
        else:
            self._say("Reading the held-out pairs ...")
            self._send({"op": "pairs", "count": 50})

    def _next_pair(self) -> None:
        self._pair = (self._pair + 1) % len(self.state.pairs)
        pair = self.state.pairs[self._pair]
        for name in _PAIR:
            self.query_one(f"#{name}", Input).value = _line(pair[name])
        self.query_one("#prompt").focus()

    @work(exclusive=True, group="choose")
    async def action_checkpoint(self) -> None:
        """Choose the checkpoint whose adapter answers."""
        names = self.state.checkpoints
        if not names:
            return
        answers = [Answer(f"c{name}", _checkpoint_name(name)) for name in reversed(names[-8:])]
        text = "The adapter as it was after that step; final is the result of the run."
        chosen = await self.app.push_screen_wait(AskScreen("Which adapter?", text, answers))
        if chosen:
            self.state.asked()
            self._send({"op": "checkpoint", "name": chosen[1:]})

    def action_temperature(self) -> None:
        """Go to the next temperature: 0, 0.3, 0.7, 1."""
        place = _TEMPERATURES.index(self.temperature)
        self.temperature = _TEMPERATURES[(place + 1) % len(_TEMPERATURES)]
        self._show()

    def action_seed(self) -> None:
        """Take another seed: other answers at a temperature above 0."""
        self.seed += 1
        self._show()

    def action_copy(self) -> None:
        """Copy the prompt and both answers."""
        prompt = self.query_one("#prompt", Input).value
        parts = [f"{side}: {self.state.answers.get(side, '')}" for side in SIDES]
        self.orpo.copy("\n\n".join([f"prompt: {prompt}", *parts]))

    # Showing

    def _say(self, text: str) -> None:
        self.query_one("#status", Static).update(text)

    def _show(self) -> None:
        state = self.state
        for side in SIDES:
            self._show_side(side)
        for name in ("chosen", "rejected"):
            shown = state.scores.get("adapter") or state.scores.get("base") or {}
            view = self.query_one(f"#{name}-tokens", TokenView)
            view.show(state.tokens.get(name, []), shown.get(name, []))
        self.query_one("#scores", Static).update(self._score_table())
        draws = f"temperature {self.temperature:g}, seed {self.seed}, at most {_MAX_TOKENS} tokens"
        if state.failed:
            self._say(state.failed)
        elif not state.ready:
            self._say("Loading the model ...")
        else:
            busy = "Answering ... ctrl+g ends it. " if state.is_busy else ""
            hint = "" if state.is_busy or state.answers else "Enter asks both. "
            self._say(f"{busy}{hint}{draws}, {format_bytes(state.memory_bytes)} in memory")
        title = f"orpo-mlx · Test · {self.run.id}"
        if state.checkpoint:
            title += f" · {_checkpoint_name(state.checkpoint)}"
        self.query_one("#title").left = title  # type: ignore[attr-defined]
        self.on_resize()

    def _show_side(self, side: Side) -> None:
        text = self.state.answers.get(side, "")
        self.query_one(f"#{side}-text", Static).update(text)
        self.query_one(f"#{side}-figures", Static).update(self.state.figures(side))
        if self.state.is_busy and text:
            self.query_one(f"#{side}", VerticalScroll).scroll_end(animate=False)

    def _score_table(self) -> str:
        rows = self.state.score_rows()
        if not rows:
            return "Log-prob per token and log-odds ratio of both answers: ctrl+r"
        lines = [f"{'':8} {'chosen':>9} {'rejected':>9} {'log-odds ratio':>15}  prefers"]
        lines += [f"{a:8} {b:>9} {c:>9} {d:>15}  {e}" for a, b, c, d, e in rows]
        change = self.state.change()
        return "\n".join(lines) + ("" if change is None else f" ({change:+.3f})")

    def on_token_view_pointed(self, message: TokenView.Pointed) -> None:
        message.stop()
        if message.view.has_focus and message.view.tokens:
            self._say(message.view.reading())

    def sentence(self) -> str:
        if self.state.failed:
            return f"Test of {self.run.id}: {self.state.failed}"
        if not self.state.ready:
            return f"Test of {self.run.id}: the model is being loaded."
        rows = [f"{side}: log-odds ratio {r}, prefers {w}" for side, _, _, r, w in
                self.state.score_rows()]  # fmt: skip
        said = [f"{side} answers: {text}" for side, text in self.state.answers.items()]
        return f"Test of {self.run.id}. " + "; ".join([*said, *rows]) + "."


_PAIR = ("prompt", "chosen", "rejected")


def _line(text: str) -> str:
    """Return a text as one line of an input."""
    return " ".join(text.split())


def _checkpoint_name(name: str) -> str:
    return name if name == "final" else f"step {name}"
