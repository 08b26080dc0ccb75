"""A run like another: its settings, never its place; what was said of replaced things goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orpo_mlx.cli.commands.train import parse_train
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import ConfigError, OrpoError, RunError
from orpo_mlx.runs.directory import RunDirectory, create_run
from orpo_mlx.runs.group.like import starts_of


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run of settings unlike the defaults, with its data, an adapter and two checkpoints."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))
    for name in ("pairs.jsonl", "held.jsonl"):
        (tmp_path / name).write_text("{}\n")
    config = TrainConfig(
        model="org/model", revision="abc", data=str(tmp_path / "pairs.jsonl"), rank=16, lam=0.4,
        valid_data=str(tmp_path / "held.jsonl"), map={"prompt": "q"}, steps=7, learning_rate=3e-5,
    )  # fmt: skip
    made = create_run(config)
    folders = [made.adapter_folder, *(made.checkpoints_folder / n for n in ("0000005", "0000010"))]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text("{}")
    return made


def like(run: RunDirectory, *words: str) -> TrainConfig:
    return parse_train(["--like", run.id, *words]).config


def refusal(run: RunDirectory, *words: str) -> str:
    with pytest.raises(OrpoError) as caught:
        like(run, *words)
    return str(caught.value)


def test_all_settings_are_those_of_the_run_but_for_the_flags(run: RunDirectory) -> None:
    assert like(run) == run.read_config()
    assert like(run, "--lam", "0.3") == run.read_config().model_copy(update={"lam": 0.3})
    command = parse_train(["--like", run.id, "--lam", "0.3"])
    assert (command.origins["rank"], command.origins["lam"]) == (f"--like {run.id}", "--lam")
    assert command.resume is None


def test_where_the_run_lies_is_not_taken_over(run: RunDirectory, tmp_path: Path) -> None:
    text = run.config_file.read_text() + f'run_dir = "{tmp_path / "x"}"\nruns_dir = "{tmp_path}"\n'
    run.config_file.write_text(text)
    assert (like(run).run_dir, like(run).runs_dir) == (None, None)


def test_what_was_said_of_replaced_things_is_left_out(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text("{}\n")
    other = like(run, "--data", str(tmp_path / "other.jsonl"))
    assert (other.map, other.valid_data) == (None, None)
    assert like(run, "--model", "org/other").revision is None
    assert like(run, "--epochs", "2").steps is None
    dpo = like(run, "--objective", "dpo")
    assert (dpo.objective, dpo.lam, dpo.rank) == ("dpo", 0.1, 16)
    assert dpo.learning_rate == 3e-5, "chosen on purpose"


def test_the_usual_rate_of_one_objective_is_not_handed_to_another(run: RunDirectory) -> None:
    text = run.config_file.read_text().replace("learning_rate = 3e-05", "learning_rate = 5e-05")
    run.config_file.write_text(text)
    assert like(run, "--objective", "dpo").learning_rate == 1e-5


@pytest.mark.parametrize(
    ("word", "place"), [("adapter", "adapter"), ("last", "0000010"), ("5", "0000005")]
)
def test_it_may_begin_with_an_adapter_of_the_run(run: RunDirectory, word: str, place: str) -> None:
    config = like(run, "--from", word, "--lam", "0.2")
    assert Path(config.init_adapter or "").name == place
    assert Path(config.init_adapter or "").is_dir()
    assert (config.rank, config.lam) == (8, 0.2), "rank is the adapter's own"


def test_what_there_is_not_is_refused_with_what_there_is(run: RunDirectory) -> None:
    assert list(starts_of(run)) == ["adapter", "10", "5"]
    assert "no checkpoint of this step\nIt has: adapter, 10, 5." in refusal(run, "--from", "6")
    assert "found 'best', needs adapter, last, or" in refusal(run, "--from", "best")
    bare = create_run(TrainConfig(model="m", data="d"))
    with pytest.raises(RunError, match=r"has no checkpoint\nLeave out --from"):
        like(bare, "--from", "last")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "a.toml"], "--like and --config: give only one of both"),
        (["--demo"], "--like and --demo"),
        (["--resume", "x"], "--like and --resume"),
        (["--from", "last", "--init-adapter", "x"], "--from last and --init-adapter"),
    ],
)
def test_two_origins_are_refused(run: RunDirectory, words: list[str], said: str) -> None:
    assert said in refusal(run, *words)


def test_from_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="--from last: which run's"):
        parse_train(["--from", "last"])


def test_files_that_are_gone_are_named_unless_others_are_given(
    run: RunDirectory, tmp_path: Path
) -> None:
    (tmp_path / "held.jsonl").rename(tmp_path / "elsewhere.jsonl")
    said = refusal(run)
    assert f"run {run.id}: --valid-data {tmp_path}/held.jsonl: is not there any more" in said
    assert "give another one with --valid-data." in said
    assert like(run, "--valid-data", str(tmp_path / "elsewhere.jsonl")).rank == 16
