"""Modules never come from the folder the user stands in: a cloned data set may have a yaml.py.

Every child process in Python is started with `child_environment`; the programs begun with
`python -m` forget that folder first. Only the standard library is needed here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
"""Where this package lies: a clone, or the folder of installed packages."""


def module_path() -> list[str]:
    """Return where modules are looked for: as now, but never in the present folder."""
    kept = [place for place in sys.path if place]
    # `python -m` puts it first, written out.
    if kept and not sys.flags.safe_path and _is_present(kept[0]):
        del kept[0]
    return kept if _ROOT in kept else [*kept, _ROOT]


def forget_present_folder() -> None:
    """Look for modules nowhere but in `module_path` from now on."""
    sys.path[:] = module_path()


def child_environment(**more: str) -> dict[str, str]:
    """Return the environment of a child process in Python, and of its children."""
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    # Installed packages are found without it, and must not come before the standard library.
    if _ROOT not in places and not _ROOT.endswith("-packages"):
        places.append(_ROOT)
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(places), **more}


def _is_present(place: str) -> bool:
    try:
        return os.path.samefile(place, os.curdir)
    except OSError:
        return False
