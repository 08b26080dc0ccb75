"""What `orpo-mlx data check` found: a verdict, the pairs, the findings; each leads to its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static
from textual.widgets.option_list import Option

from orpo_mlx.text.formatting import counted, visible
from tui.new_run.data.pair_preview import PairPreview
from tui.new_run.data.pair_text import VIEWS
from tui.new_run.draft import Draft, value_text
from tui.parts.fields.option_list import OptionList
from tui.parts.tab_strip import TabStrip
from tui.shell.charset import CharsetName
from tui.shell.commands import bindings

_SIGNS = {
    "error": ("✗", "error", "bold $error"),
    "warning": ("!", "warning", "bold $warning"),
    "info": ("i", "note", "$foreground 70%"),
}
_VERDICTS = {
    "good": ("✓", "$success"),
    "warnings": ("!", "bold $warning"),
    "unusable": ("✗", "bold $error"),
}
_HEADER = "The first line of a CSV file is taken as the names of its columns."
_ASCII = {"✓": "v", "✗": "x"}


class FindingList(OptionList):
    """Up and down go through findings; the keys of the preview move the preview."""

    DEFAULT_CSS = """
    FindingList > .option-list--option-highlighted,
    FindingList:focus > .option-list--option-highlighted {
        background: $foreground 10%; color: $foreground;
    }
    """
    COMMAND_AREA = "preview"
    HELP: ClassVar[str | None] = (
        "What was found, the worst first. Enter shows the pairs of a finding above, x all pairs "
        "again; left, right and v move the preview from here, too."
    )
    BINDINGS = bindings("preview")

    @dataclass
    class PreviewAsked(Message):
        """A key of the preview was pressed here."""

        action: str

    def on_focus(self) -> None:
        if self.highlighted is None:
            self.highlighted = 0

    def action_next(self) -> None:
        self.post_message(self.PreviewAsked("next"))

    def action_previous(self) -> None:
        self.post_message(self.PreviewAsked("previous"))

    def action_view(self) -> None:
        self.post_message(self.PreviewAsked("view"))

    def action_all(self) -> None:
        self.post_message(self.PreviewAsked("all"))


class FoundPairs(Vertical):
    """The answer of a check, or one sentence while there is none."""

    DEFAULT_CSS = """
    FoundPairs #data-found { height: 1fr; }
    FoundPairs #data-state { height: auto; padding: 0 1; }
    FoundPairs #data-columns { height: auto; max-height: 2; padding: 0 1; color: $foreground 75%; }
    FoundPairs #data-pair { height: 1; padding: 0 1; color: $primary; }
    FoundPairs PairPreview { height: 2fr; }
    FoundPairs #data-findings {
        height: auto; min-height: 3; max-height: 40%; padding: 0 1;
        border: none; border-top: solid $foreground 25%; background: $background;
    }
    """

    def __init__(self, charset: CharsetName, *, id: str) -> None:
        super().__init__(id=id)
        self.charset: CharsetName = charset
        self.answer: Mapping[str, Any] | None = None
        self.state = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="data-state", markup=False)
        with Vertical(id="data-found", classes="-empty"):
            yield Static("", id="data-columns", markup=False)
            names = [view.capitalize() for view in VIEWS]
            yield TabStrip(names, is_numbered=False, id="data-view")
            yield Static("", id="data-pair", markup=False)
            yield PairPreview(self.charset, id="data-preview")
            yield FindingList(id="data-findings")

    def on_mount(self) -> None:
        self.query_one(TabStrip).hint = "v next view · left, right: pairs"

    @property
    def preview(self) -> PairPreview:
        """The pairs."""
        return self.query_one(PairPreview)

    # Showing

    def show_state(self, text: str) -> None:
        """Say what is being done, or why nothing could be found out; no pairs are shown."""
        self.answer, self.state = None, text
        said = Content(visible(text))
        if columns := self.columns():
            names = visible(", ".join(columns))
            hint = Content(f"F3: say which column is which ({names}).").stylize("bold")
            lines = [hint, Content(_HEADER)] if ".csv" in text.partition(":")[0] else [hint]
            said = Content("\n").join([*lines, said])
        self.query_one("#data-state", Static).update(said)
        self.query_one("#data-found").set_class(True, "-empty")

    def show_answer(self, answer: Mapping[str, Any], draft: Draft) -> None:
        """Show what the check of a draft's data found."""
        self.answer, self.state = answer, ""
        verdict = answer["verdict"]
        sign, style = _VERDICTS[verdict["level"]]
        text = Content(f"{self._sign(sign)} {visible(verdict['text'])}").stylize(style)
        self.query_one("#data-state", Static).update(text)
        self.query_one("#data-found").set_class(False, "-empty")
        self.show_columns(draft)
        self.preview.show_answer(answer, str(draft.get("nll_scope")))
        self._fill_findings(answer["findings"])

    def _sign(self, sign: str) -> str:
        return _ASCII.get(sign, sign) if self.charset == "ascii" else sign

    def show_columns(self, draft: Draft) -> None:
        """Show how rows became pairs: by their columns, or by what the draft says of them."""
        if self.answer is None:
            return
        layout, split = self.answer["layout"], self.answer["split"] or {}
        columns = value_text(draft.get("map")) or ", ".join(
            f"{a} = {b}" for a, b in layout["columns"].items()
        )
        parts = [
            f"{split['train']:,} train, {split['valid']:,} validation" if split else "",
            f"columns {columns} (F3)" if columns else str(layout["name"]).partition(" (")[0],
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

    # Findings

    def _fill_findings(self, findings: Sequence[Mapping[str, Any]]) -> None:
        options = self.query_one(FindingList)
        options.clear_options()
        options.add_options(Option(self._finding(found)) for found in findings)
        options.set_class(not findings, "-empty")

    def _finding(self, found: Mapping[str, Any]) -> Content:
        sign, word, style = _SIGNS[found["level"]]
        rows = f" ({counted(found['count'], 'row')}, enter)" if found["rows"] else ""
        text = Content(f"{self._sign(sign)} {word}: ").stylize(style)
        return text.append(Content(visible(found["text"]).replace("\n", " ") + rows))

    @on(OptionList.OptionSelected, "#data-findings")
    def _open_finding(self, event: OptionList.OptionSelected) -> None:
        """Go through the rows of a finding, or say where they are."""
        event.stop()
        assert self.answer
        found = self.answer["findings"][event.option_index]
        rows, preview = found["rows"], self.preview
        advice = f"{found['what_to_do']} " if found["what_to_do"] else ""
        shown = bool(rows) and preview.show_only(rows, found["code"])
        places = f"At {', '.join(rows[:12])}{' ...' if len(rows) > 12 else ''}." if rows else ""
        self.notify(f"{advice}{places}" or found["text"], title=found["code"], markup=False)
        if shown:
            preview.focus()

    # The preview

    @on(FindingList.PreviewAsked)
    async def _move_preview(self, message: FindingList.PreviewAsked) -> None:
        message.stop()
        await self.preview.run_action(message.action)

    @on(TabStrip.Picked)
    def _pick_view(self, message: TabStrip.Picked) -> None:
        message.stop()
        self.preview.set_view(VIEWS[message.index])

    @on(PairPreview.Moved)
    def _name_pair(self, message: PairPreview.Moved) -> None:
        message.stop()
        self.query_one(TabStrip).active = VIEWS.index(self.preview.view)
        self.query_one("#data-pair", Static).update(visible(message.title))
