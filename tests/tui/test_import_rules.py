"""The app never loads a model library, and the core never loads the app; in fresh interpreters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tui

ROOT = Path(tui.__file__).parents[1]
HEAVY = {"mlx", "mlx_lm", "transformers", "torch", "tokenizers", "datasets"}


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nsys.stderr.write('LOADED ' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split("LOADED ")[1].split())


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_no_module_of_the_app_loads_a_model_library():
    code = (
        "import importlib, pkgutil, tui\n"
        "for info in pkgutil.walk_packages(tui.__path__, 'tui.'):\n"
        "    importlib.import_module(info.name)"
    )
    assert tops(loaded_by(code)).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "code",
    [
        "import orpo_mlx.__main__, orpo_mlx.cli.commands.play, orpo_mlx.cli.commands.plot",
        "from orpo_mlx.__main__ import main\nmain(['--help'])",
        # Help and mistakes are answered before the app is loaded; without a terminal there is none.
        "from orpo_mlx.__main__ import main\nmain(['tui', '--help'])",
        "from orpo_mlx.__main__ import main\nassert main(['tui', '--charset', 'brail']) == 2",
        "from orpo_mlx.__main__ import main\nassert main(['tui']) == 2",
        "from orpo_mlx.__main__ import main\nassert main([]) == 0",
    ],
)
def test_the_core_loads_no_user_interface(code):
    assert tops(loaded_by(code)).isdisjoint({*HEAVY, "textual"})


def modules_that_say(words: tuple[str, ...]) -> list[str]:
    """Modules of the app whose docstring begins with a sentence that has one of these words."""
    found = []
    for path in sorted(Path(tui.__file__).parent.rglob("*.py")):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if any(word in said.split("\n")[0] for word in words):
            found.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return found


@pytest.mark.parametrize(
    ("words", "barred"),
    [(("; pure", "no widgets"), ("textual.widget",)), (("no Textual",), ("textual",))],
)
def test_what_is_called_pure_loads_no_widget(words, barred):
    modules = modules_that_say(words)
    assert modules
    loaded = loaded_by("\n".join(f"import {name}" for name in modules))
    assert [name for name in loaded if name.startswith(barred)] == []
