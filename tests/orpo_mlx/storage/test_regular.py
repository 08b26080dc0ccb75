"""Opening a file that somebody else may have put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orpo_mlx.storage.regular import open_regular


def test_an_interrupt_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A descriptor closed twice makes an OSError of Ctrl-C: of a lock, "free"; of events, "bad"."""
    (tmp_path / "file").write_text("x")
    fdopen = os.fdopen

    def open_and_interrupt(descriptor: int, mode: str):
        fdopen(descriptor, mode).close()  # as the end of a file does that nobody holds any more
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdopen", open_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_regular(tmp_path / "file")
