"""What a number depends on is read from the machine, without names."""

from __future__ import annotations

import json
import os
from importlib.metadata import version

import pytest

from orpo_mlx import macos
from orpo_mlx.bench import machine
from orpo_mlx.bench.machine import conditions, iter_machine, power_state


def test_conditions_hold_versions_and_what_changes_mlx(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLX_MAX_OPS_PER_BUFFER", "4")
    monkeypatch.setenv("SECRET", "word")
    found = conditions()
    assert found["versions"]["mlx"] == version("mlx")
    assert found["variables"] == {
        name: value for name, value in os.environ.items() if name.startswith("MLX_")
    } | {name: os.environ[name] for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
         if name in os.environ}  # fmt: skip
    assert found["memory_bytes"] > 0
    assert found["device"] in ("CPU", "GPU")
    json.dumps(found, allow_nan=False)


def test_the_doctors_facts_come_without_folders():
    _, *facts = iter_machine({}, lambda label: None)
    names = [fact["name"] for fact in facts]
    assert "versions: mlx" in names
    assert "storage: free disk" in names
    assert not [name for name in names if name.endswith((": runs", "model cache"))]


def test_a_mac_tells_its_cores_and_its_power(monkeypatch: pytest.MonkeyPatch):
    said = {"hw.perflevel0.physicalcpu": "6", "hw.perflevel1.physicalcpu": "4",
            "batt": "Now drawing from 'AC Power'", "therm": "CPU_Speed_Limit = 80"}  # fmt: skip
    monkeypatch.setattr(macos, "ask", lambda *command: said.get(command[-1], ""))
    assert machine._cores() == "6 + 4"
    state = power_state()
    assert (state["source"], state["heat"]) == ("mains", "CPU_Speed_Limit 80")
