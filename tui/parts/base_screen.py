"""What all screens share: a title, a footer, a sentence that says what is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar, cast

from textual import events, messages
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from tui.parts.harmless import plain
from tui.parts.key_footer import KeyFooter
from tui.parts.title_bar import TitleBar
from tui.parts.too_small import TooSmall
from tui.shell.host import Host

_LOW = 20
"""Rows below which even a short window's layout has no room for all its parts."""


AnyWidget = TypeVar("AnyWidget", bound=Widget)


def pane(widget: AnyWidget, title: str) -> AnyWidget:
    """Return the widget as a pane; app.tcss draws its frame, in one colour where the focus is.

    Args:
        widget: of any kind, a container or something to look at.
        title: for people.
    """
    widget.border_title = plain(title)
    widget.add_class("pane")
    return widget


class AppScreen(Screen[None]):
    """A full screen of the app.

    A subclass sets `AREA` (of `tui.shell.commands`), `HELP`, `BINDINGS = bindings(AREA, "screen")`,
    and gives `compose_body` and `sentence`.
    """

    AREA: ClassVar[str] = "screen"
    """Area of its commands."""

    HELP: ClassVar[str | None] = None
    """What the screen is for, a few sentences; shown by ? above its keys."""

    TITLE = "orpo-mlx"

    _is_leaving = False

    @property
    def orpo(self) -> Host:
        """The app, as far as screens know it."""
        return cast(Host, self.app)

    @property
    def is_open(self) -> bool:
        """Whether its parts are there: a worker may bring news while a screen is being left."""
        return self.is_mounted and not self._is_leaving and self in self.app.screen_stack

    async def on_prune(self, event: messages.Prune) -> None:
        """End its work while all its parts are there.

        Textual ends a widget's workers after its children are gone: news between would find none.
        """
        self._is_leaving = True
        for widget in self.walk_children(with_self=True):
            self.workers.cancel_node(widget)

    def compose(self) -> ComposeResult:
        self._set_size_classes()
        yield TitleBar(self.TITLE or "", id="title")
        yield from self.compose_body()
        yield TooSmall()
        yield KeyFooter()

    def compose_body(self) -> Iterable[Widget]:
        """Yield what stands between title and footer."""
        raise NotImplementedError

    def sentence(self) -> str:
        """Return what the screen shows, in one sentence of plain text."""
        raise NotImplementedError

    @property
    def shown_run(self) -> Path | None:
        """The run whose course the screen shows as it happens, None for none."""
        return None

    def begin_text(self, event: events.Key | events.Paste) -> None:
        """Move the focus to the field that takes what is typed while something else has it.

        The app calls this before it hands the event on, so that typed fast no letter is lost.
        """

    def lets_wait(self, event: events.Key | events.Paste) -> bool:
        """Tell whether a key has to wait for a question; `Released` of its answer lets it go on."""
        return False

    def tell_saved(self, subject: str, folder: Path, write: Callable[[], Sequence[Path]]) -> None:
        """Write files into a folder and say which, or why not.

        Args:
            subject: begins the sentence of a failure: "The charts were".
            folder: where `write` puts the files it returns.
        """
        try:
            paths = write()
        except OSError as error:  # a full disk names no file
            text = f"{subject} not saved. {error.filename or folder}: {error.strerror}"
            self.notify(text, severity="error", markup=False)
            return
        names = ", ".join(path.name for path in paths)
        self.notify(f"{names} in {folder}", title="Saved", timeout=8, markup=False)

    def _set_size_classes(self) -> None:
        # Textual sets these with the first resize, one frame after the first: what a narrow
        # window has no room for would flash up.
        size = self.app.size
        for names, cells in (
            (self.app.HORIZONTAL_BREAKPOINTS, size.width),
            (self.app.VERTICAL_BREAKPOINTS, size.height),
        ):
            fitting = [name for least, name in names or () if cells >= least]
            self.add_class(*fitting[-1:])
        self.set_class(size.height < _LOW, "-low")

    def on_resize(self) -> None:
        self.set_class(self.app.size.height < _LOW, "-low")
        self._show_small()

    def _show_small(self) -> None:
        """Keep what a window that is too small shows up to date."""
        self.query_one(TooSmall).sentence = self.sentence()

    def action_back(self) -> None:
        """Leave the screen; the first one stays."""
        if len(self.app.screen_stack) > 2:
            self.app.pop_screen()
