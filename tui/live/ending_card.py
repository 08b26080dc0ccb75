"""The card of a run that has ended: what happened, what to do."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from tui.run.ending import Card
from tui.shell.names import shortened


class EndingCard(Static):
    """Hidden while there is nothing to say."""

    DEFAULT_CSS = """
    EndingCard {
        display: none;
        height: auto;
        max-height: 9;
        padding: 0 1;
        border-left: outer $primary;
        background: $surface;
        &.-shown { display: block; }
        &.-bad { border-left: outer $error; }
    }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)
        self.card: Card | None = None

    def show(self, card: Card | None) -> None:
        """Show a card, or none."""
        if card == self.card:
            return
        self.card = card
        self.set_class(card is not None, "-shown")
        if card is not None:
            self.set_class(card.is_bad, "-bad")
            lines = [f" {card.cause}", card.remedy]
            if card.details:
                words = [shortened(line, self.app.size.width - 6) for line in card.details[-2:]]
                lines += [f"Its last words ({card.words_in} has all):", *words]
            text = Content(f"{card.title}.").stylize("bold").append("\n".join(lines))
            self.update(text)
