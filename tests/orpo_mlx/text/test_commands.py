"""Commands lead to their programs wherever these lie, and hold any path."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from orpo_mlx.text.commands import command_line, not_here


def test_any_path_comes_through_a_shell():
    path = 'a b/it\'s $HOME `x` "y"'
    done = subprocess.run(
        ["/bin/sh", "-c", command_line("printf", "%s", path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == path


def test_a_program_is_led_to_where_path_does_not_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    said = shlex.split(command_line("mlx_lm.server", "--model", "m"))
    assert said == [str(tmp_path / "python"), *["-P", "-m", "mlx_lm", "server", "--model", "m"]]
    script = tmp_path / "mlx_lm.server"
    script.write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", "/nowhere")
    assert command_line("mlx_lm.server") == str(script)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command_line("mlx_lm.server") == "mlx_lm.server"


@pytest.mark.parametrize("name", ["mlx_lm.server", "hf"])
def test_what_python_is_told_in_place_of_a_script_is_there(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    from importlib.util import find_spec

    monkeypatch.setattr(Path, "exists", lambda _: False)
    monkeypatch.setenv("PATH", "")
    module = shlex.split(command_line(name))[3]
    assert find_spec(module) is not None


def test_programs_of_others_that_are_not_here_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "ollama").write_text("#!/bin/sh\n")
    (tmp_path / "ollama").chmod(0o755)
    said = not_here("ollama run x", "mkdir -p a && lms load x", "llama-server -m lms.gguf")
    assert [text.split()[0] for text in said] == ["llama-server", "lms"]
