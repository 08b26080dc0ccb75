"""A scored response: its tokens, a sign under each, and a cursor that reads the value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import RenderResult
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from tui.playground.token_strip import Piece, wrap_tokens
from tui.shell.charset import CharsetName
from tui.shell.commands import bindings


class TokenView(Widget, can_focus=True):
    """Arrow keys and the mouse choose a token; `Pointed` says which."""

    COMMAND_AREA = "tokens"
    HELP: ClassVar[str | None] = (
        "The tokens of a scored response. The sign under a token says what the adapter changed: "
        "up for likelier than with the base, down for less likely, full from 1 nat on. Where one "
        "side alone is scored a block says how likely it was: the highest for certain, the lowest "
        "for 6 nats and more. Arrow keys read the numbers."
    )
    BINDINGS = bindings("tokens")

    DEFAULT_CSS = """
    TokenView { height: auto; min-height: 2; padding: 0 1; }
    TokenView.-nothing { display: none; }
    TokenView:focus { background: $foreground 6%; }
    """

    cursor: reactive[int] = reactive(0)
    """Index of the token that is read."""

    @dataclass
    class Pointed(Message):
        """Another token is read."""

        view: TokenView
        index: int

    def __init__(self, label: str, charset: CharsetName = "braille", *, id: str) -> None:
        super().__init__(id=id)
        self.label = label
        self.charset: CharsetName = charset
        self.tokens: Sequence[str] = ()
        self.logps: Sequence[float] = ()
        self.before: Sequence[float] = ()
        self.set_class(True, "-nothing")

    def show(
        self, tokens: Sequence[str], logps: Sequence[float], before: Sequence[float] = ()
    ) -> None:
        """Show other tokens; `before` is what the base says of them, if both were asked."""
        self.tokens, self.logps, self.before = tokens, logps, before
        self.set_class(not tokens, "-nothing")
        self.cursor = min(self.cursor, max(0, len(tokens) - 1))
        self.refresh(layout=True)

    def _lines(self) -> list[list[Piece]]:
        width = max(8, self.size.width)
        return wrap_tokens(self.tokens, self.logps, width, self.charset, self.before)

    def render(self) -> RenderResult:
        rows: list[Content] = []
        for line in self._lines():
            texts = [
                Content(piece.text).stylize("reverse" if self._is_read(piece) else "")
                for piece in line
            ]
            signs = [Content(piece.block).stylize(self._ink(piece)) for piece in line]
            rows += [Content("").join(texts), Content("").join(signs)]
        return Content("\n").join(rows)

    def _ink(self, piece: Piece) -> str:
        if not self.before:
            return "$primary"
        return {1: "$series-1", -1: "$series-2"}.get(piece.way, "$foreground 50%")

    def _is_read(self, piece: Piece) -> bool:
        return self.has_focus and piece.index == self.cursor

    def reading(self) -> str:
        """Return the token under the cursor and its value."""
        if not self.tokens:
            return ""
        said = f"{self.label}: {self.tokens[self.cursor]!r} {self.logps[self.cursor]:+.3f} nats"
        if not self.before:
            return said
        base = self.before[self.cursor]
        return f"{said}, base {base:+.3f}: {self.logps[self.cursor] - base:+.3f}"

    def watch_cursor(self, cursor: int) -> None:
        self.post_message(self.Pointed(self, cursor))

    def action_next(self) -> None:
        """Read the next token."""
        self.cursor = min(self.cursor + 1, max(0, len(self.tokens) - 1))

    def action_previous(self) -> None:
        """Read the token before."""
        self.cursor = max(0, self.cursor - 1)

    def on_focus(self) -> None:
        self.refresh()
        self.post_message(self.Pointed(self, self.cursor))

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        place = event.get_content_offset_capture(self)
        lines = self._lines() if self.tokens else []
        row, start = place.y // 2, 0
        for piece in lines[row] if row < len(lines) else []:
            if start <= place.x < start + len(piece.block):
                self.cursor = piece.index
            start += len(piece.block)
