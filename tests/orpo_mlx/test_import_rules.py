"""The light half stays light, proved in a fresh interpreter."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import orpo_mlx.data
import orpo_mlx.runs

HEAVY = ("mlx", "mlx_lm", "transformers", "textual", "torch", "tokenizers", "pyarrow", "datasets")


def modules_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the top-level packages it loaded."""
    script = f"import sys\n{code}\nsys.stderr.write('LOADED ' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split("LOADED ")[1].split())


def submodules(package: object) -> list[str]:
    name = package.__name__  # type: ignore[attr-defined]
    return [f"{name}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]  # type: ignore[attr-defined]


LIGHT = [
    "orpo_mlx",
    "orpo_mlx.config",
    "orpo_mlx.errors",
    "orpo_mlx.durable",
    "orpo_mlx.settings_file",
    "orpo_mlx.command_line",
    "orpo_mlx.formatting",
    "orpo_mlx.report",
    "orpo_mlx.report_text",
    "orpo_mlx.doctor_text",
    "orpo_mlx.doctor_report",
    "orpo_mlx.run_history",
    "orpo_mlx.model_check",
    "orpo_mlx.hub",
    "orpo_mlx.demo",
    "orpo_mlx.data_convert",
    "orpo_mlx.data_split",
    "orpo_mlx.data_pairs",
    "orpo_mlx.pair_request",
    "orpo_mlx.candidates",
    "orpo_mlx.judge_terminal",
    "orpo_mlx.__main__",
    *submodules(orpo_mlx.runs),
    *submodules(orpo_mlx.data),
]


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    loaded = {name.split(".")[0] for name in modules_after(f"import {module}")}
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["runs"], ["train", "--rnk"]])
def test_simple_commands_load_nothing_heavy_and_no_rich(words: list[str]) -> None:
    loaded = modules_after(f"from orpo_mlx.__main__ import main\nmain({words!r})")
    heavy = {name for name in loaded if name.split(".")[0] in (*HEAVY, "rich", "numpy")}
    assert not heavy


def test_starting_loads_few_modules() -> None:
    # A count does not depend on the machine's speed, as seconds do; about 330 today.
    assert len(modules_after("from orpo_mlx.__main__ import main\nmain(['train', '--help'])")) < 450
