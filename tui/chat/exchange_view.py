"""A turn of the user and its answers, side by side where there are two."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from orpo_mlx.chat.conversation import ChatSide, Exchange
from orpo_mlx.text.formatting import visible


class ExchangeView(Vertical):
    """One exchange.

    Args:
        exchange: what is shown; `show_answers` shows what has become of it.
        is_ascii: whether the terminal has no more than Latin letters.
    """

    DEFAULT_CSS = """
    ExchangeView { height: auto; margin: 0 0 1 0; }
    ExchangeView .user { height: auto; color: $primary; text-style: bold; }
    ExchangeView.-chosen .user { text-style: bold reverse; }
    ExchangeView .answers { height: auto; }
    ExchangeView .answer {
        width: 1fr; height: auto; padding: 0 1; border-left: solid $foreground 25%;
    }
    ExchangeView .answer.-better { border-left: outer $success; }
    ExchangeView .heading { height: 1; color: $foreground 70%; }
    ExchangeView .text { height: auto; }
    ExchangeView .opinion { height: auto; color: $success; }
    """

    def __init__(self, exchange: Exchange, *, is_ascii: bool = False) -> None:
        super().__init__()
        self.exchange = exchange
        self._mark = "" if is_ascii else "✓ "

    def compose(self) -> ComposeResult:
        yield Static(f"> {visible(self.exchange.user)}", classes="user", markup=False)
        with Horizontal(classes="answers"):
            for side in self.exchange.sides:
                with Vertical(classes="answer", id=side):
                    yield Static("", classes="heading", markup=False)
                    yield Static("", classes="text", markup=False)
        yield Static("", classes="opinion", markup=False)

    def on_mount(self) -> None:
        self.show_answers()

    def show_answers(self) -> None:
        """Show the answers as far as they have come, and what was said of them."""
        if not self.query(".opinion"):
            return  # its parts come later, and show them then
        exchange = self.exchange
        for side in exchange.sides:
            pane = self.query_one(f"#{side}", Vertical)
            pane.set_class(exchange.preferred == side, "-better")
            pane.query_one(".heading", Static).update(self._heading(side))
            pane.query_one(".text", Static).update(visible(exchange.answers.get(side, "")))
        said = f"{self._mark}{exchange.opinion}" if exchange.opinion else ""
        if exchange.correction:
            said += f": {visible(exchange.correction)}"
        opinion = self.query_one(".opinion", Static)
        opinion.update(said)
        opinion.set_class(not said, "-empty")

    def _heading(self, side: ChatSide) -> str:
        exchange = self.exchange
        is_cut = side in exchange.done and exchange.is_cut(side)
        return f"{side}{', cut' if is_cut else ''}"
