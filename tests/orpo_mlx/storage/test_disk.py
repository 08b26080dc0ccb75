from __future__ import annotations

import shutil
from pathlib import Path

from orpo_mlx.storage.disk import existing_parent, free_bytes


def test_the_nearest_folder_that_exists_is_found(tmp_path, monkeypatch):
    assert existing_parent(tmp_path) == tmp_path
    assert existing_parent(tmp_path / "not" / "yet") == tmp_path
    monkeypatch.chdir(tmp_path)
    assert existing_parent(Path("not/yet")) == tmp_path


def test_a_folder_to_be_made_has_the_room_of_the_disk_it_will_be_on(tmp_path, monkeypatch):
    asked = []
    usage = shutil.disk_usage(tmp_path)._replace(free=7)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage)
    assert free_bytes(tmp_path / "not" / "yet") == 7
    assert asked == [tmp_path]
