"""Step 2: what is learned from, looked at before it is learned."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input
from textual.widgets.option_list import Option

from orpo_mlx import demo
from orpo_mlx.text.formatting import visible
from orpo_mlx.text.progress import progress_text
from tui.new_run.data.dataset_table import DatasetTable
from tui.new_run.data.files import (
    files_here,
    files_of_chats,
    folder_of,
    is_search,
    may_hold_pairs,
    reading_text,
)
from tui.new_run.data.found_pairs import FoundPairs
from tui.new_run.draft import Draft
from tui.new_run.hint_view import FirstWords
from tui.new_run.hints import DATA_HERE
from tui.parts.fields.option_list import OptionList
from tui.parts.fields.path_field import PathField
from tui.parts.tab_strip import TabStrip
from tui.processes.answers import Answers
from tui.processes.children import ChildFailed
from tui.shell.charset import CharsetName

HERE, HUB, PAIRS = range(3)
_PLACES = ("On this machine", "Hub", "These pairs")
_IDS = ("data-here", "data-hub", "data-check")


class DataStep(Vertical):
    """A field for a file, folder or Hub id; under it what there is, or the pairs of what is chosen.

    The pairs are looked at by `orpo-mlx data check`.
    """

    DEFAULT_CSS = """
    DataStep Input.-textual-compact { background: $surface; padding: 0 1; }
    DataStep #data-here { height: 1fr; }
    DataStep #data-offers { height: auto; max-height: 100%; border: none; }
    """

    @dataclass
    class Chosen(Message):
        """Data were chosen, perhaps with settings they need."""

        data: str
        settings: dict[str, str] = field(default_factory=dict)

    @dataclass
    class Answered(Message):
        """The data were looked at, or there is a reason why not."""

    def __init__(self, charset: CharsetName = "braille") -> None:
        super().__init__(id="data")
        self.charset: CharsetName = charset
        self.draft = Draft()
        self.checks = Answers(("-m", "orpo_mlx", "data", "check"))
        self._asked: list[str] = []
        self._refused = False
        self._read: tuple[str, Any] = ("", None)
        self._offers: list[str] = []
        self._began, self._progress = 0.0, ""

    def compose(self) -> ComposeResult:
        yield PathField(
            placeholder="Type a path, a Hub id, or words to search the Hub",
            id="data-text",
            compact=True,
        )
        yield TabStrip(_PLACES[:PAIRS], is_numbered=False, id="data-place")
        with Vertical(id="data-here"):
            yield OptionList(id="data-offers")
            yield FirstWords()
        yield DatasetTable(id="data-hub")
        yield FoundPairs(self.charset, id="data-check")

    def on_mount(self) -> None:
        self.query_one(FirstWords).paragraphs = DATA_HERE
        self._fill_offers()
        self._open(HERE)

    def _fill_offers(self) -> None:
        offers = self.query_one("#data-offers", OptionList)
        files = files_here(Path.cwd())
        chats = files_of_chats()
        self._offers = [
            str(demo.train_path()), *map(str, chats), *(str(path.absolute()) for path in files)
        ]  # fmt: skip
        built_in = "Built-in demo pairs: 200 questions, for trying out"
        names = [built_in, *chats.values(), *(visible(path.name) for path in files)]
        offers.clear_options()
        offers.add_options(Option(Content(name)) for name in [*names, "Browse ... (^o)"])
        offers.highlighted = 0

    def on_key(self, event: events.Key) -> None:
        text = self.query_one(PathField)
        if event.key == "down" and text.has_focus:
            event.stop()
            self._focus_below()

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Letters are keys of the pairs that are shown; over a list they go into the field."""
        return self.place != PAIRS and bool(character and character.isprintable())

    # Places

    @property
    def found(self) -> FoundPairs:
        """What the check found."""
        return self.query_one(FoundPairs)

    @property
    def place(self) -> int:
        """What is shown: files of this machine, datasets of the Hub, or the chosen pairs."""
        return self.query_one("#data-place", TabStrip).active

    def _open(self, place: int) -> None:
        strip = self.query_one("#data-place", TabStrip)
        strip.active = place
        strip.hint = "F2 next" if place == PAIRS else "F2 next · enter chooses"
        for index, name in enumerate(_IDS):
            self.query_one(f"#{name}").set_class(index != place, "-empty")
        if place == HUB:
            self.query_one(DatasetTable).open()

    def switch_source(self) -> None:
        """Show the next place."""
        self._open((self.place + 1) % len(self.query_one("#data-place", TabStrip).names))
        self.focus_first()

    @on(TabStrip.Picked)
    def _pick_place(self, message: TabStrip.Picked) -> None:
        message.stop()
        self._open(message.index)
        self.focus_first()

    def focus_first(self) -> None:
        """Put the focus where one goes on: on the Hub words are typed first."""
        if self.place == PAIRS:  # what was typed and not taken names no pairs shown here
            self._write_data()
        if self.place == HUB or (self.place == PAIRS and not self.answer):
            self._focus("#data-text")
        else:
            self._focus_below()

    def _focus_below(self) -> None:
        self._focus(("#data-offers", "#hub-data", "#data-preview")[self.place])

    def _focus(self, name: str) -> None:
        text = self.query_one(PathField)
        had = text.has_focus

        def focus() -> None:
            if had or not text.has_focus:  # else one has begun to type meanwhile
                self.query_one(name).focus()

        # What was hidden a moment ago takes no focus, and what is hidden now loses it.
        self.call_after_refresh(focus)

    def show(self, draft: Draft) -> None:
        """Show what is chosen."""
        changed = draft.data != self.draft.data
        self.draft = draft
        if changed:
            self._write_data()
            strip = self.query_one("#data-place", TabStrip)
            strip.names = _PLACES if draft.data else _PLACES[:PAIRS]
            self._open(PAIRS if draft.data else HERE)
        self.found.show_columns(draft)

    def _write_data(self) -> None:
        text = self.query_one("#data-text", Input)
        with text.prevent(Input.Changed):
            text.value = self.draft.data

    @work(exclusive=True, group="browse")
    async def browse(self) -> None:
        """Choose a file with pairs."""
        from textual_fspicker import FileOpen, Filters

        kinds = Filters(("Pairs", may_hold_pairs), ("All files", lambda path: True))
        picker = FileOpen(folder_of(self.draft.data), "A file with pairs", filters=kinds)
        if chosen := await self.app.push_screen_wait(picker):
            self.post_message(self.Chosen(str(chosen)))

    # Looking at the pairs

    @property
    def answer(self) -> Mapping[str, Any] | None:
        """What the check found, None if there is nothing."""
        return self.found.answer

    @property
    def state(self) -> str:
        """What is being done, or why nothing could be found out."""
        return self.found.state

    @property
    def is_readable(self) -> bool:
        """Whether the data of the draft could be read, with whatever lengths and split."""
        return bool(self._read[0]) and self._read == (self.draft.data, self.draft.own.get("map"))

    @property
    def refusal(self) -> str:
        """Why the data cannot be trained on, "" if they can or it is not known yet."""
        if self.answer is not None:
            verdict = self.answer["verdict"]
            return str(verdict["text"]) if verdict["level"] == "unusable" else ""
        return self.state if self._refused else ""

    def columns(self) -> list[str]:
        """Return the names of the columns, as far as they are known."""
        return self.found.columns()

    def look(self, at_once: bool = True) -> None:
        """Have the data of the draft checked, unless they were with these settings.

        Args:
            at_once: False: only if they were never read; another limit or split can wait.
        """
        words = self.draft.check_words() if self.draft.data else []
        if words == self._asked or (self.is_readable and not at_once):
            return
        self._asked, self._refused = words, False
        self._began, self._progress = time.monotonic(), ""
        if words:
            self._tell_progress()
            self._check(words)
        else:
            self.found.show_state("")
            self.workers.cancel_group(self, "check")

    def _tell_progress(self) -> None:
        seconds = time.monotonic() - self._began
        self.found.show_state(reading_text(self.draft.data, seconds, self._progress))

    def _note_progress(self, event: dict[str, Any]) -> None:
        done, total, label, unit = (event[name] for name in ("done", "total", "label", "unit"))
        self._progress = progress_text(done, total, label, unit, event.get("seconds", 0.0))

    @work(exclusive=True, group="check")
    async def _check(self, words: list[str]) -> None:
        draft = self.draft
        clock = self.set_interval(1.0, self._tell_progress)
        try:
            answer = await self.checks.ask(words, self._note_progress)
        except ChildFailed as failed:
            self.checks.forget(words)
            self.found.show_state(str(failed))
            self._refused = True
        else:
            self.found.show_answer(answer, draft)
            self._read = (draft.data, draft.own.get("map"))
            text = self.query_one("#data-text", Input)
            if self.place == PAIRS and text.has_focus and text.value == draft.data:
                self.focus_first()  # but not while another path is being typed
        finally:
            clock.stop()
        self.post_message(self.Answered())

    # Choosing

    @on(OptionList.OptionSelected, "#data-offers")
    def _take_offer(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_index < len(self._offers):
            self._choose(self._offers[event.option_index])
        else:
            self.browse()

    @on(DatasetTable.Chosen)
    def _take_dataset(self, message: DatasetTable.Chosen) -> None:
        message.stop()
        self._choose(message.id, message.settings)

    @on(Input.Submitted, "#data-text")
    def _take_text(self, event: Input.Submitted) -> None:
        event.stop()
        event.input.select_all()
        text = event.value.strip()
        if is_search(text) or (self.place == HUB and not text):
            self._open(HUB)
            self.query_one(DatasetTable).search(text)
            self._focus_below()
            return
        self._choose(text)

    def _choose(self, data: str, settings: dict[str, str] | None = None) -> None:
        if data == self.draft.data:  # once more: the file may be another by now
            self.checks.forget(self._asked)
            self._asked, self._read = [], ("", None)
            self._open(PAIRS)
        self.post_message(self.Chosen(data, settings or {}))

    def sentence(self) -> str:
        """Return the step as a sentence."""
        if self.place == HUB:
            return self.query_one(DatasetTable).sentence()
        if not self.draft.data:
            return "No data are chosen yet: built-in pairs, a file, a folder or a Hub id."
        if self.answer is None:
            return f"{self.draft.data}: {' '.join(self.state.split()) or 'not looked at yet'}"
        worst = [f["text"] for f in self.answer["findings"] if f["level"] != "info"]
        said = f" Findings: {'; '.join(worst)}." if worst else ""
        return f"{self.draft.data}: {self.answer['verdict']['text']}.{said}"
