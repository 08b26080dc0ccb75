"""Fields below each other, gone through with up and down; what is chosen from opens on enter."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Select

Value = TypeVar("Value")

_UP_AND_DOWN: list[BindingType] = [
    Binding("down", "app.focus_next", "Next field", show=False),
    Binding("up", "app.focus_previous", "Field before", show=False),
]


class Form(VerticalScroll, can_focus=False):
    """Scrolls with the field that has the focus, as Tab does."""

    BINDINGS: ClassVar[list[BindingType]] = _UP_AND_DOWN


class OneOf(Select[Value], inherit_bindings=False):
    """A field with few values: Textual's opens on up and down, too, which traps who walks by."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "show_overlay", "Choose", show=False),
        *_UP_AND_DOWN,
    ]
