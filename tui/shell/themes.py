"""Colours that stay apart for every kind of sight.

Four series colours per theme; any two differ by at least 35 (CIE76) in normal, protan, deutan and
tritan vision, and each has a contrast of at least 4.4 to its background. Chosen is always the
first, rejected the second. Nothing is said by colour alone: lines also have letters, states words.
"""

from __future__ import annotations

from collections.abc import Mapping

from textual.color import BLACK, WHITE, Color
from textual.theme import BUILTIN_THEMES, Theme

DARK_SERIES = ("#56B4E9", "#E69F00", "#E1E1C1", "#A851FF")
LIGHT_SERIES = ("#0060A8", "#9A5200", "#303030", "#7F13EB")


def chart_variables(dark: bool) -> dict[str, str]:
    """Return the style variables of charts: $series-1 to -4, and dimmer $band-1 to -4."""
    series = DARK_SERIES if dark else LIGHT_SERIES
    ground = Color.parse("#121212" if dark else "#E0E0E0")
    variables = {}
    for number, colour in enumerate(series, start=1):
        variables[f"series-{number}"] = colour
        variables[f"band-{number}"] = Color.parse(colour).blend(ground, 0.35).hex
    return variables


ORPO_DARK = Theme(
    name="orpo-dark",
    primary="#56B4E9",
    secondary="#A851FF",
    accent="#E69F00",
    warning="#E69F00",
    error="#FF6E67",
    success="#56B4E9",
    foreground="#E0E0E0",
    background="#121212",
    surface="#1A1A1A",
    panel="#242B31",
    dark=True,
    variables={"footer-key-foreground": "#E69F00", **chart_variables(True)},
)

ORPO_LIGHT = Theme(
    name="orpo-light",
    primary="#0060A8",
    secondary="#7F13EB",
    accent="#9A5200",
    warning="#8A4A00",
    error="#A01010",
    success="#0060A8",
    foreground="#1A1A1A",
    background="#E0E0E0",
    surface="#D8D8D8",
    panel="#CBD0D4",
    dark=False,
    variables={"footer-key-foreground": "#0060A8", **chart_variables(False)},
)

THEMES = (ORPO_DARK, ORPO_LIGHT)

# Textual's ansi themes have no background of their own that colours could be measured against.
THEME_NAMES = (
    *(theme.name for theme in THEMES),
    *(name for name in BUILTIN_THEMES if not name.startswith("ansi")),
)
"""Themes that can be chosen: two of our own, and Textual's."""

_TEXT_COLOURS = ("primary", "secondary", "accent", "warning", "error", "success")
_OTHER_PLACES = {"footer-key-foreground": "footer-background"}
"""Colours that stand on another ground than the background."""
_LEAST_CONTRAST = 4.4


def readable(variables: Mapping[str, str]) -> dict[str, str]:
    """Return style variables whose colours can be read as text on the background.

    Textual's themes mean them for buttons, too; as text some, light ones above all, would vanish.
    """
    if Color.parse(variables["background"]).ansi is not None:
        return dict(variables)
    places = {**dict.fromkeys(_TEXT_COLOURS, "background"), **_OTHER_PLACES}
    clear = {
        name: _clear(variables[name], Color.parse(variables[ground]))
        for name, ground in places.items()
    }
    return {**variables, **clear}


def _clear(text: str, ground: Color) -> str:
    """Return a colour, moved towards black or white as far as it must be to be read."""
    colour, step = Color.parse(text), 0.0
    end = BLACK if contrast(BLACK, ground) > contrast(WHITE, ground) else WHITE
    while contrast(colour.blend(end, step), ground) < _LEAST_CONTRAST and step < 1:
        step += 0.05
    return colour.blend(end, step).hex if step else text


def contrast(one: Color, other: Color) -> float:
    """Return the contrast of two colours as WCAG defines it, 1 to 21."""
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Color) -> float:
    parts = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in (colour.r / 255, colour.g / 255, colour.b / 255)
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
