"""Keys of the user's: what cannot be used is said, and nothing loses its key."""

from __future__ import annotations

import pytest

from tui.shell.commands import AREAS
from tui.shell.keymap import keymap_from


def test_the_keymap_takes_known_ids_and_tells_of_the_rest():
    keymap, problems = keymap_from({"live.stop": "S", "live.stopp": "x", "live.pause": 3})
    assert keymap == {"live.stop": "S"}
    assert len(problems) == 2
    assert "'live.stopp'" in problems[0]
    assert "live.stop" in problems[0].split("'live.stopp'")[1]


def key_of(command_id: str) -> str:
    area = command_id.split(".")[0]
    return next(one.key for one in AREAS[area] if one.id == command_id).split(",")[0]


def test_a_key_that_has_a_command_already_is_refused_by_name():
    taken = key_of("live.pause")
    keymap, problems = keymap_from({"live.stop": taken})
    assert keymap == {}
    assert problems == [f"keys.toml: live.stop keeps its key: {taken} is the key of live.pause"]


def test_a_key_of_the_whole_app_is_refused_on_a_screen_too():
    assert keymap_from({"live.stop": "?"})[1] == [
        "keys.toml: live.stop keeps its key: ? is the key of app.help"
    ]


def test_a_key_of_the_whole_app_may_be_one_of_some_screen():
    assert keymap_from({"app.help": "f2"}) == ({"app.help": "f2"}, [])


def test_two_commands_may_swap_their_keys():
    swapped = {"live.stop": key_of("live.pause"), "live.pause": key_of("live.stop")}
    assert keymap_from(swapped) == (swapped, [])


def test_one_key_given_twice_is_given_once():
    keymap, problems = keymap_from({"live.stop": "Z", "live.pause": "Z"})
    assert len(keymap) == len(problems) == 1


def test_an_f_key_may_be_written_as_help_shows_it():
    assert keymap_from({"app.doctor": "F9, D"}) == ({"app.doctor": "f9, D"}, [])


@pytest.mark.parametrize("key", ["cmd+k", "ctrl+ü", "Foo", "ctrl+", "a b"])
def test_what_is_no_key_is_refused(key: str):
    keymap, problems = keymap_from({"live.stop": key})
    assert keymap == {}
    assert repr(key) in problems[0]


@pytest.mark.parametrize("key", ["Z", "f11", "ctrl+k", "!", "pageup", "shift+tab", "Q,ctrl+x"])
def test_what_is_a_key_is_taken(key: str):
    assert keymap_from({"live.stop": key}) == ({"live.stop": key}, [])
