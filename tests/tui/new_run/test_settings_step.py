"""What the form says of a setting."""

from __future__ import annotations

import textwrap

import pytest

from tui.new_run.draft import SETTINGS, Draft, value_text
from tui.new_run.presets import ELSEWHERE, PRESETS
from tui.new_run.setting_text import EXPLANATION_ROWS, command_text, explanation, preset_text

IN_THE_FORM = [name for name in SETTINGS if name not in ELSEWHERE]


@pytest.mark.parametrize("width", [78, 118])
@pytest.mark.parametrize("name", IN_THE_FORM)
def test_every_setting_explains_itself_in_the_room_there_is(name: str, width: int):
    setting = SETTINGS[name]
    told = explanation(setting, Draft(), width)
    rows = [
        row
        for line in told.split("\n")
        for row in textwrap.wrap(line, width, break_on_hyphens=False)
    ]
    assert len(rows) <= EXPLANATION_ROWS
    said = " ".join(rows)
    for what, text in setting.effects.items():
        assert f"{what.capitalize()}: {text}." in said
    for part in (setting.help, setting.flag, setting.usual, f"({setting.unit})"):
        assert part in said or part == "()"


def test_an_explanation_names_range_usual_values_default_and_where_the_value_is_from():
    text = explanation(SETTINGS["lam"], Draft({"lam": "0.2"}))
    assert text.split("\n")[1:] == [
        "Quality: higher parts chosen and rejected faster and can hurt fluency.",
        "Usual: 0.1 to 0.25 as in the paper; up to 0.5 below about 1B parameters. "
        "A number at least 0; default 0.1; now yours. --lam",
    ]
    assert "; now from the preset. --steps" in explanation(SETTINGS["steps"], Draft({}, "quick"))
    assert "Default off; now the default. --trunk-cache" in explanation(
        SETTINGS["trunk_cache"], Draft()
    )


def test_effects_have_a_line_each_where_there_is_room():
    assert "\nSpeed: " in explanation(SETTINGS["grad_checkpoint"], Draft(), 160)
    assert ". Speed: " in explanation(SETTINGS["rank"], Draft(), 60)


@pytest.mark.parametrize("width", [56, 78, 118])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_tells_all_that_it_changes_in_the_room_there_is(name, width):
    lines = preset_text(name, width).split("\n")
    wrapped = [part for line in lines for part in textwrap.wrap(line, width)]
    assert len(wrapped) <= EXPLANATION_ROWS + (width < 78)
    for setting, value in PRESETS[name].values.items():
        assert f"{setting} {value_text(value)}" in preset_text(name, width)


def test_a_command_that_is_cut_says_so():
    assert command_text("orpo-mlx train --rank 8", 78, 2) == (
        "Same as (^y copies): orpo-mlx train --rank 8"
    )
    first, second = command_text("orpo-mlx train " + "--rank 8 " * 30, 60, 2).split("\n")
    assert len(first) <= 60
    assert second.endswith(" ...")
