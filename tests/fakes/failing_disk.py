"""Runs commands of orpo-mlx on a disk that fails at a chosen call; Linux and a C compiler.

    FAILING_DISK_ROOT=FOLDER LD_PRELOAD=LIBRARY python failing_disk.py

One line of JSON in, one out: {"words", "at", "error", "on"} to {"code", "seen", "out", "err"}. Each
command is a fork of this process, which has imported everything and computed nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MODULES = (
    "mlx.core", "mlx_lm.tuner.utils", "mlx_lm.models.llama", "transformers", "gguf",
    "orpo_mlx.training.train", "orpo_mlx.training.prepare", "orpo_mlx.training.start",
    "orpo_mlx.cli.commands.train", "orpo_mlx.cli.commands.export",
)  # fmt: skip


def build(folder: Path) -> Path:
    """Compile the library and return its path."""
    library = folder / "failing_disk.so"
    source = Path(__file__).with_suffix(".c")
    words = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(words, check=True, capture_output=True)
    return library


class FailingDisk:
    """The process, and what is asked of it.

    Args:
        folder: in which calls fail.
        work: for the library and what commands say.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        self._work = work
        env = {**os.environ, "LD_PRELOAD": str(build(work)), "FAILING_DISK_ROOT": str(folder)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(work)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip

    def run(self, *words: object, at: int = 0, error: int = 0, on: bool = False) -> dict[str, Any]:
        """Run a command; its `at`-th changing call fails with `error`, 0: none does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"words": [str(word) for word in words], "at": at, "error": error, "on": on}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _serve(work: Path) -> None:
    for module in MODULES:
        importlib.import_module(module)
    library = ctypes.CDLL(None)
    library.disk_seen.restype = ctypes.c_long
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _command(request, library, work)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = {name: (work / name).read_text(errors="replace") for name in ("out", "err", "seen")}
        answer = {"code": code, **said, "seen": int(said["seen"] or 0)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _command(request: dict[str, Any], library: Any, work: Path) -> None:
    """Be the command; never returns."""
    from orpo_mlx.__main__ import main

    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    (work / "seen").write_text("")
    library.disk_arm(request["at"], request["error"], request["on"])
    code = main(request["words"])
    seen = library.disk_seen()
    library.disk_arm(0, 0, 0)
    (work / "seen").write_text(str(seen))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
