"""The trackers by name, what each needs, and where its files lie."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib import metadata

from orpo_mlx.config.run import TRACKERS
from orpo_mlx.errors import ConfigError
from orpo_mlx.text.spelling import did_you_mean
from orpo_mlx.trackers.tracker import Tracker

_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}


def require_trackers(names: Sequence[str]) -> None:
    """Check that what these trackers need is installed; nothing is imported.

    Raises:
        ConfigError: a name is unknown, or its package is missing.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(
                f"{name}: there is no such tracker{did_you_mean(name, list(TRACKERS))}",
                f"One of: {', '.join(TRACKERS)}.",
            )
        package = _PACKAGES[name]
        try:
            metadata.distribution(package)
        except metadata.PackageNotFoundError:
            python = shlex.quote(sys.executable)
            raise ConfigError(
                f"{name}: needs {package}, which is not installed.",
                f"Install it, {python} -m pip install {package}, or leave {name} out.",
            ) from None


def tracker_class(name: str) -> type[Tracker]:
    """Return the class of a tracker whose package is there; it is made of a `TrackedRun`."""
    if name == "tensorboard":
        from orpo_mlx.trackers.tensorboard import TensorBoardTracker

        return TensorBoardTracker
    if name == "wandb":
        from orpo_mlx.trackers.wandb_run import WandbTracker

        return WandbTracker
    from orpo_mlx.trackers.trackio_run import TrackioTracker

    return TrackioTracker
