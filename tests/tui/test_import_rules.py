"""The app never loads a model library, and the core never loads the app; in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"mlx", "mlx_lm", "transformers", "torch", "tokenizers", "datasets"}


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nsys.stderr.write('LOADED ' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stderr.split("LOADED ")[1].split()}


def test_no_module_of_the_app_loads_a_model_library():
    code = (
        "import importlib, pkgutil, tui\n"
        "for info in pkgutil.walk_packages(tui.__path__, 'tui.'):\n"
        "    importlib.import_module(info.name)"
    )
    assert loaded_by(code).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "code",
    [
        "import orpo_mlx.__main__, orpo_mlx.simulation, orpo_mlx.replay, orpo_mlx.plot",
        "from orpo_mlx.__main__ import main\nmain(['--help'])",
        # Help and mistakes are answered before the app is loaded; without a terminal there is none.
        "from orpo_mlx.__main__ import main\nmain(['tui', '--help'])",
        "from orpo_mlx.__main__ import main\nassert main(['tui', '--charset', 'brail']) == 2",
        "from orpo_mlx.__main__ import main\nassert main(['tui']) == 2",
        "from orpo_mlx.__main__ import main\nassert main([]) == 0",
    ],
)
def test_the_core_loads_no_user_interface(code):
    assert loaded_by(code).isdisjoint({*HEAVY, "textual"})
