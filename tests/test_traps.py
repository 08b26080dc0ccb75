"""No process of ours runs code of the folder the user stands in: each kind starts among traps."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orpo_mlx.cli.commands.doctor import iter_trainings
from orpo_mlx.data.tokens.template_check import SAMPLES, _render_in_child
from orpo_mlx.runs.directory import RunDirectory
from tui.processes import launcher
from tui.processes.children import JsonLinesChild
from tui.shell.settings import Settings

TRAPS = (
    "yaml", "numpy", "jinja2", "mlx", "mlx_lm", "transformers", "tokenizers", "safetensors",
    "pydantic", "rich", "textual", "psutil", "platformdirs", "pyarrow", "huggingface_hub", "tqdm",
    "typing_extensions", "regex", "requests", "packaging", "filelock", "gguf", "json", "random",
    "tempfile", "secrets", "runpy", "signal", "threading", "tui", "sitecustomize", "usercustomize",
)  # fmt: skip
SPRUNG = "import pathlib; pathlib.Path({mark!r}).open('a').write(__name__ + '\\n')\n"


@pytest.fixture
def mark(tmp_path, monkeypatch) -> Path:
    """Stand in a folder of traps; the file names those that were run."""
    folder, mark = tmp_path / "cloned", tmp_path / "sprung"
    folder.mkdir()
    for name in TRAPS:
        (folder / f"{name}.py").write_text(SPRUNG.format(mark=str(mark)))
    monkeypatch.chdir(folder)
    # As in a session that was itself started with `python -m`, with a careless PYTHONPATH.
    monkeypatch.setattr(sys, "path", [str(folder), "", *sys.path])
    monkeypatch.setenv("PYTHONPATH", ":")
    return mark


def sprung(mark: Path) -> str:
    return mark.read_text() if mark.exists() else ""


async def test_a_trainer_and_one_that_goes_on(mark, tmp_path):
    start = launcher.start_demo(tmp_path / "runs", Settings())
    try:
        assert await asyncio.wait_for(start.wait(), 120), start.read_log()
    finally:
        start.cancel()
        start.process.wait()
    said = start.run.events_file.stat().st_mtime_ns
    resumed = launcher.resume_training(RunDirectory(start.run.path), Settings())
    deadline = time.monotonic() + 120
    # Its first event comes once everything is loaded.
    while start.run.events_file.stat().st_mtime_ns == said and resumed.process.poll() is None:
        assert time.monotonic() < deadline, resumed.read_log()
        await asyncio.sleep(0.1)
    resumed.process.kill()
    resumed.process.wait()
    assert "error: " not in resumed.read_log() or "no checkpoint" in resumed.read_log()
    assert sprung(mark) == ""


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "orpo_mlx", "doctor", "--json"],
        ["-m", "orpo_mlx", "export", "--list", "--json"],
        ["-m", "orpo_mlx", "fit", "none", "--json"],
        ["-m", "orpo_mlx", "data", "check", "none", "--json"],
        ["-m", "orpo_mlx.cli.commands.playground", "--run", "none"],
        ["-m", "orpo_mlx.cli.judge.serve", "none"],
    ],
)
async def test_a_child_of_the_app(mark, words):
    async with JsonLinesChild(words) as child:
        async for _ in child.lines():
            pass
    assert "Traceback" not in child.complaint
    assert sprung(mark) == ""


def test_a_self_test_and_the_rendering_of_a_template(mark):
    child = "import json, sys\nsys.path[:] = json.load(sys.stdin)\nimport yaml, numpy, mlx_lm\n"
    assert list(iter_trainings(child)) == []
    payload = {"template": "{{ messages[0]['content'] }}", "special": {}}
    rendered = _render_in_child(payload, "model")
    assert rendered["prompt"] == (SAMPLES["prompt"][0]["content"], "")
    assert sprung(mark) == ""


@pytest.mark.parametrize(
    "words", [["orpo_mlx", "runs"], ["orpo_mlx.train", "--show-config"], ["tui", "--help"]]
)
def test_a_program_begun_with_python_m(words, tmp_path, monkeypatch):
    """Python itself looks there for its own first modules; ours are loaded after that is undone."""
    mark = tmp_path / "sprung"
    for name in ("yaml", "numpy", "pydantic", "rich", "textual", "psutil", "platformdirs"):
        (tmp_path / f"{name}.py").write_text(SPRUNG.format(mark=str(mark)))
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    assert sprung(mark) == ""
