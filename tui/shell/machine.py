"""How the machine is: memory, pressure, processor, power; read by psutil and macOS' own tools.

Everything here may take a moment: call it from a thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psutil

from orpo_mlx.macos import ask, memory_pressure
from orpo_mlx.text.formatting import format_bytes

_CPU_SECONDS = 0.1
"""Time over which the processor is looked at: asked for a moment, psutil answers 0 at first."""


@dataclass(frozen=True)
class Machine:
    """A moment of the machine; what cannot be told is None."""

    memory_bytes: int
    used_bytes: int
    swap_bytes: int
    cpu_percent: float
    gpu_percent: float | None = None
    on_battery: bool | None = None
    pressure: str | None = None
    """Memory pressure as macOS says it: normal, warning or critical."""

    gpu_limit_bytes: int | None = None
    """What macOS lets the GPU have, where it says so."""

    def brief(self) -> tuple[str, ...]:
        """Return the machine in few words, the most telling last."""
        words = []
        if self.on_battery is not None:
            words.append("on battery" if self.on_battery else "AC power")
        words.append(f"memory {format_bytes(self.memory_bytes)}")
        if self.gpu_limit_bytes:
            words.append(f"GPU limit {format_bytes(self.gpu_limit_bytes)}")
        if self.pressure:
            words.append(f"pressure {self.pressure}")
        return tuple(words)

    def lines(self) -> list[str]:
        """Return a few short lines."""
        lines = [
            f"memory {format_bytes(self.used_bytes)} of {format_bytes(self.memory_bytes)}",
            f"swap {format_bytes(self.swap_bytes)}"
            + (f"  pressure {self.pressure}" if self.pressure else ""),
        ]
        gpu = "" if self.gpu_percent is None else f"  GPU {self.gpu_percent:.0f} %"
        lines.append(f"CPU {self.cpu_percent:.0f} %{gpu}")
        if self.on_battery is not None:
            lines.append("on battery: slower" if self.on_battery else "AC power")
        return lines


def read_machine() -> Machine:
    """Look at the machine now."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return Machine(
        memory_bytes=memory.total,
        used_bytes=memory.total - memory.available,
        swap_bytes=swap.used,
        cpu_percent=psutil.cpu_percent(interval=_CPU_SECONDS),
        gpu_percent=_gpu_percent(),
        on_battery=None if battery is None else not battery.power_plugged,
        pressure=memory_pressure(),
        gpu_limit_bytes=_gpu_limit_bytes(),
    )


def memory_limit_bytes() -> int:
    """Return the memory of the machine; the GPU may use about three quarters of it on a Mac."""
    return psutil.virtual_memory().total


def _gpu_percent() -> float | None:
    text = ask("ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator")
    return gpu_percent_in(text)


def gpu_percent_in(text: str) -> float | None:
    """Return the utilisation in what ioreg prints of the accelerator."""
    found = re.search(r'"Device Utilization %"\s*=\s*(\d+)', text)
    return float(found[1]) if found else None


def _gpu_limit_bytes() -> int | None:
    """Return the limit somebody has set; 0 stands for the system's own, which it does not tell."""
    text = ask("sysctl", "-n", "iogpu.wired_limit_mb")
    return int(text) * 1024 * 1024 if text.isdigit() and int(text) else None
