"""Commands as a user can paste them: quoted, and led to where PATH does not lead."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

_MODULES = {
    "hf": ("huggingface_hub.cli.hf",),
    "mlx_lm.generate": ("mlx_lm", "generate"),
    "mlx_lm.server": ("mlx_lm", "server"),
    "orpo-mlx": ("orpo_mlx",),
}
"""What `python -m` takes in place of the script of a package that is always here."""
_OTHERS = {
    "llama-cli": "llama.cpp",
    "llama-server": "llama.cpp",
    "lms": "LM Studio",
    "ollama": "Ollama",
    "tensorboard": "the package tensorboard",
    "vllm": "vLLM",
}


def tool(name: str) -> str:
    """Return the start of a command: by its path, or by Python, where PATH does not lead."""
    beside = Path(sys.executable).with_name(name)
    if shutil.which(name) or name not in _MODULES:
        return shlex.quote(name)
    # -P: modules never come from the folder the user stands in.
    words = [beside] if beside.exists() else [sys.executable, "-P", "-m", *_MODULES[name]]
    return shlex.join(map(str, words))


def command_line(*words: str | Path) -> str:
    """Return a command as it can be pasted into a shell; the first word as `tool` has it."""
    first, *others = map(str, words)
    return f"{tool(first)} {shlex.join(others)}".rstrip()


def not_here(*commands: str) -> list[str]:
    """Return a sentence for each program of others that commands need and PATH does not have."""
    names = {word for command in commands for word in shlex.split(command) if word in _OTHERS}
    return [
        f"{name} is not on the PATH here: it comes with {_OTHERS[name]}."
        for name in sorted(names)
        if shutil.which(name) is None
    ]
