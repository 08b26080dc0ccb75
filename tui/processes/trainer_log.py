"""Where a trainer's output lies, what of it belongs to its newest process, and what may go.

<runs>/.starting/<id>.log    of a start that has no run yet, locked while its trainer lives
<runs>/.starting/<id>.seen   of a start that failed and was shown, or that the user ended
<runs>/.starting/<id>.toml   its settings
<runs>/<id>/train.log        of a run, all its processes below each other
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.group.launch import STARTING
from orpo_mlx.runs.lock import is_locked
from orpo_mlx.storage.regular import open_regular, read_regular

KEPT_DAYS = 7
"""A log of a failed start is kept so long after it was seen."""

_RULE = "--- orpo-mlx: "
_ENDED = re.compile(rf"^{_RULE}the trainer ended with code (-?\d+)$", re.MULTILINE)


def log_of(run: RunDirectory) -> Path:
    """Return the file with a run's output: its log, or where the start left it."""
    aside = run.path.parent / STARTING / f"{run.id}.log"
    if not aside.exists():
        return run.log_file
    newer = not run.log_file.exists() or aside.stat().st_mtime >= run.log_file.stat().st_mtime
    return aside if newer else run.log_file


def read_tail(path: Path, max_bytes: int = 1 << 16, *, begin: int = 0) -> str:
    """Return the end of a text file, at most from byte `begin` on; "" if it cannot be read."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(max(begin, size - max_bytes, 0))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def add_line(path: Path, text: str) -> None:
    """Write a line of the app's own into a log; a log that cannot be written goes without it."""
    with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
        file.write(f"{_RULE}{text}\n")


def ended_line(code: int) -> str:
    """Return the line that says how the app saw a trainer end."""
    return f"the trainer ended with code {code}"


def resumed_line(why: str) -> str:
    """Return the line a resumed process begins with."""
    return f"{why}, {time.strftime('%Y-%m-%d %H:%M:%S')} ---"


def newest_process(log: str) -> tuple[str, int | None]:
    """Return what the newest process of a log printed, and its exit code if the log has it."""
    lines = log.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(_RULE) and line.endswith("---")]
    text = "\n".join(lines[starts[-1] + 1 :] if starts else lines)
    found = _ENDED.findall(text)
    return _ENDED.sub("", text).strip("\n"), int(found[-1]) if found else None


def starting(runs_dir: Path) -> dict[Path, float]:
    """Return the runs that trainers prepare and that have no folder yet, with the time of the last
    sign of life, in Unix seconds."""
    found = {}
    for log in sorted((runs_dir / STARTING).glob("*.log")):
        run = RunDirectory(runs_dir / log.stem)
        if not run.is_run() and is_locked(log):
            with contextlib.suppress(OSError):  # it has become a run meanwhile
                found[run.path] = log.stat().st_mtime
    return found


def mark_seen(log: Path) -> None:
    """Note that a failed start's output has been shown, or that nobody needs it."""
    with contextlib.suppress(OSError):
        os.rename(log, log.with_suffix(".seen"))


def sweep(runs_dir: Path, now: float) -> list[Path]:
    """Clear the folder of starts; return logs of failed starts that nobody has seen yet.

    What a living trainer writes is left alone. A log whose run has come is handed to it. Nothing
    unseen is ever deleted; what was seen is, after some days.
    """
    folder = runs_dir / STARTING
    unseen = []
    for log in sorted(folder.glob("*.log")):
        run = RunDirectory(runs_dir / log.stem)
        if is_locked(log) or run.is_locked():
            continue
        if not run.is_run():
            unseen.append(log)
            continue
        _hand_over(log, run)
        _delete(log.with_suffix(".toml"))
    for path in (*folder.glob("*.seen"), *folder.glob("*.toml"), *folder.glob("*.new")):
        if not path.with_suffix(".log").exists() and _age_days(path, now) > KEPT_DAYS:
            _delete(path)
    return unseen


def _hand_over(log: Path, run: RunDirectory) -> None:
    """Make a log left aside the run's own, below what the run has already."""
    with contextlib.suppress(OSError):  # it stays, and `log_of` finds it
        if not run.log_file.exists():
            os.rename(log, run.log_file)
            return
        words = read_regular(log, 1 << 30)
        with run.log_file.open("ab") as file:
            file.write(words)
        log.unlink()


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):  # in a folder of somebody else's it stays
        path.unlink(missing_ok=True)


def _age_days(path: Path, now: float) -> float:
    try:
        return (now - path.stat().st_mtime) / 86400
    except OSError:
        return 0.0
