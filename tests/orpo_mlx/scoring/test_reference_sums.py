"""The reference's values: kept by all they follow from, the same after a stop, refused if not."""

import numpy as np
import pytest

from orpo_mlx.config import build_config
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import CheckpointError
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import StepCompleted
from orpo_mlx.scoring.reference import ReferencedPairs, kept_sums
from orpo_mlx.storage.cache import cache_folder
from orpo_mlx.training.train import resume, train

PAIRS = [TokenPair([1, 2], [3], [4, 5]), TokenPair([1], [3, 3], [4])]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path / "home"))


def sums(value=0.0):
    return np.full((2, 2), value, np.float32)


def test_values_are_found_again_by_what_they_follow_from_and_by_nothing_else():
    assert (kept_sums(["a"], PAIRS, lambda: sums(1)) == 1).all()
    assert (kept_sums(["a"], PAIRS, lambda: sums(2)) == 1).all()
    assert (kept_sums(["b"], PAIRS, lambda: sums(3)) == 3).all()
    # The same tokens, but not the same pairs.
    moved = [TokenPair([1], [2, 3], [4, 5]), PAIRS[1]]
    assert (kept_sums(["a"], moved, lambda: sums(4)) == 4).all()


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None], ids=["empty", "cut", "other shape"])
def test_damaged_values_are_found_anew(damage):
    kept_sums(["a"], PAIRS, sums)
    (path,) = cache_folder("reference").iterdir()
    if damage is None:
        np.save(path, np.zeros((5, 2), np.float32))
    else:
        path.write_bytes(damage)
    assert (kept_sums(["a"], PAIRS, lambda: sums(7)) == 7).all()
    assert (kept_sums(["a"], PAIRS, lambda: sums(8)) == 7).all()


def test_pairs_know_their_values_also_in_part():
    values = np.array([[-1, -2], [-3, -4]], np.float32)
    pairs = ReferencedPairs(PAIRS, values)
    assert [pair.reference for pair in pairs] == [(-1, -2), (-3, -4)]
    assert [pair.reference for pair in pairs[1:]] == [(-3, -4)]
    assert pairs[0].chosen == [3]


class _StopsAfter:
    def __init__(self, run, step):
        self.run, self.step, self.told = run, step, []

    def handle(self, event, line=""):
        if isinstance(event, StepCompleted) and event.step == self.step:
            send_request(RunDirectory(self.run), "stop")

    def progress(self, done, total, label, unit):
        self.told.append((label, done, total))

    def catch_up(self, events): ...

    def close(self): ...


@pytest.fixture
def settings(model_folder, pairs_file, tmp_path):
    def make(name, **more):
        own = {"model": str(model_folder), "data": str(pairs_file(8)), "objective": "dpo"}
        few = {"steps": 4, "micro_batch_size": 2, "rank": 2, "num_layers": -1, "beta": 0.5,
               "learning_rate": 5e-3, "valid_fraction": 0.25, "sample_prompts": 0}  # fmt: skip
        return build_config({**own, **few, "run_dir": str(tmp_path / name), **more})

    return make


def adapter(run):
    return (run / "adapter" / "adapters.safetensors").read_bytes()


@pytest.mark.parametrize("is_kept", [True, False])
def test_an_interrupted_run_equals_a_whole_one(settings, tmp_path, is_kept):
    listener = _StopsAfter(tmp_path / "whole", 0)
    train(settings("whole"), report=listener)
    scored = [(done, total) for label, done, total in listener.told if "reference" in label]
    assert scored[-1] == (8, 8)
    train(settings("part"), report=_StopsAfter(tmp_path / "part", 2))
    if not is_kept:
        for path in cache_folder("reference").iterdir():
            path.unlink()
    resume(RunDirectory(tmp_path / "part"))
    assert adapter(tmp_path / "part") == adapter(tmp_path / "whole")


def test_a_reference_that_is_another_now_is_refused(settings, tmp_path):
    train(settings("part"), report=_StopsAfter(tmp_path / "part", 2))
    (path,) = cache_folder("reference").iterdir()
    np.save(path, np.load(path) + np.float32(0.5))
    with pytest.raises(CheckpointError, match="reference"):
        resume(RunDirectory(tmp_path / "part"))


def test_the_adapter_at_the_start_is_the_reference_after_a_stop_too(settings, tmp_path):
    train(settings("first", objective="orpo", beta=None))
    more = {"reference": "start", "init_adapter": str(tmp_path / "first" / "adapter")}
    train(settings("whole", **more))
    train(settings("part", **more), report=_StopsAfter(tmp_path / "part", 2))
    for path in cache_folder("reference").iterdir():
        path.unlink()
    resume(RunDirectory(tmp_path / "part"))
    assert adapter(tmp_path / "part") == adapter(tmp_path / "whole")
