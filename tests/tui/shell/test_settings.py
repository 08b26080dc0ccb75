"""Settings survive a restart, damage and newer versions."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from tui.shell.settings import Settings, load_keys, load_settings, save_settings


def test_what_is_saved_is_read_back(tmp_path):
    settings = Settings(theme="nord", charset="ascii", calm=True, smoothing=0.5)
    settings = replace(settings, export_folder='a "b" \\ c\n\x7f\x1b')
    save_settings(settings, tmp_path)
    assert load_settings(tmp_path) == (settings, [])


def test_without_a_file_the_defaults_hold(tmp_path):
    assert load_settings(tmp_path) == (Settings(), [])
    assert load_keys(tmp_path) == ({}, [])


def test_a_key_of_a_newer_version_is_kept(tmp_path):
    text = 'sparkle = 3\ncharset = "blocks"\n"a b" = [1, "x"]\n[tables]\nc = {d = true}\n'
    (tmp_path / "app.toml").write_text(text)
    settings, problems = load_settings(tmp_path)
    assert (settings.charset, problems) == ("blocks", [])
    save_settings(replace(settings, calm=True), tmp_path)
    raw = tomllib.loads((tmp_path / "app.toml").read_text())
    assert (raw["sparkle"], raw["calm"]) == (3, True)
    assert (raw["a b"], raw["tables"]) == ([1, "x"], {"c": {"d": True}})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("theme = 3\n", "theme = 3"),
        ("theme = \n", "not read"),
        ("\x80", "not read"),
        ('theme = "nrod"\n', "theme = 'nrod' is not known (did you mean nord?); using 'auto'"),
        ('charset = "utf"\n', "charset = 'utf' is not known"),
        ("bell = true\nbell = false\n", "not read"),
    ],
)
def test_a_damaged_file_is_told_and_the_app_starts(tmp_path, text, word):
    (tmp_path / "app.toml").write_bytes(text.encode("latin-1"))
    settings, problems = load_settings(tmp_path)
    assert settings == Settings()
    assert word in problems[0]


def test_a_file_that_could_not_be_read_is_kept_when_settings_are_saved(tmp_path):
    (tmp_path / "app.toml").write_text("bell = no\n")
    save_settings(Settings(), tmp_path)
    assert load_settings(tmp_path) == (Settings(), [])
    assert (tmp_path / "app.toml.damaged").read_text() == "bell = no\n"
    save_settings(Settings(bell=False), tmp_path)
    assert (tmp_path / "app.toml.damaged").read_text() == "bell = no\n"


def test_keys_may_stand_in_tables_or_alone(tmp_path):
    (tmp_path / "keys.toml").write_text('"live.stop" = "S"\n[app]\nleave = "Q"\n')
    assert load_keys(tmp_path) == ({"live.stop": "S", "app.leave": "Q"}, [])
