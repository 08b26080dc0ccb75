"""`orpo-mlx config init`: a file that says everything and changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orpo_mlx.__main__ import main as program
from orpo_mlx.cli.commands.train import parse_train
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.file import load_config, read_settings
from orpo_mlx.config.train_config import iter_settings

REPLACED = {"epochs", "valid_fraction"}
"""By `steps` and `valid_data`, which may not stand beside them."""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert program(["config", "init"]) == 0
    return tmp_path / "orpo-mlx.toml"


def test_the_file_reads_back_as_the_defaults(written: Path):
    assert load_config(written) == TrainConfig()
    command = parse_train(["--config", str(written), "--model", "m", "--data", "d"])
    assert command.config == TrainConfig(model="m", data="d")


def test_every_setting_stands_in_it_once_behind_a_line_that_explains_it(written: Path):
    lines = written.read_text(encoding="utf-8").splitlines()
    values = read_settings(written)
    for setting in iter_settings():
        (at,) = (i for i, line in enumerate(lines) if re.match(rf"(# )?{setting.name} = ", line))
        assert lines[at].startswith("# ") == (setting.name not in values)
        is_comment = setting.default is None or setting.name in REPLACED
        assert is_comment == (setting.name not in values)
        assert lines[at - 1].startswith(f"# {setting.help[:30]}")


def test_a_value_that_is_changed_in_it_is_taken(written: Path):
    text = written.read_text(encoding="utf-8")
    text = text.replace("\nlam = 0.1\n", "\nlam = 0.3\n")
    text = re.sub(r"^# steps = .*$", "steps = 7", text, flags=re.M)
    text = re.sub(r"^# valid_data = .*$", 'valid_data = "v.jsonl"', text, flags=re.M)
    written.write_text(text, encoding="utf-8")
    command = parse_train(["--config", str(written), "--model", "m", "--data", "d"])
    assert (command.config.lam, command.config.steps) == (0.3, 7)
    assert str(command.config.valid_data).endswith("v.jsonl")


def test_nothing_is_ever_replaced(written: Path, capfd: pytest.CaptureFixture[str]):
    written.write_text("mine", encoding="utf-8")
    assert program(["config", "init"]) == 2
    assert written.read_text(encoding="utf-8") == "mine"
    assert "is there already" in capfd.readouterr().err


def test_another_name_is_taken_and_bad_ones_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert program(["config", "init", str(tmp_path / "mine.toml")]) == 0
    assert load_config(tmp_path / "mine.toml") == TrainConfig()
    assert f"--config {tmp_path / 'mine.toml'}" in capfd.readouterr().out
    for words in (["init", str(tmp_path / "none" / "a.toml")], ["init", "\0"], ["make"], []):
        assert program(["config", *words]) == 2
    assert "Traceback" not in capfd.readouterr().err
