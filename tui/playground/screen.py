"""Base and adapter answering the same prompt, and a pair scored by both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from textual import on, work
from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, Label, Static

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.text.formatting import format_bytes
from tui.parts.base_screen import AppScreen, pane
from tui.parts.fields.line_field import LineField
from tui.parts.pick_one import PickOneScreen
from tui.playground.state import SIDES, Draws, PlaygroundState, Side
from tui.playground.token_strip import legend
from tui.playground.token_view import TokenView
from tui.processes.children import JsonLinesChild
from tui.shell.commands import bindings


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
    CSS_PATH = "screen.tcss"
    BINDINGS = bindings("test", "screen")

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = RunDirectory(run)
        self.state = PlaygroundState()
        self.draws = Draws()
        self.words = ["-m", "orpo_mlx.cli.commands.playground", "--run", str(run)]
        self._child: JsonLinesChild | None = None
        self._pair = -1
        self._first: Literal["", "begin", "pairs", "answer"] = "begin"
        """How far the answer to the first held-out prompt is, which nobody asked for; "": over."""

    def compose_body(self) -> Iterable[Widget]:
        charset = self.orpo.charset
        is_ascii = charset == "ascii"
        prompt = LineField("type and press enter", id="prompt", is_ascii=is_ascii)
        yield pane(prompt, "Prompt")
        with Horizontal(id="answers"):
            for side in SIDES:
                with pane(VerticalScroll(id=side, classes="answer"), side.capitalize()):
                    yield Static("", id=f"{side}-text", markup=False)
                    yield Static("", id=f"{side}-figures", classes="figures", markup=False)
        with pane(VerticalScroll(id="pair", can_focus=False), "Score of two answers"):
            for name, what in (("chosen", "a good answer"), ("rejected", "a bad answer")):
                with Horizontal(classes="row"):
                    yield Label(name)
                    yield LineField(what, id=name, is_ascii=is_ascii)
            yield Static("", id="scores", markup=False)
            yield TokenView("chosen", charset, id="chosen-tokens")
            yield TokenView("rejected", charset, id="rejected-tokens")
        yield Static("Loading the model ...", id="status", markup=False)

    def on_mount(self) -> None:
        self.query_one("#prompt").focus()
        self._serve()

    # The child

    @work(exclusive=True, group="playground")
    async def _serve(self) -> None:
        """Load the model in a child and take what it says; leaving the screen ends it."""
        self.state.begin()
        self._show()
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
        is_first = message.get("id") == _FIRST
        if is_first and not self._first:
            if message["event"] == "pairs":
                self.state.pairs, self.state.held_out = message["pairs"], message["held_out"]
            return
        self.state.apply(message)
        if message["event"] == "ready" and self._first == "begin":
            self._first = "" if self._text("prompt") else "pairs"
            if self._first:
                self.state.is_busy = True
                self._send({"op": "pairs", "count": _PAIRS, "id": _FIRST})
        elif is_first:
            self._go_on_first(message["event"])
        self._show()
        if message["event"] == "pairs" and not is_first and self.is_open:
            self._next_pair()

    def _go_on_first(self, event: str) -> None:
        """Answer the first held-out prompt when it comes, unless something is typed by then."""
        if event == "failed":
            self.state.failed = ""  # nobody has asked
        if event == "text":
            return
        if event == "pairs" and self.is_open and self.state.pairs and not self._text("prompt"):
            self._first = "answer"
            self._next_pair()
            self.query_one("#prompt", LineField).select_all()  # typing takes its place
            self.state.asked()
            self._send({"op": "answer", "pair": self._pair, "id": _FIRST, **asdict(self.draws)})
        else:
            self._first = ""

    def action_load(self) -> None:
        """Give the model's memory back, or load it again."""
        if self._child is None:
            self._serve()
            return
        self.workers.cancel_group(self, "playground")
        self._child = None
        self.state.begin()
        self.state.failed = "The model is unloaded."
        self._show()

    @work(group="send")
    async def _send(self, request: dict[str, Any]) -> None:
        if self._child is not None:
            await self._child.send(request)

    # Asking

    @on(Input.Submitted, "#prompt")
    def action_ask(self) -> None:
        """Answer the prompt on both sides."""
        prompt = self._text("prompt")
        if not self._may_ask():
            return
        if not prompt.strip():
            self._say("Type a prompt first.")
        else:
            self.state.asked()
            self._send({"op": "answer", **self._prompt(prompt), **asdict(self.draws)})
            self._show()

    def _prompt(self, text: str) -> dict[str, Any]:
        """Return the held-out pair itself where its prompt stands unchanged: all its turns.

        Another prompt is written as the pair's, with the chat template or without.
        """
        if not self._taken:
            return {"prompt": text}
        said = {"pair": self._pair}
        return said if text == self._taken["prompt"] else {**said, "prompt": text}

    @property
    def _taken(self) -> dict[str, Any]:
        """The held-out pair that was taken last, {} before the first."""
        return self.state.pairs[self._pair] if self.state.pairs and self._pair >= 0 else {}

    def _text(self, name: str) -> str:
        return self.query_one(f"#{name}", LineField).text

    @on(Input.Submitted, "#chosen")
    @on(Input.Submitted, "#rejected")
    def action_score(self) -> None:
        """Score the pair under both sides."""
        texts = {name: self._text(name) for name in _PAIR}
        if not self._may_ask():
            return
        if not all(text.strip() for text in texts.values()):
            self._say("A score needs a prompt, a good answer and a bad one.")
        else:
            same = all(texts[name] == self._taken.get(name) for name in _PAIR)
            self.state.is_busy = True
            pair = {"pair": self._pair} if self._taken else {}
            self._send({"op": "score", **pair, **({} if same else texts)})
            self._show()

    def _may_ask(self) -> bool:
        if self.state.ready and self.state.is_busy and self._first:
            if self._first == "answer":
                self.action_stop()
            self._first, self.state.is_busy = "", False  # who asks goes before
        if self.state.ready and not self.state.is_busy:
            return True
        if self.state.ready:
            self._say("Wait for the answer, or end it with ctrl+g.")
        elif not self.state.failed:
            self._say("The model is being loaded; ask again when it is there.")
        return False

    def action_stop(self) -> None:
        """End the answers where they are."""
        self._send({"op": "cancel"})

    def action_pair(self) -> None:
        """Take the next pair that was held out of the training."""
        if not self._may_ask():
            return
        if self.state.pairs:
            self._next_pair()
        else:
            self._say("Reading the held-out pairs ...")
            self._send({"op": "pairs", "count": _PAIRS})

    def _next_pair(self) -> None:
        self._pair = (self._pair + 1) % len(self.state.pairs)
        pair = self.state.pairs[self._pair]
        for name in _PAIR:
            self.query_one(f"#{name}", LineField).text = pair[name]
        self.query_one("#prompt").focus()
        self.state.forget()
        self._show()
        self._say(self.state.pair_text(self._pair))

    @work(exclusive=True, group="choose")
    async def action_checkpoint(self) -> None:
        """Choose the checkpoint whose adapter answers."""
        if not self._may_ask():
            return
        names = {name: _checkpoint_name(name) for name in reversed(self.state.checkpoints)}
        picker = PickOneScreen("Adapter after", names, self.state.checkpoint)
        chosen = await self.app.push_screen_wait(picker)
        if chosen and self._may_ask():
            self.state.asked()
            self._send({"op": "checkpoint", "name": chosen})
            self._show()

    def action_temperature(self) -> None:
        """Go to the next temperature: 0, 0.3, 0.7, 1."""
        self._draw_otherwise("temperature")

    def action_seed(self) -> None:
        """Take another seed: other answers at a temperature above 0."""
        self._draw_otherwise("seed")

    def action_top_p(self) -> None:
        """Draw from fewer tokens, or from all again."""
        self._draw_otherwise("top_p")

    def action_max_tokens(self) -> None:
        """Allow longer answers, or shorter ones."""
        self._draw_otherwise("max_tokens")

    def _draw_otherwise(self, name: str) -> None:
        self.draws = self.draws.with_next(name)
        self._show()

    def action_copy(self) -> None:
        """Copy the prompt and both answers."""
        prompt = self._text("prompt")
        parts = [f"{side}: {self.state.answers.get(side, '')}" for side in SIDES]
        self.orpo.copy("\n\n".join([f"prompt: {prompt}", *parts]))

    # Showing

    def _say(self, text: str) -> None:
        if self.is_open:
            self.query_one("#status", Static).update(text)

    def _show(self) -> None:
        if not self.is_open:
            return
        state = self.state
        for side in SIDES:
            self._show_side(side)
        for name in ("chosen", "rejected"):
            base, shown = state.scores.get("base") or {}, state.scores.get("adapter") or {}
            view = self.query_one(f"#{name}-tokens", TokenView)
            tokens = state.tokens.get(name, [])
            if shown:
                view.show(tokens, shown.get(name, []), base.get(name, []))
            else:
                view.show(tokens, base.get(name, []))
        self.query_one("#scores", Static).update(self._score_table())
        self._say(self._status())
        title = f"orpo-mlx · Test · {self.run.id}"
        if state.checkpoint:
            title += f" · {_checkpoint_name(state.checkpoint)}"
        self.query_one("#title").left = title  # type: ignore[attr-defined]
        self.on_resize()

    def _status(self) -> str:
        state = self.state
        if state.failed:
            return state.failed if state.ready else f"{state.failed} F6 loads it."
        if not state.ready:
            return "Loading the model ..."
        if state.is_busy:
            return "Answering ... ctrl+g ends it."
        return f"{self.draws.text()} · {format_bytes(state.memory_bytes)}"

    def _show_side(self, side: Side) -> None:
        text = self.state.answers.get(side, "")
        self.query_one(f"#{side}-text", Static).update(text)
        self.query_one(f"#{side}-figures", Static).update(self.state.figures(side))
        if self.state.is_busy and text:
            self.query_one(f"#{side}", VerticalScroll).scroll_end(animate=False)

    def _score_table(self) -> str:
        rows = self.state.score_rows(self.orpo.charset)
        if not rows:
            return "Log-prob per token and log-odds ratio of both answers: ctrl+r"
        lines = [f"{'':8} {'chosen':>9} {'rejected':>9} {'log-odds ratio':>15}  prefers"]
        lines += [f"{a:8} {b:>9} {c:>9} {d:>15}  {e}" for a, b, c, d, e in rows]
        change = self.state.change()
        if change is None:
            return "\n".join(lines)
        lines[-1] += f" ({change:+.3f} vs base)"
        return "\n".join([*lines, legend(self.orpo.charset)])

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
                self.state.score_rows("ascii")]  # fmt: skip
        said = [f"{side} answers: {text}" for side, text in self.state.answers.items()]
        busy = ["it is being answered"] if self.state.is_busy else []
        parts = [*busy, *said, *rows] or ["nothing is asked yet"]
        return f"Test of {self.run.id}: " + "; ".join(" ".join(p.split()) for p in parts) + "."


_PAIR = ("prompt", "chosen", "rejected")
_PAIRS = 50
"""Held-out pairs that are gone through."""
_FIRST = "first"
"""The id of requests that nobody has made."""


def _checkpoint_name(name: str) -> str:
    return "final result" if name == "final" else f"step {int(name):,}"
