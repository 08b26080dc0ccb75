"""What macOS tells of itself by its own tools."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys

IS_MAC = sys.platform == "darwin"


def ask(*command: str) -> str:
    """Return what a command of the system prints, "" if it fails, hangs or is not macOS'."""
    if not IS_MAC:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def memory_pressure() -> str | None:
    """Return normal, warning or critical; None if the system does not say."""
    level = ask("sysctl", "-n", "kern.memorystatus_vm_pressure_level")
    return {"1": "normal", "2": "warning", "4": "critical"}.get(level)


def power_source() -> dict[str, str]:
    """Return "source" (mains or battery) and "charge" as `pmset -g batt` has them; a Mac without a
    battery has no charge, another system says nothing."""
    said = ask("pmset", "-g", "batt")
    source = re.search(r"drawing from '([^']+)'", said)
    charge = re.search(r"\b(\d+)%", said)
    found = {"AC Power": "mains", "Battery Power": "battery"}.get(source[1]) if source else None
    return {
        **({"source": found} if found else {}),
        **({"charge": f"{charge[1]} %"} if charge else {}),
    }


def thermal_state() -> dict[str, str]:
    """Return "heat": what `pmset -g therm` says of warnings and of limits on the processor's speed.

    "no warning" where it has recorded none; another system says nothing.
    """
    said = ask("pmset", "-g", "therm")
    if not said:
        return {}
    limits = [(name, int(value)) for name, value in re.findall(r"(\w+)\s*=\s*(\d+)", said)]
    # Speeds are shares of the full one in percent, warnings count up from 0.
    slowed = [
        f"{name} {value}" for name, value in limits
        if (value < 100 if name.endswith("_Limit") else value > 0)
        and not name.startswith("CPU_Available")
    ]  # fmt: skip
    return {"heat": ", ".join(slowed) or "no warning"}


def keep_awake(pid: int) -> None:
    """Keep a Mac from sleeping while a process lives."""
    if IS_MAC:
        with contextlib.suppress(OSError):
            subprocess.Popen(
                ["caffeinate", "-i", "-w", str(pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
