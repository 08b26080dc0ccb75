"""A run of Weights & Biases; WANDB_MODE=offline writes it to RUN/trackers/wandb, to be synced."""

from __future__ import annotations

from typing import Any, ClassVar

import wandb  # pyright: ignore[reportMissingImports]

from orpo_mlx.trackers.tracker import TrackedRun

_PROJECT = "orpo-mlx"


class WandbTracker:
    """Goes on with the run of its name; what is there cannot be taken back."""

    can_rewind: ClassVar[bool] = False

    def __init__(self, run: TrackedRun) -> None:
        # Numbers and samples alone: no code, no console, no folders, nothing of this machine.
        quiet = wandb.Settings(
            console="off", silent=True, save_code=False, disable_code=True, disable_git=True,
            x_disable_machine_info=True, x_disable_meta=True, x_disable_stats=True,
        )  # fmt: skip
        self._run = wandb.init(
            project=_PROJECT, id=run.name, name=run.name, group=run.run_id, resume="allow",
            dir=str(run.folder), settings=quiet,
        )  # fmt: skip
        # Steps are an axis of its own: wandb's counter may not stand still or go back.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._samples: list[list[Any]] = []

    def settings(self, settings: dict[str, Any]) -> None:
        self._run.config.update(settings, allow_val_change=True)

    def scalars(self, step: int, seconds: float, values: dict[str, float]) -> None:
        self._run.log({**values, "step": step})

    def sample(self, step: int, seconds: float, index: int, prompt: str, response: str) -> None:
        self._samples.append([step, index + 1, prompt, response])

    def rewind(self, step: int) -> None:
        """Never asked for."""

    def flush(self) -> None:
        if self._samples:
            columns = ["step", "sample", "prompt", "response"]
            table = wandb.Table(columns=columns, data=self._samples)
            self._run.log({"samples": table, "step": self._samples[-1][0]})
            self._samples = []

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=1 if failed else 0)
