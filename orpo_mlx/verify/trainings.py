"""Checks of whole trainings: repeated, or interrupted and resumed, they give the same bytes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import describe
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import Event, StepCompleted
from orpo_mlx.scoring.base import Way
from orpo_mlx.text.progress import Unit
from orpo_mlx.training.train import TrainResult, resume, train
from orpo_mlx.verify.check import Check, measured

_STEPS, _INTERRUPTED_AFTER = 4, 2

REPEATED = "a second training gives the same bytes"
RESUMED = "an interrupted and resumed training gives the same bytes"
KEPT = "trunk cache: interrupted on disk equals whole in memory"


def check_trainings(
    config: TrainConfig, pairs: Sequence[TokenPair], way: Way, blocks: int
) -> Iterator[Check]:
    """Train a few steps, again, and once more with an interruption: the bytes must be the same.

    Args:
        config: the settings.
        pairs: to train on.
        way: of scoring.
        blocks: of the model; with one alone there is no trunk cache.
    """
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-verify-") as name:
        folder = Path(name)
        _write_pairs(folder / "pairs.jsonl", pairs)
        settings = config.model_copy(update=_short_run(config, folder / "pairs.jsonl", pairs, way))

        def adapter_of(name: str, run: Callable[[TrainConfig], Path], **changes: Any) -> bytes:
            own = {"run_dir": str(folder / name), **changes}
            return _read_adapter(run(settings.model_copy(update=own)))

        try:
            first = adapter_of("first", _uninterrupted)
        except Exception as error:  # as in `_measured`
            yield Check(f"a training of {_STEPS} steps", False, None, 0, describe(error))
            return
        note = "adapter files that differ"
        yield measured(
            REPEATED, 0, note,
            lambda: adapter_of("second", _uninterrupted) != first,
        )  # fmt: skip
        yield measured(
            RESUMED, 0, note,
            lambda: adapter_of("resumed", _interrupted) != first,
        )  # fmt: skip
        if not way.can_keep or blocks < 2:
            return
        # Adapting the last block leaves the others to be kept; every pair is seen twice.
        kept = {"num_layers": 1, "target_modules": ["all"], "trunk_cache_dir": None}
        memory = {**kept, "trunk_cache": "memory"}
        yield measured(
            KEPT, 0, note,
            lambda: adapter_of("kept on disk", _interrupted, **kept, trunk_cache="disk")
            != adapter_of("kept in memory", _uninterrupted, **memory),
        )  # fmt: skip


def _short_run(
    config: TrainConfig, data: Path, pairs: Sequence[TokenPair], way: Way
) -> dict[str, Any]:
    # What the settings say of columns and splits holds for the rows these pairs were made of.
    return {
        "data": str(data), "data_split": None, "data_subset": None, "data_revision": None,
        "map": None, "layout": None, "keep_duplicates": True,
        "valid_data": None, "valid_fraction": 0.0, "init_adapter": None,
        "steps": _STEPS, "micro_batch_size": min(2, len(pairs)), "grad_accumulation_steps": 2,
        "batching": "fixed", "scoring": way.name, "grad_checkpoint": "off",
        "dropout": config.dropout or 0.1,  # so that random numbers are part of it
        "report_every": 1, "eval_every": 0, "sample_every": 0, "sample_prompts": 0,
        "save_every": 0, "early_stop": 0, "keep_best": False, "trunk_cache": "off",
        "evaluate": False,
    }  # fmt: skip


def _write_pairs(path: Path, pairs: Sequence[TokenPair]) -> None:
    lines = [json.dumps(_as_row(pair)) + "\n" for pair in pairs]
    path.write_text("".join(lines), encoding="utf-8")


def _as_row(pair: TokenPair) -> dict[str, Any]:
    if pair.label is not None:
        return {"prompt_ids": pair.prompt, "completion_ids": pair.chosen, "label": pair.label}
    margin = {} if pair.margin is None else {"margin": pair.margin}
    sides = {"chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
    return {"prompt_ids": pair.prompt, **sides, **margin}


def _read_adapter(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))


def _uninterrupted(config: TrainConfig) -> Path:
    return _result(train(config))


def _interrupted(config: TrainConfig) -> Path:
    """Train until a request stops the run, then go on with it as a user would."""
    run = RunDirectory(Path(str(config.run_dir)))
    stopped = train(config, report=_StopsRun(run))
    if (stopped.reason, stopped.step) != ("stopped", _INTERRUPTED_AFTER):
        raise RuntimeError(f"the run did not stop when asked: {stopped.reason} at {stopped.step}")
    return _result(resume(run))


class _StopsRun:
    """A report that shows nothing and asks its run to stop after a step."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    def handle(self, event: Event, line: str = "") -> None:
        """Ask when the step has come."""
        if isinstance(event, StepCompleted) and event.step == _INTERRUPTED_AFTER:
            send_request(self.run, "stop")

    def catch_up(self, events: Iterable[Event]) -> None:
        """Nothing to take in."""

    def progress(self, done: int, total: int, label: str, unit: Unit) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to close."""


def _result(result: TrainResult) -> Path:
    if result.reason != "completed" or result.adapter_path is None:
        raise RuntimeError(f"the run did not complete: {result.reason} at step {result.step}")
    return result.adapter_path
