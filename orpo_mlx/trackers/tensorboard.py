"""Event files for TensorBoard, below RUN/trackers/tensorboard, written by tensorboardX."""

from __future__ import annotations

import json
import time
from typing import Any, ClassVar

from tensorboardX import SummaryWriter

from orpo_mlx.trackers.tracker import TrackedRun


class TensorBoardTracker:
    """Writes one more event file; TensorBoard puts those of a folder together."""

    can_rewind: ClassVar[bool] = True

    def __init__(self, run: TrackedRun) -> None:
        self._folder = str(run.folder / "tensorboard" / run.name)
        self._open(run.rewound_to)

    def _open(self, rewound_to: int | None) -> None:
        """Begin a file; of what stands in earlier ones TensorBoard leaves out `purge_step` on."""
        # Files of one second would otherwise have one name.
        self._writer = SummaryWriter(
            self._folder,
            purge_step=None if rewound_to is None else rewound_to + 1,
            filename_suffix=f".{time.time_ns()}",
        )

    def settings(self, settings: dict[str, Any]) -> None:
        self._writer.add_text("settings", _block(json.dumps(settings, indent=2)), 0)

    def scalars(self, step: int, seconds: float, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, seconds)

    def sample(self, step: int, seconds: float, index: int, prompt: str, response: str) -> None:
        text = f"{_block(prompt)}\n\n{_block(response)}"
        self._writer.add_text(f"sample {index + 1}", text, step, seconds)

    def rewind(self, step: int) -> None:
        self._writer.close()
        self._open(step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self, failed: bool) -> None:
        self._writer.close()


def _block(text: str) -> str:
    """Return a text as code: TensorBoard reads Markdown."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
