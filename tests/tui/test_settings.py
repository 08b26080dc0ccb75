"""Settings survive a restart, damage and newer versions."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from tui.settings import Settings, load_keys, load_settings, save_settings


def test_what_is_saved_is_read_back(tmp_path):
    settings = Settings(theme='a "b" \\ c', charset="ascii", calm=True, smoothing=0.5)
    save_settings(settings, tmp_path)
    assert load_settings(tmp_path) == (settings, [])


def test_without_a_file_the_defaults_hold(tmp_path):
    assert load_settings(tmp_path) == (Settings(), [])
    assert load_keys(tmp_path) == ({}, [])


def test_a_key_of_a_newer_version_is_kept(tmp_path):
    (tmp_path / "app.toml").write_text('sparkle = 3\ncharset = "blocks"\n')
    settings, problems = load_settings(tmp_path)
    assert (settings.charset, problems) == ("blocks", [])
    save_settings(replace(settings, calm=True), tmp_path)
    raw = tomllib.loads((tmp_path / "app.toml").read_text())
    assert (raw["sparkle"], raw["calm"]) == (3, True)


@pytest.mark.parametrize(
    ("text", "word"),
    [("theme = 3\n", "theme = 3"), ("theme = \n", "not read"), ("\x80", "not read")],
)
def test_a_damaged_file_is_told_and_the_app_starts(tmp_path, text, word):
    (tmp_path / "app.toml").write_bytes(text.encode("latin-1"))
    settings, problems = load_settings(tmp_path)
    assert settings == Settings()
    assert word in problems[0]


def test_keys_may_stand_in_tables_or_alone(tmp_path):
    (tmp_path / "keys.toml").write_text('"live.stop" = "S"\n[app]\nleave = "Q"\n')
    assert load_keys(tmp_path) == ({"live.stop": "S", "app.leave": "Q"}, [])
