"""A bench from beginning to end: part after part, each in its time, and what came of it."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from orpo_mlx.bench.machine import power_state
from orpo_mlx.bench.parts import BenchPart, chosen_parts
from orpo_mlx.bench.process import Row, WorkerFailed
from orpo_mlx.bench.sizes import choose_sizes
from orpo_mlx.bench.steps.course import DEFAULT
from orpo_mlx.bench.workplace import BenchRequest, Workplace
from orpo_mlx.errors import describe
from orpo_mlx.macos import keep_awake
from orpo_mlx.text.redaction import without_places

SCHEMA_VERSION = 1
_LEAST_SECONDS = 1.0
"""With less a part is not begun."""


class BenchListener(Protocol):
    """Shows how far a bench is."""

    def doing(self, part: str, label: str, seconds: float) -> None:
        """Show what is being done, and for how many seconds; called several times a second."""
        ...

    def ended(self, part: Row) -> None:
        """Show how a part ended."""
        ...


def run_bench(
    request: BenchRequest, command: str, listener: BenchListener, keep: Callable[[Row], None]
) -> Row:
    """Do all parts and return the result.

    Args:
        request: what was asked for.
        command: as it was typed, for the reader of the result.
        listener: told how far it is.
        keep: gets the result so far after each part, without places and names.

    Raises:
        KeyboardInterrupt: after what was found until then was kept.
    """
    keep_awake(os.getpid())
    began = time.monotonic()
    result = _begun(request, command)
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-bench-", ignore_cleanup_errors=True) as name:
        at = Workplace(Path(name).resolve(), request, say=lambda label, seconds: None)
        parts = chosen_parts(request.only)
        for part in parts:
            at.say = lambda label, seconds, part=part: listener.doing(part.name, label, seconds)
            done = _do(at, part, at.sizes.seconds - (time.monotonic() - began))
            if part.name == "machine":  # only the device says how much there is to do
                at.sizes = choose_sizes(request.is_short, at.is_gpu)
            result["parts"].append(done)
            result["power"].append({"after": part.name, **power_state()})
            result["seconds"] = round(time.monotonic() - began, 1)
            is_interrupted = done["status"] == "interrupted"
            result["is_complete"] = part is parts[-1] and not is_interrupted
            listener.ended(done)
            keep(shareable(result))
            if is_interrupted:
                raise KeyboardInterrupt
    return shareable(result)


def _begun(request: BenchRequest, command: str) -> Row:
    return {
        "schema": SCHEMA_VERSION, "program": "orpo-mlx bench", "command": command,
        "form": "short" if request.is_short else "full", "is_complete": False,
        "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "seconds": 0.0,
        "power": [{"after": "the start", **power_state()}], "parts": [],
    }  # fmt: skip


def _do(at: Workplace, part: BenchPart, left: float) -> Row:
    """Do a part; whatever goes wrong in it is in what it returns."""
    began = time.monotonic()
    seconds = min(part.seconds, left)
    at.deadline = began + seconds
    if seconds < _LEAST_SECONDS:
        status, reason = "skipped", "no time was left for it"
    else:
        status, reason = _run(at, part)
    return {
        "name": part.name, "title": part.title, "status": status, "reason": reason,
        "seconds": round(time.monotonic() - began, 1), "limit_seconds": round(seconds),
        "rows": list(at.found.get(part.name, [])),
    }  # fmt: skip


def _run(at: Workplace, part: BenchPart) -> tuple[str, str]:
    """Collect what a part finds; return its status and the reason."""
    rows = at.found.setdefault(part.name, [])
    try:
        for row in part.run(at):
            rows.append(row)
    except WorkerFailed as failed:
        return ("late" if failed.is_late else "failed"), failed.reason
    except KeyboardInterrupt:
        return "interrupted", "by the user"
    except Exception as error:  # a mistake of ours in one part must not cost the others
        return "failed", describe(error)
    return "done", ""


def failures(result: Row) -> list[str]:
    """Return what is wrong: parts that failed, and checks that did not pass."""
    parts = result["parts"]
    found = [f"{part['title']}: {part['reason']}" for part in parts if part["status"] == "failed"]
    for part in parts:
        for row in part["rows"]:
            if row.get("passed") is False:
                found.append(f"{part['title']}: {row_name(row)}")
            # Another way may not fit model or memory; the default must.
            if row.get("problem") and not row.get("is_late") and row["way"] == DEFAULT:
                found.append(f"{part['title']}: {row_name(row)}: {row['problem']}")
    return found


def row_name(row: Row) -> str:
    """Return what a row is about."""
    if "queries" in row:
        return f"{row['dtype']}, {row['queries']} queries over {row['keys']} keys"
    if row.get("kind") == "exactness":
        return f"float32 with MLX_ENABLE_TF32={row['variable']}"
    if "way" in row:
        return f"{row['model']}, {row['workload']}, {row['way']}"
    return str(row.get("name", ""))


def shareable(content: Any) -> Any:
    """Return what can be sent to strangers and read by every JSON reader: texts without places and
    names, numbers that are finite."""
    if isinstance(content, dict):
        return {key: shareable(value) for key, value in content.items() if key not in _OWN}
    if isinstance(content, list | tuple):
        return [shareable(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    return without_places(content) if isinstance(content, str) else content


_OWN = ("path", "files")
"""Keys of what is of no use elsewhere."""
