"""A disk that fails at any call of a run, a resume or an export: nothing is lost, and it is said.

Real system calls fail (`fakes/failing_disk.c`), those of MLX in C++ too: once with an input/output
error, or from one call on because the disk is full. Afterwards the disk is well again.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]
FAULTS = [(errno.ENOSPC, True), (errno.EIO, False)]
POSITIONS = 25
"""Of each command that are tried, evenly over its calls; the first ten in any case."""
FEW = (
    "--steps", "3", "--save-every", "1", "--num-layers", "1", "--rank", "2", "--valid-fraction",
    "0.2", "--sample-prompts", "0", "--no-evaluate",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def disk(root: Path, tmp_path: Path, fakes: Callable[[str], Any]) -> Iterator[Any]:
    (tmp_path / "work").mkdir()
    disk = fakes("failing_disk").FailingDisk(root, tmp_path / "work")
    yield disk
    disk.close()


@pytest.fixture
def words(model_folder: Path, pairs_file: Callable[..., Path]) -> tuple[str, ...]:
    return ("train", "--model", str(model_folder), "--data", str(pairs_file()), *FEW)


def digest(folder: Path) -> dict[str, str]:
    """What a folder holds, but for what tells of time."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.safetensors"))
    }


def positions(seen: int) -> list[int]:
    return sorted({*range(1, min(10, seen) + 1), *range(1, seen + 1, max(1, seen // POSITIONS))})


def faults(seen: int) -> Iterator[dict[str, Any]]:
    for error, on in FAULTS:
        for at in positions(seen):
            yield {"at": at, "error": error, "on": on}


def require_said(done: dict[str, Any], fault: dict[str, Any]) -> None:
    """A failure is one message that says what to do; never a traceback."""
    said = done["out"] + done["err"]
    assert "Traceback" not in said, (fault, said)
    assert done["code"] in (0, 1, 2), (fault, done)
    if done["code"]:
        message = re.split(r"^error: ", done["err"], flags=re.MULTILINE)[1:]
        assert len(message) == 1, (fault, said)
        assert len(message[0].strip().splitlines()) >= 2, (fault, said)


def require_kept(disk: Any, run: Path, wanted: dict[str, str], fault: dict[str, Any]) -> None:
    """The run can go on to the bytes of one that never failed; without a checkpoint it says so."""
    if digest(run / "adapter") == wanted:
        return
    has_checkpoint = any((run / "checkpoints").glob("[0-9]*"))
    again = disk.run("resume", run)
    require_said(again, fault)
    assert (again["code"] == 0) == has_checkpoint, (fault, again)
    if has_checkpoint:
        assert digest(run / "adapter") == wanted, fault


def test_a_run_that_the_disk_fails_goes_on_to_the_same_bytes(disk, root, words):
    whole = disk.run(*words, "--run-dir", root / "whole")
    assert whole["code"] == 0, whole
    wanted = digest(root / "whole" / "adapter")
    assert whole["seen"] > 50
    failed = 0
    for fault in faults(whole["seen"]):
        run = root / "run"
        done = disk.run(*words, "--run-dir", run, **fault)
        require_said(done, fault)
        failed += done["code"] != 0
        if run.exists():
            require_kept(disk, run, wanted, fault)
            shutil.rmtree(run)
    assert failed > POSITIONS


def test_a_resume_that_the_disk_fails_goes_on_to_the_same_bytes(disk, root, words):
    assert disk.run(*words, "--run-dir", root / "whole")["code"] == 0
    wanted = digest(root / "whole" / "adapter")
    part = root / "part"
    shutil.copytree(root / "whole", part)
    cut_back(part)
    kept = root.parent / "kept"
    shutil.copytree(part, kept)
    whole = disk.run("resume", part)
    assert whole["code"] == 0, whole
    assert digest(part / "adapter") == wanted
    for fault in faults(whole["seen"]):
        shutil.rmtree(part)
        shutil.copytree(kept, part)
        done = disk.run("resume", part, **fault)
        require_said(done, fault)
        require_kept(disk, part, wanted, fault)


def cut_back(run: Path) -> None:
    """Make a finished run one that was killed after its first step."""
    shutil.rmtree(run / "adapter")
    for path in (run / "checkpoints").iterdir():
        if path.name not in ("0000000", "0000001"):
            shutil.rmtree(path)
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    last = next(
        i for i, line in enumerate(lines) if '"CheckpointSaved"' in line and '"step": 1' in line
    )
    (run / "events.jsonl").write_text("".join(lines[: last + 1]))


@pytest.mark.parametrize("to", ["peft", "fused", "gguf"])
def test_an_export_that_the_disk_fails_leaves_nothing_or_the_whole(disk, root, words, to):
    assert disk.run(*words, "--run-dir", root / "run")["code"] == 0
    run = digest(root / "run" / "adapter")
    out = root / ("out.gguf" if to == "gguf" else "out")
    command = ("export", root / "run", "--to", to, "--out", out)
    whole = disk.run(*command)
    assert whole["code"] == 0, whole
    wanted = content(out)
    for fault in faults(whole["seen"]):
        remove(out)
        done = disk.run(*command, **fault)
        require_said(done, fault)
        is_told = done["code"] == 0 or "is there, whole and checked" in done["err"]
        assert is_told == out.exists(), (fault, done)
        assert not out.exists() or content(out) == wanted, fault
        assert [p.name for p in root.iterdir() if p not in (out, root / "run")] == [], fault
    assert digest(root / "run" / "adapter") == run


def content(path: Path) -> Any:
    return path.read_bytes() if path.is_file() else digest(path)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
