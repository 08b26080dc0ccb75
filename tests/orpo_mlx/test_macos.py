"""What macOS' own commands print is read right; they are faked where a process would be started."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

import pytest

from orpo_mlx import macos

Fake = Callable[[str], None]

ON_MAINS = """Now drawing from 'AC Power'
 -InternalBattery-0 (id=23724131)\t97%; charging; 0:34 remaining present: true"""
ON_BATTERY = """Now drawing from 'Battery Power'
 -InternalBattery-0 (id=23724131)\t8%; discharging; 0:21 remaining present: true"""
COOL = """Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
Note: No CPU power status has been recorded"""
FULL_SPEED = """2026-11-30 03:00:00 +0100 CPU Power notify
\tCPU_Scheduler_Limit \t= 100
\tCPU_Available_CPUs \t= 8
\tCPU_Speed_Limit \t= 100"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Return `said(text)`: what every command of the system prints from now on."""
    monkeypatch.setattr(macos, "IS_MAC", True)

    def fake(text: str) -> None:
        def run(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(command, 0, stdout=text + "\n")

        monkeypatch.setattr(macos.subprocess, "run", run)

    return fake


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ON_MAINS, {"source": "mains", "charge": "97 %"}),
        (ON_BATTERY, {"source": "battery", "charge": "8 %"}),
        ("Now drawing from 'AC Power'", {"source": "mains"}),
        ("", {}),
    ],
)
def test_the_source_of_power_is_told_without_the_number_of_the_battery(
    text: str, found: dict[str, str], said: Fake
):
    said(text)
    assert macos.power_source() == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (COOL, {"heat": "no warning"}),
        (FULL_SPEED, {"heat": "no warning"}),
        (FULL_SPEED.replace("Speed_Limit \t= 100", "Speed_Limit \t= 62"),
         {"heat": "CPU_Speed_Limit 62"}),
        ("Thermal_Warning_Level = 2", {"heat": "Thermal_Warning_Level 2"}),
        ("", {}),
    ],
)  # fmt: skip
def test_heat_is_what_slows_the_machine(text: str, found: dict[str, str], said: Fake):
    said(text)
    assert macos.thermal_state() == found


def test_another_system_is_asked_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(macos, "IS_MAC", False)
    monkeypatch.setattr(macos.subprocess, "run", None)
    monkeypatch.setattr(macos.subprocess, "Popen", None)
    macos.keep_awake(1)
    assert macos.power_source() == macos.thermal_state() == {}
