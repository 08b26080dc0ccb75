"""What is made ahead is what would have been made, and nothing is left behind."""

import threading

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.prefetch import Prefetch
from orpo_mlx.runs import events
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.scoring import base
from orpo_mlx.training import start
from orpo_mlx.training.train import train


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("orpo-mlx-prefetch")]


def test_numbers_in_any_order_give_what_plain_calls_give():
    ahead = Prefetch(lambda n: n * n, last=5)

    assert [ahead.get(n) for n in (1, 2, 3, 3, 5, 2)] == [1, 4, 9, 9, 25, 4]
    ahead.close()
    assert threads() == []


def test_the_next_one_is_made_by_another_thread_and_none_beyond_the_last():
    made = []
    ahead = Prefetch(lambda n: made.append((n, threading.current_thread().name)), last=2)
    ahead.get(1)
    ahead.get(2)
    ahead.close()

    assert [n for n, _ in made] == [1, 2]
    assert made[0][1] == "MainThread"
    assert made[1][1].startswith("orpo-mlx-prefetch")


def test_an_error_comes_with_its_own_number():
    def make(number):
        if number == 2:
            raise ValueError("two")
        return number

    ahead = Prefetch(make, last=3)
    assert ahead.get(1) == 1
    with pytest.raises(ValueError, match="two"):
        ahead.get(2)
    assert ahead.get(3) == 3
    ahead.close()


def settings(model, data, run_dir, **changes):
    return TrainConfig(
        model=str(model), data=str(data), run_dir=str(run_dir), steps=4, micro_batch_size=2,
        rank=2, num_layers=1, sample_prompts=0, report_every=1, **changes,
    )  # fmt: skip


def test_no_mlx_array_is_made_while_a_batch_is_laid_out(
    model_folder, pairs_file, tmp_path, monkeypatch
):
    """MLX is handed the arrays by the thread that computes with them."""
    placed, laid = [], []
    place, lay_out = base.MicroBatch.placed, base.Scoring.lay_out

    def recorded_place(batch):
        placed.append(threading.current_thread().name)
        return place(batch)

    def recorded_layout(self, *args):
        batch = lay_out(self, *args)
        laid.append((threading.current_thread().name, {type(a).__module__ for a in batch.arrays}))
        return batch

    monkeypatch.setattr(base.MicroBatch, "placed", recorded_place)
    monkeypatch.setattr(base.Scoring, "lay_out", recorded_layout)
    train(settings(model_folder, pairs_file(8), tmp_path / "run"))

    assert set(placed) == {"MainThread"}
    assert any(name.startswith("orpo-mlx-prefetch") for name, _ in laid)
    assert all(modules == {"numpy"} for _, modules in laid)


def test_a_failure_in_the_thread_ends_the_run_at_its_step_and_leaves_no_thread(
    model_folder, pairs_file, tmp_path, monkeypatch
):
    right = start.step_batches

    def fail_at_three(prepared, step):
        if step == 3:
            raise RuntimeError("no third batch")
        return right(prepared, step)

    monkeypatch.setattr(start, "step_batches", fail_at_three)
    with pytest.raises(Exception, match="no third batch"):
        train(settings(model_folder, pairs_file(8), tmp_path / "run"))

    found = events.read_events(RunDirectory(tmp_path / "run").events_file)
    told = [record.event for record in found]
    assert [e.step for e in told if isinstance(e, events.StepCompleted)] == [1, 2]
    assert isinstance(told[-1], events.RunFailed)
    assert threads() == []
