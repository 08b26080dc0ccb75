"""Step 2: what is learned from, looked at before it is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from orpo_mlx import demo
from orpo_mlx.formatting import counted, visible
from tui.answers import Answers
from tui.cells import CharsetName
from tui.children import ChildFailed
from tui.draft import SETTINGS, Draft, value_text
from tui.pair_text import VIEWS
from tui.widgets.pair_preview import PairPreview
from tui.widgets.path_field import PathField
from tui.widgets.tab_strip import TabStrip

_SIGNS = {
    "error": ("✗", "error", "bold $error"),
    "warning": ("!", "warning", "bold $warning"),
    "info": ("i", "note", "$foreground 70%"),
}
_MOST_FILES = 30
_KINDS = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")


def files_here(folder: Path) -> list[Path]:
    """Return the files of a folder that may hold pairs, by name."""
    try:
        found = [path for path in folder.iterdir() if path.name.endswith(_KINDS)]
    except OSError:
        return []
    return sorted(path for path in found if path.is_file())[:_MOST_FILES]


def folder_of(data: str) -> Path:
    """Return the folder where one goes on looking: that of the data, else the working one."""
    path = Path(data) if data.startswith("/") else Path.cwd()
    try:
        return path if path.is_dir() else path.parent
    except OSError:
        return Path.cwd()


class DataStep(Vertical):
    """A field for a file, folder or Hub id; under it what `orpo-mlx data check` found."""

    DEFAULT_CSS = """
    DataStep Input { border: none; background: $surface; margin: 0 1; }
    DataStep #data-offers { height: 1fr; border: none; }
    DataStep #data-found { height: 1fr; }
    DataStep #data-state { height: auto; max-height: 12; padding: 0 1; }
    DataStep #data-columns { height: auto; max-height: 2; padding: 0 1; color: $foreground 75%; }
    DataStep #data-pair { height: 1; padding: 0 1; color: $primary; }
    DataStep PairPreview { height: 2fr; }
    DataStep #data-findings {
        height: auto; max-height: 40%; border: none; border-top: solid $foreground 25%;
        background: $background; padding: 0 1;
    }
    """

    @dataclass
    class Chosen(Message):
        """Data were chosen."""

        data: str

    @dataclass
    class Answered(Message):
        """The data were looked at, or there is a reason why not."""

    def __init__(self, charset: CharsetName = "braille") -> None:
        super().__init__(id="data")
        self.charset: CharsetName = charset
        self.draft = Draft()
        self.answer: Mapping[str, Any] | None = None
        self.state = ""
        self.checks = Answers(("-m", "orpo_mlx", "data", "check"))
        self._asked: list[str] = []
        self._refused = False
        self._read: tuple[str, Any] = ("", None)
        self._offers: list[str] = []

    def compose(self) -> ComposeResult:
        yield PathField(placeholder="A file, a folder or a Hub id", id="data-text", compact=True)
        yield OptionList(id="data-offers")
        yield Static("", id="data-state", markup=False)
        with Vertical(id="data-found", classes="-empty"):
            yield Static("", id="data-columns", markup=False)
            yield TabStrip([view.capitalize() for view in VIEWS], id="data-view")
            yield Static("", id="data-pair", markup=False)
            yield PairPreview(self.charset, id="data-preview")
            yield OptionList(id="data-findings")

    def on_mount(self) -> None:
        self.query_one(TabStrip).hint = "v next view · left, right: pairs"
        self._fill_offers()

    def _fill_offers(self) -> None:
        offers = self.query_one("#data-offers", OptionList)
        files = files_here(Path.cwd())
        self._offers = [str(demo.train_path()), *(str(path.absolute()) for path in files)]
        built_in = "Built-in demo pairs: 200 questions, for trying out"
        names = [built_in, *(visible(path.name) for path in files)]
        offers.clear_options()
        offers.add_options(Option(Content(name)) for name in [*names, "Browse ... (^o)"])
        offers.highlighted = 0

    def focus_first(self) -> None:
        """Put the focus where one goes on."""
        if not self.draft.data:
            self.query_one("#data-offers").focus()
        elif self.answer:
            self.query_one("#data-preview").focus()
        else:
            self.query_one("#data-text").focus()

    def on_key(self, event: events.Key) -> None:
        self.query_one(PathField).begin(event)

    def on_paste(self, event: events.Paste) -> None:
        self.query_one(PathField).begin_with(event)

    def show(self, draft: Draft) -> None:
        """Show what is chosen."""
        if draft.data != self.draft.data:
            field = self.query_one("#data-text", Input)
            with field.prevent(Input.Changed):
                field.value = draft.data
        self.draft = draft
        self.query_one("#data-offers").set_class(bool(draft.data), "-empty")
        self._show_columns()

    @work(exclusive=True, group="browse")
    async def browse(self) -> None:
        """Choose a file with pairs."""
        from textual_fspicker import FileOpen

        picker = FileOpen(folder_of(self.draft.data), "A file with pairs")
        if chosen := await self.app.push_screen_wait(picker):
            self.post_message(self.Chosen(str(chosen)))

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

    def look(self, at_once: bool = True) -> None:
        """Have the data of the draft checked, unless they were with these settings.

        Args:
            at_once: False: only if they were never read; another limit or split can wait.
        """
        words = self.draft.check_words() if self.draft.data else []
        if words == self._asked or (self.is_readable and not at_once):
            return
        self._asked = words
        self.show_state("Reading the pairs ..." if words else "")
        if words:
            self._check(words)
        else:
            self.workers.cancel_node(self)

    @work(exclusive=True, group="check")
    async def _check(self, words: list[str]) -> None:
        draft = self.draft
        try:
            self.show_answer(await self.checks.ask(words))
            self._read = (draft.data, draft.own.get("map"))
        except ChildFailed as failed:
            self.checks.forget(words)
            missing = "there is no such command" in str(failed)
            why = "This version cannot check data; a training does when it starts."
            self.show_state(why if missing else f"{failed}")
            self._refused = not missing
        self.post_message(self.Answered())

    def show_state(self, text: str) -> None:
        """Say what is being done, or why nothing could be found out; no pairs are shown."""
        self.answer, self.state, self._refused = None, text, False
        columns = self.columns()
        hint = f"F3: say which column is which ({', '.join(columns)}).\n" if columns else ""
        self.query_one("#data-state", Static).update(visible(hint + text))
        self.query_one("#data-found").set_class(True, "-empty")

    def show_answer(self, answer: Mapping[str, Any]) -> None:
        """Show what the check found."""
        self.answer, self.state = answer, ""
        verdict = answer["verdict"]
        sign, _, style = _SIGNS[{"good": "info", "warnings": "warning"}.get(
            verdict["level"], "error")]  # fmt: skip
        sign, style = ("✓", "$success") if verdict["level"] == "good" else (sign, style)
        sign = "v" if sign == "✓" and self.charset == "ascii" else sign
        text = Content(f"{sign} {visible(verdict['text'])}").stylize(style)
        self.query_one("#data-state", Static).update(text)
        self.query_one("#data-found").set_class(False, "-empty")
        self._show_columns()
        preview = self.query_one("#data-preview", PairPreview)
        preview.show_answer(answer, str(self.draft.get("nll_scope")))
        self._fill_findings(answer["findings"])
        if self.query_one("#data-text").has_focus or self.query_one("#data-offers").has_focus:
            preview.focus()

    def _show_columns(self) -> None:
        if self.answer is None:
            return
        layout, split = self.answer["layout"], self.answer["split"] or {}
        mapped = value_text(self.draft.get("map")) if "map" in SETTINGS else ""
        columns = mapped or ", ".join(f"{a} = {b}" for a, b in layout["columns"].items())
        parts = [
            f"{split['train']:,} train, {split['valid']:,} validation" if split else "",
            f"columns {columns} (F3)" if columns else str(layout["name"]),
        ]
        text = " · ".join(part for part in parts if part)
        self.query_one("#data-columns", Static).update(visible(text))

    def columns(self) -> list[str]:
        """Return the names of the columns, as far as they are known."""
        pairs = (self.answer or {}).get("pairs") or []
        raw = pairs[0]["raw"] if pairs else None
        if isinstance(raw, dict):
            return [str(name) for name in raw]
        _, found, rest = self.state.partition("Columns found: ")
        return [name.strip() for name in rest.split(".")[0].split(",")] if found else []

    def _fill_findings(self, findings: Sequence[Mapping[str, Any]]) -> None:
        options = self.query_one("#data-findings", OptionList)
        options.clear_options()
        options.add_options(Option(self._finding(found)) for found in findings)
        options.set_class(not findings, "-empty")

    def _finding(self, found: Mapping[str, Any]) -> Content:
        sign, word, style = _SIGNS[found["level"]]
        rows = f" ({counted(found['count'], 'row')}, enter)" if found["rows"] else ""
        text = Content(f"{sign} {word}: ").stylize(style)
        return text.append(Content(visible(found["text"]).replace("\n", " ") + rows))

    @on(OptionList.OptionSelected, "#data-findings")
    def _open_finding(self, event: OptionList.OptionSelected) -> None:
        """Go through the rows of a finding, or say where they are."""
        event.stop()
        assert self.answer
        found = self.answer["findings"][event.option_index]
        rows, preview = found["rows"], self.query_one("#data-preview", PairPreview)
        advice = f"{found['what_to_do']} " if found["what_to_do"] else ""
        shown = bool(rows) and preview.show_only(rows, f"{found['code']}; x shows all")
        places = f"At {', '.join(rows[:12])}{' ...' if len(rows) > 12 else ''}." if rows else ""
        self.notify(f"{advice}{places}" or found["text"], title=found["code"], markup=False)
        if shown:
            preview.focus()

    @on(OptionList.OptionSelected, "#data-offers")
    def _take_offer(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_index < len(self._offers):
            self.post_message(self.Chosen(self._offers[event.option_index]))
        else:
            self.browse()

    @on(Input.Submitted, "#data-text")
    def _take_text(self, event: Input.Submitted) -> None:
        event.stop()
        event.input.select_all()
        if event.value.strip() == self.draft.data:  # once more: the file may be another by now
            self.checks.forget(self._asked)
            self._asked, self._read = [], ("", None)
        self.post_message(self.Chosen(event.value.strip()))

    @on(TabStrip.Picked)
    def _pick_view(self, message: TabStrip.Picked) -> None:
        message.stop()
        self.query_one("#data-preview", PairPreview).set_view(VIEWS[message.index])

    @on(PairPreview.Moved)
    def _name_pair(self, message: PairPreview.Moved) -> None:
        message.stop()
        view = self.query_one("#data-preview", PairPreview).view
        self.query_one("#data-view", TabStrip).active = VIEWS.index(view)
        self.query_one("#data-pair", Static).update(visible(message.title))

    def sentence(self) -> str:
        """Return the step as a sentence."""
        if not self.draft.data:
            return "No data are chosen yet: built-in pairs, a file, a folder or a Hub id."
        if self.answer is None:
            return f"{self.draft.data}: {' '.join(self.state.split()) or 'not looked at yet'}"
        worst = [f["text"] for f in self.answer["findings"] if f["level"] != "info"]
        said = f" Findings: {'; '.join(worst)}." if worst else ""
        return f"{self.draft.data}: {self.answer['verdict']['text']}.{said}"
