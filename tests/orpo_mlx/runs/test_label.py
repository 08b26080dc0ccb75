"""What a person says about a run is kept, found, and never believed blindly."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orpo_mlx.cli.main import main
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.directory import RunDirectory, create_run
from orpo_mlx.runs.label import FILE, RunLabel, parse_tags, read_label, write_label
from orpo_mlx.runs.listing import list_runs
from tui.home.run_list import RunList, row_of


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run where all runs are."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))
    config = TrainConfig(model="m", data="d", run_dir=str(tmp_path / "runs" / "one"))
    return create_run(config)


def test_it_comes_back_as_it_was_said_and_leaves_the_settings_alone(run: RunDirectory) -> None:
    before = run.config_file.read_bytes()
    label = RunLabel("Erster Versuch ü", ("poems", "lam=0.3"), "two\nlines\t\x1b[31m")
    write_label(run.path, label)
    assert read_label(run.path) == label
    assert list_runs()[0].label == label
    assert run.config_file.read_bytes() == before
    write_label(run.path, RunLabel())
    assert not (run.path / FILE).exists()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '"name"', '{"name": 7, "tags": {"a": 1}, "note": []}', "\x00", "{",
        '{"tags": [1, null, ["a"], "two words", "' + "x" * 99 + '", "\\u001b[31m"]}',
        json.dumps({"note": "x" * 70_000}),
    ],
)  # fmt: skip
def test_a_hostile_file_says_nothing_and_breaks_nothing(run: RunDirectory, text: str) -> None:
    (run.path / FILE).write_text(text)
    assert read_label(run.path) == RunLabel()
    assert [row.id for row in list_runs()] == ["one"]
    assert [row.id for row in RunList(None).read()] == ["one"]


def test_a_pipe_in_its_place_keeps_nobody_waiting(run: RunDirectory) -> None:
    os.mkfifo(run.path / FILE)
    assert read_label(run.path) == RunLabel()


def test_what_is_too_long_is_cut_on_reading(run: RunDirectory) -> None:
    raw = {"name": "a\nb" + "c" * 99, "tags": [f"t{n}" for n in range(40)], "note": "n" * 9000}
    (run.path / FILE).write_text(json.dumps(raw))
    found = read_label(run.path)
    assert found.name == "a b" + "c" * 57
    assert (len(found.tags), len(found.note)) == (16, 4000)


@pytest.mark.parametrize(
    "label",
    [
        RunLabel("x" * 61), RunLabel("two\nlines"), RunLabel(tags=("two words",)),
        RunLabel(tags=("x" * 33,)), RunLabel(tags=tuple(f"t{n}" for n in range(17))),
        RunLabel(note="n" * 4001),
    ],
)  # fmt: skip
def test_what_would_not_come_back_is_refused(run: RunDirectory, label: RunLabel) -> None:
    with pytest.raises(ConfigError):
        write_label(run.path, label)
    assert not (run.path / FILE).exists()


def test_tags_are_words_however_they_are_parted() -> None:
    assert parse_tags(" #a, b\tc,,#a ") == ("a", "b", "c")


def test_the_command_says_shows_and_takes_back(run: RunDirectory, capsys) -> None:
    assert (
        main(["note", "one", "late\x1b[31m", "--name", "First", "--tag", "a", "--tag", "#b"]) == 0
    )
    assert capsys.readouterr().out == "one: First #a #b\nlate\\x1b[31m\n"
    assert main(["note", "one", "--untag", "a"]) == 0
    assert read_label(run.path) == RunLabel("First", ("b",), "late\x1b[31m")
    assert main(["note", "one", "", "--name", ""]) == 0
    assert read_label(run.path) == RunLabel(tags=("b",))
    assert main(["note", "one", "--tag", "two words"]) == 2
    assert main(["note", "nope"]) == 2


def test_the_list_is_filtered_by_tags(run: RunDirectory, tmp_path: Path, capsys) -> None:
    create_run(TrainConfig(model="m", data="d", run_dir=str(tmp_path / "runs" / "two")))
    write_label(run.path, RunLabel("First", ("a", "b")))
    assert main(["runs", "--tag", "A", "--tag", "b", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["name"], row["tags"], row["note"]) == ("one", "First", ["a", "b"], "")
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "LABEL"
    assert [line for line in lines if line.endswith("First #a #b")]
    assert main(["runs", "--tag", "c"]) == 0
    assert capsys.readouterr().out == "No run has the tag c.\n"


def test_the_filter_of_the_app_finds_it(run: RunDirectory) -> None:
    runs = RunList(None)
    assert not row_of(runs.read()[0], 0).matches("poems")
    write_label(run.path, RunLabel("First", ("poems",), "fell late"))
    row = row_of(runs.read()[0], 0)
    assert row.matches("poems late first")
