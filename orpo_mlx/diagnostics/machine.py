"""What this machine is, as far as a training cares: chip, memory, power, disk, versions.

Facts of macOS come from its own commands (sysctl, pmset, sw_vers), asked with a time limit; where
one is missing or answers something else, the fact is left out.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from orpo_mlx import macos
from orpo_mlx.errors import reason_of
from orpo_mlx.macos import ask, memory_pressure
from orpo_mlx.runs.directory import default_runs_dir
from orpo_mlx.runs.faults import explain
from orpo_mlx.storage.disk import free_bytes
from orpo_mlx.text.formatting import format_bytes
from orpo_mlx.version import __version__

Level = Literal["ok", "info", "warning", "error"]

_PACKAGES = ("mlx", "mlx-lm", "transformers", "numpy", "textual", "gguf")
_LEAST_MACOS = 14
_LITTLE_DISK = 10 << 30


@dataclass(frozen=True)
class Fact:
    """One line of the doctor.

    Attributes:
        group: "machine", "power", "versions", "storage" or "limits".
        what_to_do: empty where nothing needs doing.
    """

    group: str
    name: str
    text: str
    level: Level = "info"
    what_to_do: str = ""


def iter_facts() -> Iterator[Fact]:
    """Yield what there is to say about this machine, group by group."""
    yield from _machine()
    yield from _power()
    yield from _versions()
    yield from _storage()
    yield from _limits()


# Machine


def chip() -> str:
    """Return the name of the processor, such as "Apple M3 Pro"."""
    if macos.IS_MAC:
        return ask("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _machine() -> Iterator[Fact]:
    memory = psutil.virtual_memory()
    yield Fact("machine", "chip", f"{chip()}, {os.cpu_count()} cores")
    yield _system()
    yield Fact("machine", "memory", format_bytes(memory.total))
    share = memory.available / memory.total
    yield Fact(
        "machine",
        "free memory",
        format_bytes(memory.available),
        "warning" if share < 0.25 else "ok",
        "Close other programs before a training." if share < 0.25 else "",
    )
    device = _device()
    yield device
    if device.level != "error":
        yield _products()


def _system() -> Fact:
    if not macos.IS_MAC:
        return Fact("machine", "system", f"{platform.system()} {platform.release()}")
    release = platform.mac_ver()[0]
    is_old = int(release.split(".")[0] or 0) < _LEAST_MACOS
    return Fact(
        "machine",
        "system",
        f"macOS {release}",
        "error" if is_old else "ok",
        f"Update to macOS {_LEAST_MACOS} or newer: mlx needs it." if is_old else "",
    )


def _device() -> Fact:
    """Say what MLX computes on; loads mlx."""
    import mlx.core as mx

    device = mx.default_device()
    if device.type != mx.DeviceType.gpu:
        return Fact(
            "machine",
            "MLX device",
            "CPU: no GPU that MLX can use was found",
            "warning",
            "Trainings work but are slow; on a Mac with Apple silicon take an arm64 Python.",
        )
    try:
        found: dict[str, Any] = dict(mx.device_info())
    except RuntimeError as error:  # a Mac's MLX takes it for granted that there is a GPU
        return Fact(
            "machine",
            "MLX device",
            f"no GPU can be reached ({reason_of(error).split('. ')[0]})",
            "error",
            fault.outside if (fault := explain(str(error))) else "Run doctor again with --debug.",
        )
    limit = found.get("max_recommended_working_set_size")
    share = f", up to {format_bytes(float(limit))} for the GPU" if limit else ""
    return Fact("machine", "MLX device", f"{found.get('device_name', 'GPU')}{share}", "ok")


def _products() -> Fact:
    """Say how exact products of float32 are where nobody asks for exact ones; loads mlx."""
    from orpo_mlx.models.precision import EXACT_PRODUCT, VARIABLE, product_error

    error, said = product_error(), os.environ.get(VARIABLE)
    text = f"relative error {error:.0e}" + (f", {VARIABLE}={said:.20}" if said else "")
    if error <= EXACT_PRODUCT:
        return Fact("machine", "float32 products", f"exact, {text}", "ok")
    text = f"rounded to TF32, {text}; trainings compute exact ones unless --float32 fast"
    return Fact("machine", "float32 products", text)


# Power


def _power() -> Iterator[Fact]:
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is not None:
        yield Fact(
            "power",
            "source",
            f"{'mains' if battery.power_plugged else 'battery'}, {battery.percent:.0f} % charged",
            "ok" if battery.power_plugged else "warning",
            ""
            if battery.power_plugged
            else "Plug it in: on battery the Mac slows down and sleeps.",
        )
    if not macos.IS_MAC:
        return
    # A Mac that can do more than usual, too, has one setting for both: 1 is low, 2 is high.
    is_low = re.search(r"\b(low)?powermode\s+1\b", ask("pmset", "-g"), re.I) is not None
    yield Fact(
        "power",
        "low power mode",
        "on" if is_low else "off",
        "warning" if is_low else "ok",
        "Turn it off in System Settings, Battery: it slows the GPU." if is_low else "",
    )
    if pressure := memory_pressure():
        yield Fact(
            "power",
            "memory pressure",
            pressure,
            "ok" if pressure == "normal" else "warning",
            "" if pressure == "normal" else "Close other programs before a training.",
        )


# Versions


def _versions() -> Iterator[Fact]:
    translated = ask("sysctl", "-n", "sysctl.proc_translated") == "1"
    yield Fact(
        "versions",
        "Python",
        platform.python_version() + (" (translated by Rosetta)" if translated else ""),
        "error" if translated else "ok",
        "Use an arm64 Python: under Rosetta MLX finds no GPU." if translated else "",
    )
    yield Fact("versions", "orpo-mlx", __version__, "ok")
    for name in _PACKAGES:
        try:
            yield Fact("versions", name, version(name), "ok")
        except PackageNotFoundError:
            yield Fact("versions", name, "not installed", "warning", f"pip install {name}")


# Storage


def _storage() -> Iterator[Fact]:
    runs = default_runs_dir()
    yield Fact("storage", "runs", f"{runs}, {format_bytes(folder_bytes(runs))}")
    yield from _hub_cache()
    free = free_bytes(runs)
    yield Fact(
        "storage",
        "free disk",
        format_bytes(free),
        "warning" if free < _LITTLE_DISK else "ok",
        "Delete old runs (D in the app) or models (hf cache rm)." if free < _LITTLE_DISK else "",
    )


def _hub_cache() -> Iterator[Fact]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        yield Fact("storage", "model cache", f"{HF_HUB_CACHE}, empty")
        return
    text = f"{HF_HUB_CACHE}, {len(cache.repos)} repositories, {format_bytes(cache.size_on_disk)}"
    yield Fact("storage", "model cache", text)
    if cache.warnings:
        yield Fact(
            "storage",
            "model cache",
            f"{len(cache.warnings)} damaged entries, such as: {str(cache.warnings[0])[:200]}",
            "warning",
            "Delete the folder named; the model is downloaded again when it is needed.",
        )


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in a folder; what cannot be looked at counts as nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            total += path.lstat().st_size if os.path.lexists(path) else 0
    return total


# Limits


def _limits() -> Iterator[Fact]:
    """Yield what a user of this machine has to do without."""
    if not macos.IS_MAC:
        yield Fact(
            "limits", "this system", "made for Macs; on Linux it trains on the CPU or a CUDA GPU"
        )
    if not shutil.which("g++"):
        yield Fact("limits", "--compile on", "needs g++ on a CPU; there is none here")
    if macos.IS_MAC and not shutil.which("caffeinate"):
        yield Fact("limits", "sleep", "caffeinate is missing: the Mac may sleep during a training")
