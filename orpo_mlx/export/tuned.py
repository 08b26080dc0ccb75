"""The tuned model's weights: base + adapter, layer by layer, under the original's names.

mlx-lm renames and reshapes weights when it loads a model (experts are stacked, some norms shifted);
here that is undone, by the table in models/architectures.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from orpo_mlx.export.base_weights import plain_weight
from orpo_mlx.export.source import AdaptedLayer, AdapterSource
from orpo_mlx.models.load import LoadedModel

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def own_dtype(loaded: LoadedModel) -> str:
    """Return the number format of a base's own weights, of packed ones that of their scales."""
    for module in loaded.model.modules():
        array = module.get("scales", module.get("weight"))
        if isinstance(array, mx.array) and array.ndim > 1:
            return next((n for n, dtype in DTYPES.items() if dtype == array.dtype), "bfloat16")
    return "bfloat16"


def tuned_weight(module: Any, layer: AdaptedLayer, scale: float) -> mx.array:
    """Return base + scale x B x A of a layer in float32: [O, I], experts [E, O, I].

    DoRA's magnitude is applied as its paper says: every row is brought to the length m.

    Args:
        module: the layer of the base, plain or quantized.
        layer: its adapter.
        scale: on the adapter's output.
    """
    b, a = (mx.array(factor) for factor in layer.factors(scale))
    weight = plain_weight(module) + b @ a
    if layer.m is None:
        return weight
    return weight * (mx.array(layer.m) / mx.linalg.norm(weight, axis=-1))[..., None]


@dataclass(frozen=True)
class Parameter:
    """One parameter of the tuned model.

    Attributes:
        path: its layer in MLX.
        key: "weight", "bias", ...
        array: as the original has it, the experts of a block in one; not computed yet.
    """

    path: str
    key: str
    array: mx.array


class TunedWeights:
    """Every tensor of the tuned model in the original's layout, made as it is asked for.

    Args:
        source: the adapter.
        loaded: its base model, loaded lazily.
        dtype: of the weights; what a base in half precision keeps in float32 stays so.
    """

    def __init__(self, source: AdapterSource, loaded: LoadedModel, dtype: str) -> None:
        self._source, self._dtype = source, DTYPES[dtype]
        self._is_whole = own_dtype(loaded) == "float32"
        self.layers = {layer.path: layer for layer in source.layers}
        self.modules: dict[str, Any] = dict(loaded.model.named_modules())
        found: Any = tree_flatten(loaded.model.parameters())
        self._parameters = [
            (*_split(name), array)
            for name, array in found
            if not (
                name.endswith((".scales", ".biases", ".global_scale"))
                and "scales" in self.modules[_split(name)[0]]
            )
        ]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor by its original name."""
        return {name: tuple(array.shape) for name, array in self}

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[tuple[str, mx.array]]:
        """Yield (original name, array); nothing is computed before the array is used."""
        for path, key, array in self._parameters:
            yield from self._originals(path, key, self._value(path, key, array))

    def parameters(self) -> Iterator[Parameter]:
        """Yield each parameter once; nothing is computed before its array is used."""
        for path, key, array in self._parameters:
            value = self._value(path, key, array)
            yield Parameter(path, key, self._restored(path, key, value))

    def untouched(self) -> Iterator[tuple[str, mx.array]]:
        """Yield those the adapter does not change."""
        for path, key, array in self._parameters:
            if key != "weight" or path not in self.layers:
                yield from self._originals(path, key, self._value(path, key, array))

    def names(self, path: str, key: str = "weight") -> list[str]:
        """Return the original names of one parameter, of experts one for each."""
        experts = len(self.modules[path].weight) if self._is_stacked(path) else 0
        names = self._source.base.architecture.checkpoint_names(path, experts)
        return [f"{name}.{key}" for name in names]

    def _is_stacked(self, path: str) -> bool:
        module = self.modules[path]
        return "weight" in module and module.weight.ndim == 3 and "conv" not in path

    def _value(self, path: str, key: str, array: mx.array) -> mx.array:
        if key != "weight":
            return self._cast(array)
        if path in self.layers:
            weight = tuned_weight(self.modules[path], self.layers[path], self._source.spec.scale)
            return weight.astype(self._dtype)
        module = self.modules[path]
        return plain_weight(module).astype(self._dtype) if "scales" in module else self._cast(array)

    def _cast(self, array: mx.array) -> mx.array:
        # What the original keeps in float32 beside half-precision weights needs it.
        is_cast = array.dtype in (mx.float16, mx.bfloat16) or (
            self._is_whole and array.dtype == mx.float32
        )
        return array.astype(self._dtype) if is_cast else array

    def _originals(self, path: str, key: str, value: mx.array) -> Iterator[tuple[str, mx.array]]:
        names = self.names(path, key)
        if self._is_stacked(path):
            yield from ((name, value[i]) for i, name in enumerate(names))
        else:
            yield names[0], self._restored(path, key, value)

    def _restored(self, path: str, key: str, value: mx.array) -> mx.array:
        return self._source.base.architecture.restored(f"{path}.{key}", value)


def _split(name: str) -> tuple[str, str]:
    path, _, key = name.rpartition(".")
    return path, key
