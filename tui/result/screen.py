"""Whether a run has helped, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual import work
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import get_current_worker

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.text.formatting import visible
from tui.parts.base_screen import AppScreen
from tui.parts.line_view import LineView
from tui.parts.title_bar import TitleBar
from tui.processes.answers import ask_json
from tui.processes.children import ChildFailed
from tui.result.facts import ResultFacts, read_facts
from tui.result.texts import result_lines, result_sentence
from tui.shell.commands import bindings, key_of
from tui.shell.messages import OpenChat, OpenExport, OpenNewRun, OpenPlayground, OpenServe


class ResultScreen(AppScreen):
    """What `evaluation.json` of a run says.

    Args:
        run: the folder of a run.
    """

    AREA = "result"
    HELP = (
        "Base and adapter on pairs that the training did not see. A bar is the 95 % interval, its "
        "mark the value: where the difference leaves out 0, chance does not explain it. Drift is "
        "how far the adapter has moved the model on prompts that have nothing to do with the pairs."
    )
    TITLE = "orpo-mlx · Result"
    CSS_PATH = "screen.tcss"
    BINDINGS = bindings("result", "screen")

    @dataclass
    class FactsRead(Message, bubble=False):
        """What the run has left."""

        facts: ResultFacts

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = RunDirectory(run)
        self.facts: ResultFacts | None = None
        self.words = ["-m", "orpo_mlx", "evaluate", str(run), "--json", "--save"]
        self.is_asking = False

    def compose_body(self) -> Iterable[Widget]:
        yield LineView(id="result")
        yield Static("", id="status", markup=False)

    def on_mount(self) -> None:
        self.query_one(TitleBar).right = visible(self.run.id)
        view = self.query_one("#result", LineView)
        view.following = False
        view.focus()
        self._say("Reading ...")
        self._read()

    # Facts

    @work(thread=True, exclusive=True, group="read")
    def _read(self) -> None:
        facts = read_facts(self.run)
        if not get_current_worker().is_cancelled:
            self.post_message(self.FactsRead(facts))

    def on_result_screen_facts_read(self, message: FactsRead) -> None:
        self.facts = message.facts
        self._say("")
        self._show()

    def on_resize(self) -> None:
        self._show()
        super().on_resize()

    def _show(self) -> None:
        if self.facts is None or not self.is_open:
            return
        view = self.query_one("#result", LineView)
        width = max(20, self.size.width - 3)
        view.show(result_lines(self.facts, width, self.orpo.charset, self.orpo.keymap))
        self.refresh_bindings()
        self._show_small()

    def settings_changed(self) -> None:
        """Use another charset at once."""
        self._show()

    def _say(self, text: str) -> None:
        self.query_one("#status", Static).update(text)

    # What can be done

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to compare what can be compared, once at a time."""
        if action == "evaluate":
            can_compare = self.facts is not None and self.facts.can_compare
            return can_compare and not self.is_asking
        return True

    @work(exclusive=True, group="evaluate")
    async def action_evaluate(self) -> None:
        """Compare base and adapter in a process of its own; leaving the screen ends it."""
        self.is_asking = True
        self.refresh_bindings()
        back = key_of("screen.back", self.orpo.keymap)
        self._say(f"Comparing base and adapter ... {back} leaves and ends it.")
        found = await ask_json(self.words, self._tell_progress)
        self.is_asking = False
        if not self.is_open:
            return
        if isinstance(found, ChildFailed):
            self._say(visible(str(found)))
            self.refresh_bindings()
            return
        self._read()

    def _tell_progress(self, event: dict[str, Any]) -> None:
        done, total, label = (event.get(name) for name in ("done", "total", "label"))
        if self.is_open and isinstance(done, int) and isinstance(total, int):
            self._say(visible(f"Comparing base and adapter: {label}, {done:,} of {total:,}"))

    def action_chat(self) -> None:
        self.post_message(OpenChat(self.run.path))

    def action_test(self) -> None:
        self.post_message(OpenPlayground(self.run.path))

    def action_export(self) -> None:
        self.post_message(OpenExport(self.run.path))

    def action_serve(self) -> None:
        self.post_message(OpenServe([self.run.path]))

    def action_new_from_this(self) -> None:
        """Plan a run with this one's settings."""
        self.post_message(OpenNewRun(self.run.path))

    def sentence(self) -> str:
        return result_sentence(self.run.id, self.facts)
