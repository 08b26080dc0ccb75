"""The machine and everything in it that a number depends on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from orpo_mlx import macos
from orpo_mlx.bench.process import Row
from orpo_mlx.diagnostics.machine import chip, iter_facts
from orpo_mlx.models.activations import is_on_gpu
from orpo_mlx.version import __version__

_PACKAGES = ("mlx", "mlx-metal", "mlx-lm", "mlx-lm-lora", "transformers", "numpy")
_VARIABLES = ("MLX_", "METAL_", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""How the names of variables begin that change what MLX does."""
_PLACES = ("runs", "model cache")
"""Facts of the doctor that only say where something lies."""


def iter_machine(_: Row, tell: Callable[[str], None]) -> Iterator[Row]:
    """Yield the conditions, then what the doctor says."""
    tell("versions and device")
    yield {"kind": "conditions", **conditions()}
    tell("the doctor")
    for fact in iter_facts():
        if fact.name not in _PLACES or fact.level not in ("ok", "info"):
            passed = {"error": False, "ok": True}.get(fact.level)
            name = f"{fact.group}: {fact.name}"
            yield {"kind": "fact", "name": name, "text": fact.text, "passed": passed,
                   "level": fact.level}  # fmt: skip


def conditions() -> Row:
    """Return what a number of this machine means nothing without; loads mlx."""
    import mlx.core as mx

    from orpo_mlx.planning.memory import available_bytes

    device: dict[str, Any] = dict(mx.device_info())
    return {
        "chip": chip(),
        "model": macos.ask("sysctl", "-n", "hw.model"),
        "cores": _cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": _system(),
        "device": "GPU" if is_on_gpu() else "CPU",
        "device_name": str(device.get("device_name", "")),
        "architecture": str(device.get("architecture", "")),
        "available_bytes": available_bytes(),
        "python": platform.python_version(),
        "orpo-mlx": __version__,
        "commit": _commit(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "variables": {
            name: value for name, value in sorted(os.environ.items())
            if name.startswith(_VARIABLES)
        },
        # On Linux another BLAS changes the speed by several times.
        "preload": Path(os.environ.get("LD_PRELOAD", "")).name,
    }  # fmt: skip


def power_state() -> Row:
    """Return where the power comes from, whether heat slows the machine, and what else it does."""
    return {
        "load": round(os.getloadavg()[0], 2),
        "pressure": macos.memory_pressure() or "",
        **macos.power_source(),
        **macos.thermal_state(),
    }


def _cores() -> str:
    """Return how many cores there are, of a Mac by kind: fast and frugal ones."""
    kinds = [macos.ask("sysctl", "-n", f"hw.perflevel{i}.physicalcpu") for i in (0, 1)]
    by_kind = " + ".join(kind for kind in kinds if kind)
    return by_kind or str(os.cpu_count())


def _system() -> str:
    release = platform.mac_ver()[0]
    kind = platform.machine()
    return f"macOS {release} {kind}" if release else f"{platform.system()} {kind}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """Return the commit of a clone, "" of an installed package; "+" stands for own changes."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    said = [_git(root, *words) for words in (["rev-parse", "--short", "HEAD"], _STATUS)]
    return said[0] + ("+" if said[1] else "") if said[0] else ""


_STATUS = ["status", "--porcelain", "--untracked-files=no"]


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
