"""A part of a screen with its name: framed where there is room, else a line with the name."""

from __future__ import annotations

from typing import TypeVar

from textual.widget import Widget

AnyWidget = TypeVar("AnyWidget", bound=Widget)


def pane(widget: AnyWidget, title: str) -> AnyWidget:
    """Return the widget as a pane; app.tcss draws its frame, in one colour where the focus is.

    Args:
        widget: of any kind, a container or something to look at.
        title: for people, markup is read; not for text from outside.
    """
    widget.border_title = title
    widget.add_class("pane")
    return widget
