"""Room on the disk: sizes against real checkpoints, refusals and warnings before a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orpo_mlx.adapters.lora import count_parameters
from orpo_mlx.config import build_config
from orpo_mlx.errors import RunError
from orpo_mlx.planning.disk import checkpoint_bytes, count_checkpoints, require_room
from orpo_mlx.runs import events
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.training.train import resume, train


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return `set(free bytes)`."""

    def set_free(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, free))

    return set_free


@pytest.fixture
def settings(
    model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path
) -> Callable[..., Any]:
    data = str(pairs_file())

    def build(**more: Any) -> Any:
        own = {"model": str(model_folder), "data": data, "steps": 2, "valid_fraction": 0}
        return build_config({**own, "run_dir": str(tmp_path / "run"), **more})

    return build


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "sgd"])
def test_a_checkpoint_is_at_most_as_large_as_was_said(settings: Callable[..., Any], optimizer: str):
    from orpo_mlx.training.prepare import prepare

    config = settings(optimizer=optimizer, rank=256)
    result = train(config)

    trainable, _ = count_parameters(prepare(config).model)
    (path, *_) = (result.run_dir / "checkpoints").iterdir()
    written = sum(file.stat().st_size for file in path.iterdir())
    assert 0.7 * checkpoint_bytes(config, trainable) < written
    assert written <= checkpoint_bytes(config, trainable)


@pytest.mark.parametrize(
    ("own", "saves", "count"),
    [
        ({}, 2, 2),  # at the start and the end
        ({}, 102, 5),  # three kept, the best, and one being written
        ({"keep_checkpoints": 1}, 102, 3),
    ],
)
def test_checkpoints_on_the_disk_at_a_time(own: dict[str, Any], saves: int, count: int):
    assert count_checkpoints(build_config(own), saves) == count


def test_a_run_that_would_fill_the_disk_is_refused_before_anything_is_written(
    settings: Callable[..., Any], disk: Callable[[int], None], tmp_path: Path
):
    disk(17_000_000)
    with pytest.raises(RunError) as caught:
        train(settings(rank=256))
    assert "17 MB are free" in caught.value.message
    assert "3 checkpoints of" in caught.value.message
    assert "--keep-checkpoints" in caught.value.what_to_do
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_nearly_full_is_noted(
    settings: Callable[..., Any], disk: Callable[[int], None]
):
    disk(500_000_000)
    result = train(settings())
    told = (result.run_dir / "events.jsonl").read_text()
    assert "nearly full: 500 MB are free" in told


def test_checkpoints_that_are_there_count(tmp_path: Path, disk: Callable[[int], None]):
    config = build_config({"save_every": 1})
    each = checkpoint_bytes(config, 10_000_000)
    disk(2 * each)
    with pytest.raises(RunError):
        require_room(tmp_path, config, 10_000_000, 100)
    assert "nearly full" in require_room(tmp_path, config, 10_000_000, 100, present=5 * each)


def test_a_resumed_run_is_looked_at_again(
    settings: Callable[..., Any], disk: Callable[[int], None], tmp_path: Path
):
    class Stop:
        def handle(self, event: Any, line: str = "") -> None:
            if isinstance(event, events.StepCompleted):
                raise OSError("no space left")

        def catch_up(self, past: Any) -> None: ...
        def progress(self, *_: Any) -> None: ...
        def close(self) -> None: ...

    with pytest.raises(Exception, match="no space left"):
        train(settings(rank=256, steps=3, report_every=1), report=Stop())
    disk(1000)
    with pytest.raises(RunError, match="free on that disk"):
        resume(RunDirectory(tmp_path / "run"))
    disk(1 << 40)
    assert resume(RunDirectory(tmp_path / "run")).reason == "completed"
