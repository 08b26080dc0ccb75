"""A conversation with base and adapter; each opinion on an answer is kept as a row of data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from textual import on, work
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, Static

from orpo_mlx.chat.commands import edited_turn
from orpo_mlx.chat.conversation import SIDES
from orpo_mlx.chat.session import ChatSession
from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.text.formatting import format_bytes, visible
from tui.chat.exchange_view import ExchangeView
from tui.parts.base_screen import AppScreen, pane
from tui.parts.fields.line_field import LineField
from tui.parts.pick_one import PickOneScreen
from tui.processes.children import JsonLinesChild
from tui.shell.commands import bindings, key_of

_TEMPERATURES = (0.0, 0.3, 0.7, 1.0)
_ON_TWO, _ON_ONE = ("left", "right"), ("like", "dislike")
_ON_LAST = ("edit", "edit_next", "retry", "correct", "keep", "copy")


class ChatScreen(AppScreen):
    """One model in memory, in a process of its own. Keys and lines that begin with / do the same.

    Args:
        run: the folder of a run.
        session: a conversation to go on with.
    """

    AREA = "chat"
    HELP = (
        "Both sides answer the same turns; the conversation goes on with the adapter's answer, or "
        "the one you call better. Each opinion is at once a row in a file that New run offers as "
        "data; the same key again takes it back. Commands are typed, too: /system, /save FILE, "
        "/new; /help lists them."
    )
    TITLE = "orpo-mlx · Chat"
    CSS_PATH = "screen.tcss"
    BINDINGS = bindings("chat", "screen")

    def __init__(self, run: Path, session: ChatSession | None = None) -> None:
        super().__init__()
        self.run = RunDirectory(run)
        self.session = session or ChatSession(self.run.id)
        self.words = ["-m", "orpo_mlx.cli.commands.playground", "--run", str(run)]
        self._child: JsonLinesChild | None = None
        self._note = ""
        self._views: list[ExchangeView] = []
        self._chosen = ""
        """The line in the field that brought an earlier turn back, as long as it is unchanged."""

    def compose_body(self) -> Iterable[Widget]:
        with pane(VerticalScroll(id="talk"), "Conversation"):
            yield Static("", id="words", markup=False)
        is_ascii = self.orpo.charset == "ascii"
        field = LineField(
            "Say something, or /help", id="line", is_ascii=is_ascii, on_enter=self._submit
        )
        yield pane(field, "You")
        yield Static("Loading the model ...", id="status", markup=False)

    def on_mount(self) -> None:
        self._field.focus()
        self._serve()

    @property
    def _field(self) -> LineField:
        return self.query_one("#line", LineField)

    # The child

    @work(exclusive=True, group="chat")
    async def _serve(self) -> None:
        """Load the model in a child and take what it says; leaving the screen ends it."""
        self.session.begin()
        self._note = ""
        self._show()
        wanted = self.session.checkpoint
        words = [*self.words, "--checkpoint", wanted] if wanted else self.words
        async with JsonLinesChild(words) as child:
            self._child = child
            async for message in child:
                self._take(message)
        self._child = None
        if not self.session.failed:
            ended = f"The model's process ended ({child.exit_code})."
            self.session.fail(child.complaint or ended)
        if not self.session.ready:  # perhaps that checkpoint is gone: next time the newest
            self.session.checkpoint = ""
        self.session.ready = False
        self._show()

    def _take(self, message: dict[str, Any]) -> None:
        self.session.apply(message)
        if not self.is_open:
            return
        if message["event"] == "text":
            self._show_last()
            return
        # What it says until now was of what went on before.
        self._note = self.session.cut.capitalize() if message["event"] == "answered" else ""
        if message["event"] == "asking":
            self._show_status()
            return
        self._show(visible(self.session.report) if message["event"] == "asked" else "")

    @work(group="send")
    async def _send(self, request: dict[str, Any]) -> None:
        if self._child is not None:
            await self._child.send(request)

    def action_load(self) -> None:
        """Give the model's memory back, or load it again."""
        if self._child is None:
            self._serve()
            return
        self.workers.cancel_group(self, "chat")
        self._child = None
        self.session.fail("The model is unloaded.")
        self.session.ready = False
        self._show()

    # Lines

    def _submit(self) -> None:
        line = self._field.text
        if self._do(line) and self.is_open:
            self._field.clear()

    def _do(self, line: str) -> bool:
        """Do what a line says; False if it was refused."""
        try:
            outcome = self.session.take(line)
        except OrpoError as error:
            self._note = f"{error.message} {error.what_to_do}"
            self._show_status()
            return False
        self._note = outcome.text
        if outcome.leaves:
            self.action_back()
            return True
        is_list = "\n" in outcome.text
        if is_list:
            self._note = ""
        self._show(outcome.text if is_list else "")
        if outcome.request:
            self._send(outcome.request)
        return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what makes sense of the last answers."""
        last, is_busy = self.session.talk.last, self.session.is_busy
        if action == "stop":
            return is_busy
        if action in _ON_TWO:
            return not is_busy and last is not None and len(last.answers) > 1
        if action in _ON_ONE:
            return not is_busy and last is not None and len(last.answers) == 1
        return last is not None or action not in _ON_LAST

    def action_stop(self) -> None:
        """End the answers where they are."""
        self._send({"op": "cancel"})

    def action_left(self) -> None:
        """The left answer is better."""
        self._do("/better left")

    def action_right(self) -> None:
        """The right answer is better."""
        self._do("/better right")

    def action_like(self) -> None:
        """The answer is good."""
        self._do("/like")

    def action_dislike(self) -> None:
        """The answer is bad."""
        self._do("/dislike")

    def action_keep(self) -> None:
        """Add the last prompt to the saved ones."""
        self._do("/keep")

    def action_ask(self) -> None:
        """Ask the saved prompts of each checkpoint."""
        self._do("/ask")

    def action_retry(self) -> None:
        """Answer again."""
        self._do("/retry")

    def action_sides(self) -> None:
        """Both answer, the adapter alone, the base alone."""
        rounds = {SIDES: "adapter", ("adapter",): "base", ("base",): "both"}
        self._turn(f"/{rounds[self.session.sides]}")

    def action_temperature(self) -> None:
        """Go to the next temperature: 0, 0.3, 0.7, 1."""
        now = self.session.drawing.temperature
        self._turn(f"/temperature {next((t for t in _TEMPERATURES if t > now), 0.0):g}")

    def action_seed(self) -> None:
        """Take another seed."""
        self._turn(f"/seed {self.session.drawing.seed + 1}")

    def _turn(self, line: str) -> None:
        """Change what the line below shows anyway."""
        if self._do(line):
            self._note = ""
            self._show_status()

    def action_edit(self) -> None:
        """Bring the last turn back into the field, or the one before that which is there."""
        self._choose_turn(-1)

    def action_edit_next(self) -> None:
        """Bring the turn after that which is in the field."""
        self._choose_turn(1)

    def _choose_turn(self, way: int) -> None:
        """Bring a turn into the field; what has been typed or changed there stays."""
        field, views = self._field, self._views
        if field.value != self._chosen:
            return
        places = [place for place, view in enumerate(views) if view.has_class("-chosen")]
        place = max(0, (places[0] if places else len(views)) + way)
        if place < len(views):
            self._fill(self.session.edit_line(place + 1))
            self.query_one("#talk", VerticalScroll).scroll_to_widget(views[place], animate=False)
            follows = "; what follows it is dropped" if place + 1 < len(views) else ""
            self._note = f"Turn {place + 1} of {len(views)}: enter sends it again{follows}."
        else:
            field.clear()
            self._note = ""
        self._chosen = field.value
        self._mark(place)
        self._show_status()

    def _mark(self, chosen: int | None) -> None:
        for place, view in enumerate(self._views):
            view.set_class(place == chosen, "-chosen")

    @on(Input.Changed, "#line")
    def _mark_chosen(self) -> None:
        """Show which turn the field would say again."""
        number = edited_turn(self._field.text)
        self._mark(number and number - 1)
        if number is None and self._chosen:
            self._chosen = self._note = ""
            self._show_status()

    def action_correct(self) -> None:
        """Bring the answer into the field, to be made better."""
        if last := self.session.talk.last:
            self._fill(f"/correct {last.kept}")

    def action_system(self) -> None:
        """Bring the system prompt into the field."""
        self._fill(f"/system {self.session.talk.system}")

    def action_page_up(self) -> None:
        """Scroll back."""
        self.query_one("#talk", VerticalScroll).scroll_page_up(animate=False)

    def action_page_down(self) -> None:
        """Scroll on."""
        self.query_one("#talk", VerticalScroll).scroll_page_down(animate=False)

    def _fill(self, text: str) -> None:
        self._field.text = text
        self._field.cursor_position = len(self._field.value)
        self._field.focus()

    @work(exclusive=True, group="choose")
    async def action_checkpoint(self) -> None:
        """Choose the checkpoint whose adapter answers."""
        session = self.session
        if not session.checkpoints:
            self._do("/checkpoint final")  # says why there is nothing to choose yet
            return
        names = {name: _checkpoint_name(name) for name in reversed(session.checkpoints)}
        picker = PickOneScreen("Adapter after", names, session.checkpoint)
        if chosen := await self.app.push_screen_wait(picker):
            self._do(f"/checkpoint {chosen}")

    def action_copy(self) -> None:
        """Copy the last turn and its answers."""
        if last := self.session.talk.last:
            parts = [f"{side}: {last.answers.get(side, '')}" for side in last.sides]
            self.orpo.copy("\n\n".join([f"user: {last.user}", *parts]))

    # Showing

    def _show(self, words: str = "") -> None:
        """Show the conversation; below it `words`, or how to begin where there is none."""
        if not self.is_open:
            return
        if self.session.unsent and not self._field.value:
            self._fill(self.session.unsent)
            self.session.unsent = ""
        self._show_exchanges()
        is_new = not self.session.talk.exchanges
        self.query_one("#words", Static).update(words or (self._beginning() if is_new else ""))
        self._show_status()
        self.refresh_bindings()
        self._show_last()
        if words:  # from their beginning
            talk, shown = self.query_one("#talk", VerticalScroll), self.query_one("#words")
            self.call_after_refresh(talk.scroll_to_widget, shown, top=True, animate=False)

    def _show_exchanges(self) -> None:
        """Bring a view of each exchange onto the screen; those that went, go."""
        exchanges, same = self.session.talk.exchanges, 0
        for view, exchange in zip(self._views, exchanges, strict=False):
            if view.exchange is not exchange:
                break
            same += 1
        for view in self._views[same:]:
            view.remove()
        is_ascii = self.orpo.charset == "ascii"
        new = [ExchangeView(exchange, is_ascii=is_ascii) for exchange in exchanges[same:]]
        self.query_one("#talk", VerticalScroll).mount_all(new, before="#words")
        self._views[same:] = new

    def _show_last(self) -> None:
        if self._views:
            self._views[-1].show_answers()
            self.query_one("#talk", VerticalScroll).scroll_end(animate=False)
        self._show_small()

    def _beginning(self) -> str:
        keymap = self.orpo.keymap
        left, right = key_of("chat.left", keymap), key_of("chat.right", keymap)
        sides = key_of("chat.sides", keymap)
        return (
            "Type and press enter: the base answers on the left, your adapter on the right. "
            f"{left} says that the left answer is better, {right} the right one: a pair to train "
            f"on. {sides} lets one answer alone, to be liked or disliked. /help lists what can be "
            "typed."
        )

    def _show_status(self) -> None:
        self.query_one("#status", Static).update(visible(self._status()))
        at = f" · {_checkpoint_name(self.session.checkpoint)}" if self.session.checkpoint else ""
        self.query_one("#title").left = visible(f"{self.TITLE} · {self.run.id}{at}")  # type: ignore[attr-defined]

    def _status(self) -> str:
        session, keymap = self.session, self.orpo.keymap
        if session.failed and not session.ready:
            return f"{session.failed} {key_of('chat.load', keymap)} loads it."
        if said := self._note or session.failed:
            return said
        if not session.ready:
            return "Loading the model ..."
        if session.is_busy:
            doing = session.occupied or "Answering"
            return f"{doing} ... {key_of('chat.stop', keymap)} stops it."
        drawing = session.drawing
        keys = [key_of(f"chat.{name}", keymap) for name in ("sides", "temperature", "seed")]
        sides = "both" if session.sides == SIDES else "".join(session.sides)
        return (
            f"{keys[0]} {sides} · {keys[1]} temperature {drawing.temperature:g} · "
            f"{keys[2]} seed {drawing.seed} · {format_bytes(session.memory_bytes)}"
        )

    def sentence(self) -> str:
        session, name = self.session, f"Chat with {self.run.id}"
        if session.failed:
            return f"{name}: {' '.join(session.failed.split())}"
        last = session.talk.last
        if last is None:
            return f"{name}: " + ("nothing is said yet." if session.ready else "loading the model.")
        parts = [f"you: {last.user}", *(f"{side}: {text}" for side, text in last.answers.items())]
        parts += ["it is being answered"] if session.is_busy else [last.opinion]
        return f"{name}: " + "; ".join(" ".join(part.split()) for part in parts if part) + "."


def _checkpoint_name(name: str) -> str:
    return "final result" if name == "final" else f"step {int(name):,}"
