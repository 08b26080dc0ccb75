"""What real shells complete with the scripts they are given."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orpo_mlx.__main__ import main as program
from orpo_mlx.cli.completion.words import all_commands
from orpo_mlx.cli.data.main import COMMANDS as DATA_COMMANDS
from orpo_mlx.cli.main import COMMANDS
from orpo_mlx.config.train_config import iter_settings

Complete = Callable[[str], set[str]]
ODD = "odd $(touch harm) `touch harm` ;name"

# Real completion in bash and fish; zsh's is called with stand-ins for what shows the words.
BASH = """
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
_orpo_mlx
for word in "${{COMPREPLY[@]}}"; do printf '%s\\n' "$word"; done
complete -p orpo-mlx >&2
"""
ZSH = """
compadd() {{ while [[ $1 = -* && $1 != -- && $1 != -a ]]; do shift; done
    if [[ $1 = -a ]]; then print -l -- ${{(P)2}}; else shift; print -l -- "$@"; fi }}
_describe() {{ local one; for one in ${{(P)2}}; do print -r -- ${{one%%:*}}; done }}
_files() {{ print FILES }}
words=({words}); CURRENT=$#words
_orpo_mlx
"""


@pytest.fixture
def scripts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[[str], Path]:
    """Return `write(shell) -> path` of what the command prints."""

    def write(shell: str) -> Path:
        capfd.readouterr()
        assert program(["completion", shell]) == 0
        path = tmp_path / f"completion.{shell}"
        path.write_text(capfd.readouterr().out)
        return path

    return write


@pytest.fixture
def runs() -> list[str]:
    """Runs in the usual place, one with a name that would do harm if it were read as a command."""
    names = ["pairs-1", "pairs-2", "demo-7", ODD]
    for name in names:
        folder = Path(os.environ["ORPO_MLX_HOME"]) / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.toml").touch()
    (Path(os.environ["ORPO_MLX_HOME"]) / "runs" / "no-run").mkdir()
    return names


@pytest.fixture(params=["bash", "zsh", "fish"])
def complete(
    request: pytest.FixtureRequest, scripts: Callable[[str], Path], tmp_path: Path
) -> Complete:
    """Return `complete(line)`: the words a shell offers at the end of a line."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = scripts(shell)

    def ask(line: str) -> set[str]:
        words = " ".join(map(shlex.quote, [*line.split(" ")]))
        code = {
            "bash": lambda: f"source {shlex.quote(str(script))}\n" + BASH.format(words=words),
            "zsh": lambda: f"source {shlex.quote(str(script))}\n" + ZSH.format(words=words),
            "fish": lambda: f"source {shlex.quote(str(script))}; complete -C '{line}'",
        }[shell]()
        plain = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        done = subprocess.run(
            [shell, *plain, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)},
        )  # fmt: skip
        if shell == "bash":
            assert "-o default" in done.stderr  # files, where the script has nothing to offer
        return {found.split("\t")[0] for found in done.stdout.splitlines() if found}

    ask.shell = shell  # type: ignore[attr-defined]
    return ask


def test_commands_are_completed(complete: Complete):
    assert set(COMMANDS) <= complete("orpo-mlx ")
    assert {"train"} <= complete("orpo-mlx trai")
    assert set(DATA_COMMANDS) <= complete("orpo-mlx data ")


def test_options_of_the_command_are_completed(complete: Complete):
    assert {one.flag for one in iter_settings()} <= complete("orpo-mlx train --")
    found = complete("orpo-mlx stop --")
    assert {"--now", "--wait", "--runs-dir"} <= found
    assert "--rank" not in found
    assert "--model" in complete("orpo-mlx data check --")
    assert "--rank" in complete("orpo-mlx resume --")


def test_values_are_completed_where_they_are_known(complete: Complete):
    assert {"orpo", "dpo", "kto"} <= complete("orpo-mlx train --objective ")
    assert "--rank" not in complete("orpo-mlx train --objective ")
    assert {"gguf", "peft", "ollama"} <= complete("orpo-mlx export run --to ")
    assert "tensorboard" in complete("orpo-mlx log run --to ")
    assert {"bash", "fish"} <= complete("orpo-mlx completion ")


def test_runs_are_completed_where_a_run_is_taken(
    complete: Complete, runs: list[str], tmp_path: Path
):
    for line in ("orpo-mlx watch ", "orpo-mlx train --resume ", "orpo-mlx evaluate x --against "):
        found = complete(line)
        assert {"pairs-1", "pairs-2", "demo-7"} <= found, line
        assert "no-run" not in found
    assert not {"pairs-1", "demo-7"} & complete("orpo-mlx train --rank ")
    assert len(complete("orpo-mlx watch ")) >= len(runs)  # the odd one as one word
    assert not (tmp_path / "harm").exists()


def test_files_are_left_to_the_shell(complete: Complete, tmp_path: Path):
    (tmp_path / "pairs.jsonl").touch()
    found = complete("orpo-mlx train --data ")
    shell = complete.shell  # type: ignore[attr-defined]
    assert {"bash": set(), "zsh": {"FILES"}, "fish": {"pairs.jsonl"}}[shell] <= found
    assert "train" not in found


def test_every_command_is_known_with_what_it_takes():
    found = {" ".join(one.names): one for one in all_commands()}
    assert found.keys() == {*COMMANDS, *(f"data {name}" for name in DATA_COMMANDS)}
    for name, command in COMMANDS.items():
        takes_runs = re.search(r"(?<!_)\bRUN\b", command.usage) is not None
        assert (found[name].takes == "run") == takes_runs, name
    options = {flag: one for one in found["train"].options for flag in one.flags}
    assert options["--no-evaluate"].takes == "nothing"
    assert options["--lam"].takes == "word"
    assert options["--chat-template"].choices == ("chatml",)


def test_other_shells_are_refused(capfd: pytest.CaptureFixture[str]):
    assert program(["completion"]) == 2
    assert program(["completion", "fsh"]) == 2
    assert "Did you mean fish?" in capfd.readouterr().err
