"""A run of trackio, in its database on this machine; `trackio show` opens its page."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any, ClassVar

import trackio  # pyright: ignore[reportMissingImports]

from orpo_mlx.trackers.tracker import TrackedRun

_PROJECT = "orpo-mlx"
_ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Where trackio would send the run, with the Hub's token; here it stays on the machine."""


class TrackioTracker:
    """Goes on with the run of its name; what is there cannot be taken back."""

    can_rewind: ClassVar[bool] = False

    def __init__(self, run: TrackedRun) -> None:
        for name in _ELSEWHERE:
            os.environ.pop(name, None)
        with contextlib.redirect_stdout(io.StringIO()):  # it says where its page would be
            # A part that goes on without settings would replace those of the run by none.
            self._run: Any = trackio.init(
                project=_PROJECT, name=run.name, group=run.run_id, resume="allow",
                config=run.settings, embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip

    def settings(self, settings: dict[str, Any]) -> None:
        """It was told them when it was opened."""

    def scalars(self, step: int, seconds: float, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def sample(self, step: int, seconds: float, index: int, prompt: str, response: str) -> None:
        text = trackio.Markdown(f"{_quoted(prompt)}\n\n{_quoted(response)}")
        self._run.log({f"sample {index + 1}": text}, step=step)

    def rewind(self, step: int) -> None:
        """Never asked for."""

    def flush(self) -> None:
        """It hands on what it has by itself."""

    def close(self, failed: bool) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()  # the run alone would be ended again at exit


def _quoted(text: str) -> str:
    """Return a text as code, so that nothing in it is read as Markdown."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
