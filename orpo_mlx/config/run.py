"""Settings of the run directory and of what is reported."""

from __future__ import annotations

from functools import partial

from orpo_mlx.config.declaration import declare
from orpo_mlx.config.values import NameList, SettingsGroup

setting = partial(declare, "run")

TRACKERS = ("tensorboard", "wandb", "trackio")
"""Programs that a run's metrics, settings and samples can be handed to."""


class RunSettings(SettingsGroup):
    """Where a run lies, and how often it is written down."""

    run_dir: str | None = setting(
        None,
        "Folder of this run; not set: a new one under --runs-dir.",
        disk="checkpoints and adapter lie there",
    )
    runs_dir: str | None = setting(
        None,
        "Folder of all runs; not set: $ORPO_MLX_HOME/runs or the user data folder.",
        disk="checkpoints and adapters lie there",
    )
    report_every: int | None = setting(
        None,
        "Record and print metrics every N steps, of the first and the last step always. Not set: "
        "each step where a run has at most 100 or a step takes over a second, else every 10.",
        unit="steps",
        disk="lower writes more lines, which draw finer curves",
        ge=1,
        may_change=True,
    )
    save_every: int | None = setting(
        None,
        "Checkpoint every N steps besides the start, the end and each best evaluation; "
        "0 = only there. Not set: ten times, and after ten minutes of work.",
        unit="steps",
        speed="lower is slower: training waits for each; a crash loses at most that many steps",
        disk="see keep_checkpoints",
        ge=0,
        may_change=True,
    )
    keep_checkpoints: int = setting(
        3,
        "Checkpoints kept besides the best one.",
        disk="each holds the adapter and the optimizer's moments",
        ge=1,
        may_change=True,
    )
    report_to: NameList = setting(
        [],
        "Trackers that follow the run: tensorboard, wandb, trackio. `orpo-mlx log` does the same "
        "afterwards.",
        disk="each keeps a copy of the metrics in the run's folder",
        may_change=True,
    )
    peer_timeout: float = setting(
        60.0,
        "With several processes: end the run, saved, when one is silent or none gets on for so "
        "long.",
        unit="seconds",
        speed="lower loses less time to one that hangs",
        usual="60; more where one micro-batch takes longer",
        ge=0.1,
        le=86_400,
        may_change=True,
    )
    allow_overcommit: bool = setting(
        False,
        "Train although the estimate says that the memory will not suffice.",
        memory="on, the run may end for want of it",
        speed="on, the machine may swap and be many times slower",
        may_change=True,
    )
