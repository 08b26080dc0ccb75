"""Two answers to a held-out prompt, compared blind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from textual import work
from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from orpo_mlx.runs.directory import RunDirectory
from tui.judge.state import JudgeState
from tui.parts.base_screen import AppScreen, pane
from tui.processes.children import JsonLinesChild
from tui.shell.commands import bindings


class JudgeScreen(AppScreen):
    """A run's adapter against its base, or two runs against each other.

    Args:
        runs: folders; one, or the run and the one it is compared with.
    """

    AREA = "judge"
    HELP = (
        "Two answers to one prompt that the training did not see: which serves the person who "
        "asked better? You are not told whose they are, and their order is drawn for each prompt. "
        "Verdicts are kept as you give them; opened again, it goes on. `orpo-mlx judge` does the "
        "same, and lets a model judge."
    )
    TITLE = "orpo-mlx · Judge"
    CSS_PATH = "screen.tcss"
    BINDINGS = bindings("judge", "screen")

    def __init__(self, runs: Sequence[Path]) -> None:
        super().__init__()
        self.runs = [RunDirectory(path) for path in runs[:2]]
        self.state = JudgeState()
        self.words = ["-m", "orpo_mlx.cli.judge.serve", str(runs[0])]
        if len(runs) > 1:
            self.words += ["--against", str(runs[1])]
        self._child: JsonLinesChild | None = None

    def compose_body(self) -> Iterable[Widget]:
        with pane(VerticalScroll(id="prompt-box"), "Prompt"):
            yield Static("", id="prompt", markup=False)
        with Horizontal(id="answers"):
            for side in ("first", "second"):
                with pane(VerticalScroll(id=side, classes="answer"), side.title()):
                    yield Static("", id=f"{side}-text", markup=False)
        yield Static("", id="status", markup=False)

    def on_mount(self) -> None:
        self.query_one("#first").focus()
        self._serve()

    # The child

    @work(exclusive=True, group="judge")
    async def _serve(self) -> None:
        """Let both sides answer in a child and take what it says; leaving the screen ends it."""
        self._show()
        async with JsonLinesChild(self.words, on_progress=self._take_progress) as child:
            self._child = child
            async for message in child:
                self.state.apply(message)
                self._show()
        self._child = None
        if not self.state.failed:
            ended = f"The process that answers ended ({child.exit_code})."
            self.state.fail(child.complaint or ended)
        self._show()

    def _take_progress(self, event: dict[str, Any]) -> None:
        self.state.take_progress(event)
        self._show()

    @work(group="send")
    async def _send(self, request: dict[str, Any]) -> None:
        if self._child is not None:
            await self._child.send(request)

    # Verdicts

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer verdicts only where something waits for one."""
        return self.state.duel is not None or action not in _VERDICTS

    def action_first(self) -> None:
        """The first answer is better."""
        self._judge("first")

    def action_second(self) -> None:
        """The second answer is better."""
        self._judge("second")

    def action_tie(self) -> None:
        """Neither is."""
        self._judge("tie")

    def action_skip(self) -> None:
        """Give no verdict on this one."""
        self._judge("skip")

    def action_back_one(self) -> None:
        """Ask once more what was judged last."""
        if self.state.may_go_back:
            self._send({"says": "back"})

    def _judge(self, says: str) -> None:
        if (request := self.state.verdict_on(says)) is not None:
            self._send(request)

    # Showing

    def _show(self) -> None:
        if not self.is_open:
            return
        state = self.state
        prompt = self.query_one("#prompt", Static)
        prompt.update(state.prompt())
        prompt.set_class(bool(state.failed), "-bad")
        for side, text in zip(("first", "second"), state.answers(), strict=True):
            self.query_one(f"#{side}-text", Static).update(text)
            self.query_one(f"#{side}", VerticalScroll).scroll_home(animate=False)
        self.query_one("#prompt-box", VerticalScroll).scroll_home(animate=False)
        self.query_one("#status", Static).update(state.status())
        self.query_one("#title").left = f"{self.TITLE} · {self._names()}"  # type: ignore[attr-defined]
        self.refresh_bindings()
        self.on_resize()

    def _names(self) -> str:
        return " and ".join(run.id for run in self.runs)

    def sentence(self) -> str:
        return self.state.sentence(self._names())


_VERDICTS = ("first", "second", "tie", "skip")
