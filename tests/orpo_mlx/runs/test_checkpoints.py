"""A checkpoint is used only as it was written: any flipped bit of its manifest is noticed."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from orpo_mlx.errors import CheckpointError
from orpo_mlx.runs.checkpoints import (
    MANIFEST,
    PROGRESS,
    Progress,
    checkpoint_path,
    damage,
    find_newest,
    seal,
)


def write(folder: Path, step: int, progress: object = None, **changes: object) -> Path:
    path = checkpoint_path(folder, step)
    path.mkdir(parents=True)
    found = {**asdict(Progress(step=step)), "unreported": [[1.0]]} if progress is None else progress
    (path / PROGRESS).write_text(json.dumps(found))
    digest = hashlib.sha256((path / PROGRESS).read_bytes()).hexdigest()
    content = {
        "format": 1, "step": step, "versions": {"mlx": "1"}, "settings": {"rank": 8},
        "content": {"model": "0" * 63 + "1"}, "sha256": {PROGRESS: digest}, **changes,
    }  # fmt: skip
    (path / MANIFEST).write_bytes(seal(content))
    return path


def test_every_flipped_bit_of_the_newest_manifest_leads_to_the_one_before(tmp_path):
    older, newest = write(tmp_path, 1), write(tmp_path, 2)
    assert find_newest(tmp_path).path == newest
    data = (newest / MANIFEST).read_bytes()
    for position in range(len(data)):
        bit = 1 << (position % 8)
        flipped = data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]
        (newest / MANIFEST).write_bytes(flipped)
        found = find_newest(tmp_path)
        assert (found.path, len(found.skipped)) == (older, 1), position


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": 5}, {"sha256": {}}, {"sha256": {"../1": "x"}}, {"sha256": {PROGRESS: 5}},
        {"versions": "all"}, {"settings": []}, {"content": 1},
        {"progress": []}, {"progress": {"step": "1"}}, {"progress": {"step": 1e300}},
        {"progress": {"step": 7}}, {"progress": {"step": 2, "unreported": [5]}},
        {"progress": {"step": 2, "best_value": "low"}},
    ],
)  # fmt: skip
def test_a_signed_checkpoint_of_wrong_types_is_passed_over(changes, tmp_path):
    older = write(tmp_path, 1)
    write(tmp_path, 2, **changes)
    assert find_newest(tmp_path).path == older


@pytest.mark.parametrize("name", [MANIFEST, PROGRESS])
@pytest.mark.timeout(30)
def test_a_pipe_in_a_checkpoint_is_damage(name, tmp_path):
    path = write(tmp_path, 1)
    assert damage(path) is None
    (path / name).unlink()
    os.mkfifo(path / name)
    assert damage(path) == f"{name} cannot be used (not a regular file)"
    with pytest.raises(CheckpointError, match="not a regular file"):
        find_newest(tmp_path)


def test_a_manifest_nested_without_end_is_damage(tmp_path):
    path = write(tmp_path, 1)
    (path / MANIFEST).write_text("[" * 100_000)
    assert "nested too deeply" in str(damage(path))
