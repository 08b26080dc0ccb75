"""The doctor's facts, with the commands of macOS faked on PATH."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from orpo_mlx import macos
from orpo_mlx.cli import main as program
from orpo_mlx.diagnostics import machine
from orpo_mlx.diagnostics.machine import Fact, folder_bytes, iter_facts

Fake = Callable[[str, dict[str, str]], None]


@pytest.fixture
def fake_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Return `fake(name, answers)`: a command that prints by its last argument."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def fake(name: str, answers: dict[str, str]) -> None:
        cases = "".join(f"*{key}) echo '{text}';;\n" for key, text in answers.items())
        path = folder / name
        path.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}*) exit 1;;\nesac\n')
        path.chmod(0o755)

    return fake


@pytest.fixture
def mac(fake_command: Fake, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A Mac on mains power, as far as its commands tell."""
    monkeypatch.setattr(macos, "IS_MAC", True)
    monkeypatch.setattr(machine.platform, "mac_ver", lambda: ("15.6.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(machine.psutil, "sensors_battery", lambda: None, raising=False)
    fake_command("sysctl", {"brand_string": "Apple M3 Pro", "pressure_level": "1"})
    fake_command("pmset", {"-g": " lowpowermode         0"})
    return fake_command


def fact(name: str) -> Fact:
    (found,) = [fact for fact in iter_facts() if fact.name == name]
    return found


@pytest.mark.usefixtures("mac")
def test_a_mac_is_described_by_its_own_commands():
    assert fact("chip").text.startswith("Apple M3 Pro, ")
    assert fact("system") == Fact("machine", "system", "macOS 15.6.1", "ok")
    assert fact("low power mode").level == "ok"
    assert fact("memory pressure").text == "normal"


@pytest.mark.parametrize(("mode", "text"), [(0, "off"), (1, "on"), (2, "off")])
def test_a_mac_with_a_high_power_mode_says_its_low_one_in_another_word(mac: Fake, mode, text):
    mac("pmset", {"-g": f" sleep                1\n powermode            {mode}\n"})
    assert fact("low power mode").text == text


def test_low_power_mode_and_pressure_are_warned_about(mac: Fake):
    mac("pmset", {"-g": " lowpowermode         1"})
    mac("sysctl", {"brand_string": "Apple M1", "pressure_level": "4"})
    assert fact("low power mode").level == "warning"
    assert (fact("memory pressure").text, fact("memory pressure").level) == ("critical", "warning")


def test_an_old_macos_and_rosetta_are_errors(mac: Fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine.platform, "mac_ver", lambda: ("13.7", ("", "", ""), "arm64"))
    mac("sysctl", {"brand_string": "Apple M1", "proc_translated": "1"})
    assert fact("system").level == "error"
    assert "Rosetta" in fact("Python").text
    assert fact("Python").level == "error"


def test_a_battery_is_said(monkeypatch: pytest.MonkeyPatch):
    battery: Any = type("Battery", (), {"power_plugged": False, "percent": 41.0})
    monkeypatch.setattr(machine.psutil, "sensors_battery", lambda: battery, raising=False)
    assert fact("source").text == "battery, 41 % charged"
    assert fact("source").level == "warning"


def test_a_gpu_that_cannot_be_reached_is_an_error_and_no_end(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: Any) -> Any:
        raise RuntimeError("[metal::load_device] No Metal device available. This typically occurs")

    # As in a sandbox: MLX believes in its GPU, and any use of it raises this.
    gpu = type("Device", (), {"type": mx.DeviceType.gpu})()
    monkeypatch.setattr(mx, "default_device", lambda: gpu)
    monkeypatch.setattr(mx, "device_info", unreachable)
    monkeypatch.setattr(mx, "array", unreachable)
    facts = list(iter_facts())
    (device,) = [found for found in facts if found.name == "MLX device"]
    assert device.level == "error"
    assert "No Metal device available" in device.text
    assert "float32 products" not in {found.name for found in facts}
    assert facts[-1].group == "limits"


def test_a_command_that_is_missing_or_fails_leaves_the_fact_out(mac: Fake):
    mac("pmset", {})
    mac("sysctl", {})
    names = {found.name for found in iter_facts()}
    assert "memory pressure" not in names
    assert fact("low power mode").text == "off"


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"12345")
    (tmp_path / "y").write_bytes(b"67")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert folder_bytes(tmp_path) - (tmp_path / "gone").lstat().st_size == 7
    assert folder_bytes(tmp_path / "none") == 0


def test_every_warning_says_what_to_do():
    for found in iter_facts():
        assert bool(found.what_to_do) == (found.level in ("warning", "error")), found


def test_the_command_prints_json_lines(capsys: pytest.CaptureFixture[str]):
    assert program.main(["doctor", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"machine", "versions", "storage"} <= {line["group"] for line in lines}


def test_an_error_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    from orpo_mlx.cli.commands import doctor

    monkeypatch.setattr(doctor, "iter_facts", lambda: iter([Fact("a", "b", "c", "error", "d")]))
    assert program.main(["doctor"]) == 1
    assert "x  b" in capsys.readouterr().out
