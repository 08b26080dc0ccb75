"""Every theme can be read, whoever made it."""

from __future__ import annotations

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from tui.shell.themes import THEME_NAMES, THEMES, contrast, readable

ALL = {**BUILTIN_THEMES, **{theme.name: theme for theme in THEMES}}
TEXTS = ("primary", "secondary", "accent", "warning", "error", "success")


def variables_of(theme):
    """The style variables of a theme, as the app makes them."""
    return {**theme.to_color_system().generate(), **theme.variables}


def test_contrast_is_that_of_the_standard():
    black, white = Color.parse("#000000"), Color.parse("#FFFFFF")
    assert contrast(black, white) == pytest.approx(21)
    assert contrast(white, white) == 1
    assert contrast(Color.parse("#777777"), white) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", THEME_NAMES)
def test_colours_can_be_read_as_text(name: str):
    variables = readable(variables_of(ALL[name]))
    ground = Color.parse(variables["background"])
    for text in TEXTS:
        assert contrast(Color.parse(variables[text]), ground) >= 4.4, text
    footer = Color.parse(variables["footer-background"])
    assert contrast(Color.parse(variables["footer-key-foreground"]), footer) >= 4.4


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_our_own_need_no_help(theme):
    variables = variables_of(theme)
    clear = readable(variables)
    assert [clear[name] for name in TEXTS] == [variables[name] for name in TEXTS]


def test_a_light_theme_of_textual_would_vanish_without_it():
    variables = BUILTIN_THEMES["atom-one-light"].to_color_system().generate()
    ground = Color.parse(variables["background"])
    assert contrast(Color.parse(variables["warning"]), ground) < 2
    assert readable(variables)["warning"] != variables["warning"]


def test_a_theme_in_the_terminals_own_colours_is_left_alone():
    variables = BUILTIN_THEMES["ansi-dark"].to_color_system().generate()
    assert readable(variables) == variables
