"""Colours that stay apart for every kind of sight.

Four series colours per theme; any two differ by at least 35 (CIE76) in normal, protan, deutan and
tritan vision. In every theme each colour has the contrast that WCAG asks of text on each ground it
stands on. Chosen is always the first, rejected the second. Nothing is said by colour alone: lines
also have letters, states words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.color import BLACK, WHITE, Color
from textual.theme import BUILTIN_THEMES, Theme

DARK_SERIES = ("#56B4E9", "#E69F00", "#E1E1C1", "#8B6CFF")
LIGHT_SERIES = ("#0060A8", "#924D00", "#303030", "#7F13EB")


def chart_variables(dark: bool) -> dict[str, str]:
    """Return the style variables of charts: $series-1 to -4, and dimmer $band-1 to -4."""
    series = DARK_SERIES if dark else LIGHT_SERIES
    ground = Color.parse("#121212" if dark else "#F6F6F6")
    variables = {}
    for number, colour in enumerate(series, start=1):
        variables[f"series-{number}"] = colour
        variables[f"band-{number}"] = Color.parse(colour).blend(ground, 0.35).hex
    return variables


ORPO_DARK = Theme(
    name="orpo-dark",
    primary="#56B4E9",
    secondary="#A98FFF",
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
    accent="#914D00",
    warning="#8A4A00",
    error="#A01010",
    success="#0060A8",
    foreground="#1A1A1A",
    background="#F6F6F6",
    surface="#EFEFEF",
    panel="#DFE4E8",
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

_SERIES = tuple(f"series-{number}" for number in range(1, 5))
_COLOURS = ("primary", "secondary", "accent", "warning", "error", "success")
_FOOTER = ("footer-foreground", "footer-key-foreground", "footer-description-foreground")
_LEAST_CONTRAST = 4.5
"""WCAG 2, level AA, of text."""
_QUIET = 0.7
"""Share of the foreground in the palest text."""
_TINT, _CHART_TINT = 0.1, 0.06
"""Share of the foreground in the ground of what has the focus; series stand in charts alone."""


def readable(variables: Mapping[str, str]) -> dict[str, str]:
    """Return style variables whose colours can be read as text, wherever they stand.

    Textual's themes mean them for buttons, too; as text some, light ones above all, would vanish.
    """
    if Color.parse(variables["background"]).ansi is not None:
        return dict(variables)
    written = Color.parse(variables["foreground"])
    panel = [Color.parse(variables["panel"])]
    plain = [Color.parse(variables[name]) for name in ("background", "surface")]
    grounds = [*plain, *(ground.blend(written, _TINT) for ground in plain)]
    clear = dict.fromkeys(
        (name for name, value in variables.items() if value == variables["foreground"]),
        _clear(_clear(written, grounds, _QUIET), panel).hex,
    )
    clear |= {name: _clear(Color.parse(variables[name]), grounds).hex for name in _COLOURS}
    chart = [plain[0], plain[0].blend(written, _CHART_TINT)]
    clear |= {name: _clear(Color.parse(variables[name]), chart).hex for name in _SERIES}
    footer = [Color.parse(variables["footer-background"])]
    for name in _FOOTER:
        clear[name] = _clear(Color.parse(clear.get(name, variables[name])), footer).hex
    clear["block-cursor-background"] = clear["primary"]
    clear["block-cursor-foreground"] = variables["background"]
    return {**variables, **clear}


def _clear(text: Color, grounds: Sequence[Color], share: float = 1.0) -> Color:
    """Return a colour, moved towards black or white as far as it must be to be read.

    Args:
        grounds: what it stands on.
        share: how much of it text has, the rest being the ground.
    """
    end = BLACK if contrast(BLACK, grounds[0]) > contrast(WHITE, grounds[0]) else WHITE
    for step in range(21):
        moved = text.blend(end, step / 20)
        if all(contrast(one.blend(moved, share), one) >= _LEAST_CONTRAST for one in grounds):
            return moved
    return end


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
