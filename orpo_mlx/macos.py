"""What macOS tells of itself by its own tools."""

from __future__ import annotations

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
