"""The pairs of a dataset one after the other: text, tokens with what is masked, raw, lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.message import Message

from tui.new_run.data.pair_text import VIEWS, View, length_lines, pair_lines
from tui.parts.line_view import LineView
from tui.shell.charset import CharsetName
from tui.shell.commands import bindings


class PairPreview(LineView):
    """Left and right go through the pairs, v through the ways to see one."""

    COMMAND_AREA = "preview"
    HELP = (
        "A pair as the training takes it. In the tokens view the lines behind ▒ are the prompt: "
        "the preference term leaves it out. Arrow keys go through pairs, v changes the view."
    )
    BINDINGS = bindings("preview")
    DEFAULT_CSS: ClassVar[str] = "PairPreview { padding: 0 1; min-height: 3; }"

    @dataclass
    class Moved(Message):
        """Another pair or view is shown."""

        title: str

    def __init__(self, charset: CharsetName = "braille", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.set_reactive(LineView.following, False)
        self.charset: CharsetName = charset
        self.answer: Mapping[str, Any] = {}
        self.view: View = "text"
        self.nll_scope = "full"
        self.index = 0
        self._all: Sequence[Mapping[str, Any]] = ()
        self._pairs: Sequence[Mapping[str, Any]] = ()
        self._only = ""

    def show_answer(self, answer: Mapping[str, Any], nll_scope: str = "full") -> None:
        """Show the pairs of a `data check`; where one looks stays if it can."""
        self.answer, self.nll_scope = answer, nll_scope
        self._all = self._pairs = answer.get("pairs") or []
        self._only = ""
        self.index = min(self.index, max(0, len(self._pairs) - 1))
        self._draw()

    def show_only(self, rows: Sequence[str], why: str) -> bool:
        """Go through the pairs at these places only; False if none of them is here."""
        found = [pair for pair in self._all if pair["where"] in rows]
        self._pairs, self._only = (found, why) if found else (self._all, "")
        self.index = 0
        if found and (self.view == "lengths" or not found[0].get("tokens")):
            self.view = "text"
        self._draw()
        return bool(found)

    def show_all(self) -> None:
        """Go through all pairs again."""
        self._pairs, self._only = self._all, ""
        self._draw()

    @property
    def title(self) -> str:
        """Which pair is shown, and how one sees others."""
        if self.view == "lengths":
            return "Lengths"
        if not self._pairs:
            return "No pairs"
        only = f" · x: all pairs · {self._only}" if self._only else ""
        pair = self._pairs[self.index]
        return f"Pair {self.index + 1} of {len(self._pairs)} shown · {pair['where']}{only}"

    def set_view(self, view: View) -> None:
        """Show pairs in another way."""
        self.view = view
        self._draw()

    def _draw(self) -> None:
        width = max(20, self.size.width - 2)
        if self.view == "lengths":
            lines = length_lines(self.answer, width, self.charset)
        elif self._pairs:
            pair = self._pairs[self.index]
            lines = pair_lines(pair, self.view, width, self.charset, self.nll_scope)
        else:
            lines = []
        self.show(lines)
        self.post_message(self.Moved(self.title))

    def on_resize(self) -> None:
        super().on_resize()
        self._draw()

    def _go(self, by: int) -> None:
        if self._pairs:
            self.index = (self.index + by) % len(self._pairs)
            self._draw()
            self.scroll_home(animate=False)

    def action_next(self) -> None:
        """Show the next pair."""
        self._go(1)

    def action_previous(self) -> None:
        """Show the pair before."""
        self._go(-1)

    def action_view(self) -> None:
        """Show pairs in the next way."""
        self.set_view(VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)])

    def action_all(self) -> None:
        """Go through all pairs again."""
        self.show_all()
