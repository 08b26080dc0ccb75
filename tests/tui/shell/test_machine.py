"""The machine as the app tells it; on a Mac by tools whose output is made up here."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from tui.shell.machine import Machine, read_machine

# As the tools of a Mac print them, shortened.
PRINTED = {
    "ioreg": '  "PerformanceStatistics" = {"Device Utilization %"=97,"Tiler Utilization %"=3}',
    "kern.memorystatus_vm_pressure_level": "2\n",
    "iogpu.wired_limit_mb": "12288\n",
}


@pytest.fixture
def mac(monkeypatch):
    """Return what the tools print; a test may change it."""
    printed = dict(PRINTED)

    def run(command, **_):
        text = printed[command[0] if command[0] == "ioreg" else command[-1]]
        if text is None:
            raise FileNotFoundError(command[0])
        return SimpleNamespace(stdout=text, returncode=0)

    monkeypatch.setattr("orpo_mlx.macos.IS_MAC", True)
    monkeypatch.setattr(subprocess, "run", run)
    return printed


def test_a_mac_tells_its_gpu_pressure_and_limit(mac):
    found = read_machine()
    assert (found.gpu_percent, found.pressure) == (97.0, "warning")
    assert found.gpu_limit_bytes == 12 * 1024**3


@pytest.mark.parametrize(
    ("level", "word"), [("1", "normal"), ("2", "warning"), ("4", "critical"), ("3", None)]
)
def test_memory_pressure_has_three_levels(mac, level, word):
    mac["kern.memorystatus_vm_pressure_level"] = f"{level}\n"
    assert read_machine().pressure == word


@pytest.mark.parametrize("text", ["", "0\n", "unknown oid", None])
def test_what_a_mac_does_not_tell_is_left_out(mac, text):
    for name in mac:
        mac[name] = text
    found = read_machine()
    assert (found.gpu_percent, found.pressure, found.gpu_limit_bytes) == (None, None, None)


def test_the_processor_is_looked_at_over_a_while_the_first_time_too(monkeypatch):
    # psutil's own answer without an interval is 0.0 when asked for the first time.
    monkeypatch.setattr("psutil.cpu_percent", lambda interval=None: 56.0 if interval else 0.0)
    assert read_machine().cpu_percent == 56.0


def test_battery_and_pressure_stand_in_the_lines():
    found = Machine(16_000_000_000, 9_000_000_000, 0, 55.6, 97.0, True, "warning")
    assert found.lines() == [
        "memory 9 GB of 16 GB", "swap 0 B  pressure warning", "CPU 56 %  GPU 97 %",
        "on battery: slower",
    ]  # fmt: skip
