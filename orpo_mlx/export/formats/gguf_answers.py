"""What rounding the tensors of a merged GGUF does to the answers, measured in the MLX model.

Its layers get the weights of the base GGUF, the exact tuned ones, and those that were written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import dequantize_model

from orpo_mlx.export.answers import KeptChange, answers_with, fits_in_memory
from orpo_mlx.export.formats.gguf_base import BaseGguf
from orpo_mlx.export.formats.gguf_changes import Change
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.models.load import load_model

Rows = Callable[[Change, slice], np.ndarray]


def kept_change(
    path: Path,
    source: AdapterSource,
    base: BaseGguf,
    changes: dict[str, Change],
    say: ExportListener,
) -> KeptChange | None:
    """Return how far the change of the answers survives the rounding.

    Args:
        path: of the merged GGUF.
        source: the adapter.
        base: the GGUF it was merged into.
        changes: what was merged, by tensor.
        say: told of the work.

    Returns:
        None if the model's weights are not on this machine, or do not fit into its memory.
    """
    if not any(source.base.settings_folder.glob("model*.safetensors")):
        return None
    if not fits_in_memory(4 * sum(int(tensor.n_elements) for tensor in base.tensors.values())):
        return None
    say.step(0, 1, "comparing answers")
    loaded = load_model(source.base.folder, lazy=True)
    dequantize_model(loaded.model)
    loaded.model.set_dtype(mx.float32)
    written = BaseGguf(path)
    ways: tuple[Rows, ...] = (
        lambda change, rows: base.rows(change.name, rows),
        lambda change, rows: change.merged(base, rows),
        lambda change, rows: written.rows(change.name, rows),
    )
    return KeptChange.between(
        *(answers_with(loaded, _weights(source, changes, rows)) for rows in ways)
    )


def _weights(
    source: AdapterSource, changes: dict[str, Change], rows: Rows
) -> Iterator[tuple[str, Callable[[], mx.array]]]:
    """Yield each changed layer once, its weight in MLX's order."""
    seen = set()
    for change in changes.values():
        if change.layer.path not in seen:
            seen.add(change.layer.path)
            yield change.layer.path, lambda change=change: _weight(source, change, rows)


def _weight(source: AdapterSource, change: Change, rows: Rows) -> mx.array:
    weight = np.concatenate([rows(change, part) for part in change.row_slices()])
    weight = weight.reshape(*change.b.shape[:-1], change.a.shape[-1])
    order = source.base.architecture.order(
        change.layer.path, source.base.text_config, change.b.shape[-2]
    )
    return mx.array(order.restored(weight))
