"""Settings with several values: the runs they make, and what is refused before a file is."""

from __future__ import annotations

from pathlib import Path

import pytest

from orpo_mlx.cli.commands.train import parse_train
from orpo_mlx.cli.main import main
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.group.sweep import changes_text, combinations, parse_sweeps

NEEDED = ["--model", "m", "--data", "d.jsonl"]


def test_two_settings_make_a_grid() -> None:
    sweeps = parse_sweeps(["lam=0.1,0.5", "learning-rate=1e-5, 5e-5,1e-4"])
    assert sweeps == {"lam": ["0.1", "0.5"], "learning_rate": ["1e-5", "5e-5", "1e-4"]}
    grid = combinations(sweeps)
    assert len(grid) == 6
    assert grid[1] == {"lam": "0.1", "learning_rate": "5e-5"}
    assert changes_text(grid[5]) == "lam 0.5, learning rate 1e-4"


def test_each_run_has_its_own_values_over_all_other_settings() -> None:
    command = parse_train(
        [*NEEDED, "--sweep", "lam=0.1,0.5", "--sweep", "steps=3,9", "--rank", "4"]
    )
    found = [(run.config.lam, run.config.steps, run.config.rank) for run in command.sweep]
    assert found == [(0.1, 3, 4), (0.1, 9, 4), (0.5, 3, 4), (0.5, 9, 4)]


def test_a_swept_setting_replaces_its_sibling(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('model = "m"\ndata = "d"\nepochs = 2\n')
    command = parse_train(["--config", str(file), "--sweep", "steps=3,9"])
    assert [run.config.steps for run in command.sweep] == [3, 9]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lam=0.1,x"], "--sweep lam (lam x): found 'x', needs a number at least 0"),
        (["lma=1,2"], "there is no such setting; did you mean"),
        (["lam=0.1,0.10"], "lam 0.1 and lam 0.10 are the same run"),
        (["lam=0.1,0.1"], "has 0.1 twice"),
        (["lam=0.1,,2"], "a value is missing"),
        (["lam"], "a value is missing"),
        (["lam="], "a value is missing"),
        (["lam=1", "lam=2"], "--sweep lam: given twice"),
        (["data=a,b"], "cannot be swept"),
        (["target-modules=q_proj,v_proj"], "cannot be swept"),
        (["run-dir=a,b"], "cannot be swept"),
        (["seed=1,2,3,4,5", "lam=1,2,3,4,5"], "makes 25 runs, needs at most 24"),
        (["rslora=true,false"], "--rslora: needs --alpha"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], said: str) -> None:
    given = [part for word in words for part in ("--sweep", word)]
    with pytest.raises(ConfigError) as caught:
        parse_train([*NEEDED, *given])
    assert said in caught.value.message


@pytest.mark.parametrize("more", [["--lam", "3"], ["--run-dir", "x"], ["--show-config"]])
def test_what_a_sweep_leaves_no_room_for_is_refused(more: list[str]) -> None:
    with pytest.raises(ConfigError, match="give only one of both"):
        parse_train([*NEEDED, "--sweep", "lam=1,2", *more])


def test_a_run_that_cannot_be_trained_keeps_all_of_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))
    words = ["train", "--demo", "--sweep", "num-layers=2,99"]
    assert main(words) == 2
    assert "num layers 99: --num-layers 99: this model has" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_plans_all_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))
    assert main(["train", "--demo", "--sweep", "lam=0.1,0.5", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  lam 0.1: ")
    assert lines[0].endswith("200 pairs")
    assert lines[2] == "dry run: 2 runs would follow; nothing was written"
    assert not (tmp_path / "runs").exists()
