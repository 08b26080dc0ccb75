"""Runs are removed after a question, all or none, and never one that is trained."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from orpo_mlx.cli.main import main
from orpo_mlx.config import TrainConfig
from orpo_mlx.runs.directory import RunDirectory, create_run
from orpo_mlx.runs.group.queue import Queue


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDirectory]:
    """Two runs."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))
    places = [tmp_path / "runs" / name for name in ("one", "two")]
    return [create_run(TrainConfig(model="m", data="d", run_dir=str(p))) for p in places]


class Typed(io.StringIO):
    """A terminal on which something is typed."""

    def isatty(self) -> bool:
        return True


def test_they_lie_in_the_trash_or_are_gone(runs: list[RunDirectory], capsys) -> None:
    assert main(["rm", "one", "--yes"]) == 0
    trash = runs[0].path.parent / ".trash"
    assert capsys.readouterr().out == f"one: now in {trash}\n"
    assert (trash / "one" / "config.toml").is_file()
    assert main(["rm", "two", "--yes", "--for-good"]) == 0
    assert [path.name for path in runs[0].path.parent.iterdir()] == [".trash"]


@pytest.mark.parametrize("more", [(), ("--for-good",)], ids=["trash", "for good"])
def test_one_that_the_queue_has_not_finished_is_not_trained_again(
    runs: list[RunDirectory], more: tuple[str, ...]
) -> None:
    queue = Queue(runs[0].path.parent)
    configs = [TrainConfig(model="m", data="d", lam=lam) for lam in (0.1, 0.5)]
    (first, second) = queue.add(configs, [{}, {}])
    create_run(configs[0].model_copy(update={"run_dir": str(first.run.path)}))
    assert main(["rm", first.run.id, "--yes", *more]) == 0
    assert queue.read() == [second]


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 1), ("no\n", 1), ("", 1)])
def test_a_person_is_asked(
    runs: list[RunDirectory], monkeypatch: pytest.MonkeyPatch, capsys, answer: str, code: int
) -> None:
    monkeypatch.setattr("sys.stdin", Typed(answer))
    monkeypatch.setattr("orpo_mlx.cli.runs.rm.is_terminal", lambda stream: True)
    assert main(["rm", "one"]) == code
    assert str(runs[0].path) in capsys.readouterr().out
    assert runs[0].path.exists() == bool(code)


def test_without_a_terminal_nothing_is_removed_unasked(runs: list[RunDirectory], capsys) -> None:
    assert main(["rm", "one"]) == 2
    assert "Give --yes." in capsys.readouterr().err
    assert runs[0].path.exists()


def test_one_that_cannot_go_keeps_all_of_them(runs: list[RunDirectory], capsys) -> None:
    with runs[1].lock():
        assert main(["rm", "one", "two", "--yes"]) == 2
    assert "two is being trained" in capsys.readouterr().err
    assert main(["rm", "one", "three", "--yes"]) == 2
    link = runs[0].path.parent / "link"
    link.symlink_to(runs[0].path)
    assert main(["rm", "two", "link", "--yes", "--for-good"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert all(run.config_file.is_file() for run in runs)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, runs: list[RunDirectory]) -> None:
    (tmp_path / "photos").mkdir()
    assert main(["rm", str(tmp_path / "photos"), "--yes", "--for-good"]) == 2
    assert (tmp_path / "photos").is_dir()
