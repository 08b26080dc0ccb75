"""Every theme can be read, whoever made it."""

from __future__ import annotations

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from tui.shell.themes import THEME_NAMES, THEMES, chart_variables, contrast, readable

ALL = {**BUILTIN_THEMES, **{theme.name: theme for theme in THEMES}}
TEXTS = ("primary", "secondary", "accent", "warning", "error", "success")
SERIES = ("series-1", "series-2", "series-3", "series-4")


def variables_of(theme):
    """The style variables of a theme, as the app makes them."""
    charts = chart_variables(theme.dark)
    return {**charts, **theme.to_color_system().generate(), **theme.variables}


def test_contrast_is_that_of_the_standard():
    black, white = Color.parse("#000000"), Color.parse("#FFFFFF")
    assert contrast(black, white) == pytest.approx(21)
    assert contrast(white, white) == 1
    assert contrast(Color.parse("#777777"), white) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", THEME_NAMES)
def test_colours_can_be_read_as_text(name: str):
    variables = readable(variables_of(ALL[name]))
    foreground = Color.parse(variables["foreground"])
    for place in ("background", "surface"):
        ground = Color.parse(variables[place])
        for text in (*TEXTS, *(SERIES if place == "background" else ())):
            assert contrast(Color.parse(variables[text]), ground) >= 4.5, (text, place)
        assert contrast(ground.blend(foreground, 0.7), ground) >= 4.5, place
    assert contrast(foreground, Color.parse(variables["panel"])) >= 4.5
    footer = Color.parse(variables["footer-background"])
    for text in ("footer-key-foreground", "footer-description-foreground"):
        assert contrast(Color.parse(variables[text]), footer) >= 4.5


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_our_own_need_no_help(theme):
    variables = variables_of(theme)
    clear = readable(variables)
    names = (*TEXTS, *SERIES)
    assert [clear[name] for name in names] == [variables[name] for name in names]


def test_a_light_theme_of_textual_would_vanish_without_it():
    variables = variables_of(BUILTIN_THEMES["atom-one-light"])
    ground = Color.parse(variables["background"])
    assert contrast(Color.parse(variables["warning"]), ground) < 2
    assert readable(variables)["warning"] != variables["warning"]


def test_a_theme_in_the_terminals_own_colours_is_left_alone():
    variables = variables_of(BUILTIN_THEMES["ansi-dark"])
    assert readable(variables) == variables
