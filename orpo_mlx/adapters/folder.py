"""An adapter folder in mlx-lm's format or in PEFT's; whose it is shows by its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orpo_mlx.adapters.files import load_adapter_into, read_adapter_spec
from orpo_mlx.adapters.lora import AdapterSpec
from orpo_mlx.adapters.peft import is_peft, load_peft_into, read_peft_spec


def read_spec(folder: Path) -> AdapterSpec:
    """Return how the adapter is attached; read before the weights of the model.

    Raises:
        AdapterError: it cannot be read.
    """
    return read_peft_spec(folder) if is_peft(folder) else read_adapter_spec(folder)


def load_into(model: Any, folder: Path, fingerprint: str, base: str) -> None:
    """Put the adapter's weights into a model that has it attached.

    Args:
        model: with layers as `read_spec` describes them.
        folder: of the adapter.
        fingerprint: of the model; PEFT's format records none.
        base: name of the model, for messages.

    Raises:
        AdapterError: it belongs to another model, or cannot be read.
    """
    if is_peft(folder):
        load_peft_into(model, folder)
    else:
        load_adapter_into(model, folder, fingerprint, base)
