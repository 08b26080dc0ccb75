"""The light half stays light, proved in a fresh interpreter."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from orpo_mlx import chat, cli, config, data, demo, runs, storage, text

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
    found = pkgutil.walk_packages(package.__path__, f"{name}.")  # type: ignore[attr-defined]
    return [info.name for info in found]


PACKAGES = (chat, cli, config, data, demo, runs, storage, text)
WITH_A_MODEL = {
    "orpo_mlx.cli.commands.playground": "the process that answers the app",
    "orpo_mlx.cli.judge.serve": "the process that asks the app for verdicts",
}

LIGHT = {
    "alone": [
        "orpo_mlx",
        "orpo_mlx.__main__",
        "orpo_mlx.errors",
        "orpo_mlx.models.check",
        "orpo_mlx.models.download",
        "orpo_mlx.export.formats.table",
    ],
    **{
        package.__name__: [name for name in submodules(package) if name not in WITH_A_MODEL]
        for package in PACKAGES
    },
}


@pytest.mark.parametrize("package", LIGHT)
def test_light_modules_load_nothing_heavy(package: str) -> None:
    """All of a package in one interpreter: what none of them loads, each of them does not load."""
    assert LIGHT[package]
    code = "\n".join(f"import {module}" for module in LIGHT[package])
    loaded = {name.split(".")[0] for name in modules_after(code)}
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["runs"], ["train", "--rnk"]])
def test_simple_commands_load_nothing_heavy_and_no_rich(words: list[str]) -> None:
    loaded = modules_after(f"from orpo_mlx.__main__ import main\nmain({words!r})")
    heavy = {name for name in loaded if name.split(".")[0] in (*HEAVY, "rich", "numpy")}
    assert not heavy


def test_starting_loads_few_modules() -> None:
    # A count does not depend on the machine's speed, as seconds do; about 330 today.
    assert len(modules_after("from orpo_mlx.__main__ import main\nmain(['train', '--help'])")) < 450
