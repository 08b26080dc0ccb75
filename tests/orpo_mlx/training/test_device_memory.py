"""Limits for MLX's allocator: by hand, put back afterwards, and told in the events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from orpo_mlx.config import build_config
from orpo_mlx.planning.memory import NOTHING, Estimate
from orpo_mlx.runs import events
from orpo_mlx.scoring import base
from orpo_mlx.scoring.base import SMALLEST_CACHE
from orpo_mlx.training.device_memory import MemoryLimits, choose_limits, limited_memory
from orpo_mlx.training.train import train

GB = 10**9
PEAK = Estimate(
    weights=4 * GB, adapter=GB, activations=2 * GB, attention=0, head=0, at_work=GB, margin=0
)


class Allocator:
    """Stands in for MLX's: remembers its limits and every change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache, self.active, self.changes = 900 * GB, 800 * GB, []
        monkeypatch.setattr(mx, "set_cache_limit", lambda n: self.change("cache", n))
        monkeypatch.setattr(mx, "set_memory_limit", lambda n: self.change("active", n))
        monkeypatch.setattr(mx, "set_wired_limit", lambda _: pytest.fail("was wired"))

    def change(self, name: str, value: int) -> int:
        before = getattr(self, name)
        setattr(self, name, value)
        self.changes.append((name, value))
        return before


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    return Allocator(monkeypatch)


def test_the_cache_gets_what_can_be_freed_if_there_is_room():
    # 8 GB at the peak, 5 of them weights and adapter; 3 GB come and go.
    assert choose_limits(PEAK, 16 * GB) == MemoryLimits(3 * GB, 16 * GB)
    assert choose_limits(PEAK, 10 * GB) == MemoryLimits(2 * GB, 10 * GB)
    assert choose_limits(PEAK, 8 * GB) == MemoryLimits(SMALLEST_CACHE, 8 * GB)


def test_kept_outputs_are_never_freed():
    assert choose_limits(replace(PEAK, cache=4 * GB), 64 * GB).cache == 3 * GB


def test_an_overcommitted_run_is_not_made_to_wait_for_memory_it_cannot_get():
    assert choose_limits(PEAK, 4 * GB) == MemoryLimits(SMALLEST_CACHE, 0)


def test_without_an_estimate_nothing_is_limited(allocator: Allocator):
    limits = choose_limits(NOTHING, 16 * GB)
    assert limits == MemoryLimits()
    with limited_memory(limits):
        assert allocator.changes == []


def test_limits_are_put_back_even_after_an_error(allocator: Allocator):
    def fail() -> None:
        with limited_memory(MemoryLimits(5, 6)):
            assert (allocator.cache, allocator.active) == (5, 6)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (allocator.cache, allocator.active) == (900 * GB, 800 * GB)


def test_what_a_batch_has_freed_goes_back_before_the_next(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    pairs_file: Callable[..., Path],
    tmp_path: Path,
):
    left: dict[str, list[int]] = {}
    own: dict[str, Any] = {"model": str(model_folder), "data": str(pairs_file())}
    config = build_config({**own, "steps": 3, "report_every": 1, "run_dir": str(tmp_path / "r")})

    class Listener:
        def handle(self, event: Any, line: str = "") -> None:
            left.setdefault(type(event).__name__, []).append(mx.get_cache_memory())

        def progress(self, done: int, total: int, label: str, unit: str) -> None: ...
        def catch_up(self, events: Any) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(base, "SMALLEST_CACHE", 0)
    train(config, report=Listener())

    # The adapter of before the step, and metrics; a step frees 5 MB.
    assert len(left["StepCompleted"]) == 3
    assert left["EvalCompleted"]
    assert max(*left["StepCompleted"], *left["EvalCompleted"]) < 200_000


def test_a_run_sets_its_limits_and_says_so(
    allocator: Allocator, model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path
):
    own: dict[str, Any] = {"model": str(model_folder), "data": str(pairs_file())}
    config = build_config({**own, "steps": 1, "valid_fraction": 0, "run_dir": str(tmp_path / "r")})
    held = mx.get_active_memory()  # by other tests of this process

    result = train(config)

    told = [record.event for record in events.read_events(result.run_dir / "events.jsonl")]
    started = next(event for event in told if isinstance(event, events.RunStarted))
    finished = next(event for event in told if isinstance(event, events.RunFinished))
    step = next(event for event in told if isinstance(event, events.StepCompleted))
    assert allocator.changes[0] == ("cache", started.cache_limit_bytes)
    assert allocator.changes[1] == ("active", started.memory_limit_bytes)
    assert started.memory_limit_bytes == started.available_bytes > started.estimated_peak_bytes
    assert (allocator.cache, allocator.active) == (900 * GB, 800 * GB)
    assert 0 < finished.peak_memory_bytes <= held + started.estimated_peak_bytes
    # A process holds Python and MLX itself, too: far more than this tiny run.
    assert finished.peak_process_bytes >= step.process_bytes > finished.peak_memory_bytes
