"""The tensors of a whole GGUF: name, number format and values of each parameter of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf
import mlx.core as mx
import numpy as np

from orpo_mlx.errors import ExportError
from orpo_mlx.export.formats.gguf_changes import TYPES, Type
from orpo_mlx.export.new_gguf.rope import rope_tensors
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.tuned import Parameter, TunedWeights

_PLAIN = (
    ".ffn_gate_inp.weight", ".ffn_gate_inp_shexp.weight", "_norm.weight", ".ssm_conv1d.weight",
)  # fmt: skip
"""Kept in float32: llama.cpp computes routers, norms and convolutions in nothing else."""


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the file.

    Attributes:
        name: in the file.
        shape: in numpy's order of dimensions, [..., O, I].
        type: it is written in.
    """

    name: str
    shape: tuple[int, ...]
    type: Type

    @property
    def n_bytes(self) -> int:
        """Bytes of its data in the file."""
        return int(np.prod(gguf.quant_shape_to_byte_shape(self.shape, self.type)))


class WholeModel:
    """The tuned model's tensors as llama.cpp names and orders them, made as they are asked for.

    Args:
        source: the adapter, which names base and architecture.
        weights: of the tuned model.
        dtype: of the weights, a key of `TYPES`.

    Raises:
        ExportError: a parameter of the model has no place in a GGUF.
    """

    def __init__(self, source: AdapterSource, weights: TunedWeights, dtype: str) -> None:
        self._architecture = source.base.architecture
        self._config = source.base.text_config
        self._weights = weights
        blocks = int(self._config["num_hidden_layers"])
        kind = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
        self._names = gguf.get_tensor_name_map(kind[self._architecture.gguf], blocks)
        self._extra = rope_tensors(self._config)
        self.tensors = [
            GgufTensor(name, values.shape, Type.F32) for name, values in self._extra.items()
        ]
        for parameter in weights.parameters():
            name, shape = self._name(parameter), tuple(parameter.array.shape)
            if own := self._architecture.gguf_parameter(parameter.path, parameter.key):
                shape = own[1](np.zeros(shape, np.float32)).shape
            self.tensors.append(GgufTensor(name, shape, _type(name, shape, TYPES[dtype])))

    def __iter__(self) -> Iterator[tuple[GgufTensor, np.ndarray]]:
        """Yield each tensor with its exact values in float32, in the file's order."""
        yield from zip(self.tensors, self._extra.values(), strict=False)
        rest = self.tensors[len(self._extra) :]
        for tensor, parameter in zip(rest, self._weights.parameters(), strict=True):
            yield tensor, self._values(parameter)
            mx.clear_cache()

    def _name(self, parameter: Parameter) -> str:
        """Return what GGUF calls a parameter: layers by our table, all else by gguf's own."""
        if own := self._architecture.gguf_parameter(parameter.path, parameter.key):
            return own[0]
        known = self._architecture.gguf_name(parameter.path)
        if known is not None:
            return known.removesuffix("weight") + parameter.key
        theirs = self._architecture.checkpoint_names(parameter.path)[0]
        theirs = theirs.replace("language_model.", "")
        found = self._names.get_name(theirs)
        if found is None:
            raise ExportError(
                f"{parameter.path}.{parameter.key}: this part of the model has no place in a GGUF "
                f"of architecture {self._architecture.gguf}; nothing was written.",
                "Merge into a GGUF of the base model: --base-gguf FILE.",
            )
        return f"{found}.{parameter.key}"

    def _values(self, parameter: Parameter) -> np.ndarray:
        values = np.array(parameter.array.astype(mx.float32))
        is_norm = parameter.key == "weight" and values.ndim == 1
        if own := self._architecture.gguf_parameter(parameter.path, parameter.key):
            values = own[1](values)
        elif is_norm and self._architecture.adds_one_to_norms:
            return values + 1
        outputs = values.shape[-2] if values.ndim > 1 else len(values)
        order = self._architecture.order(parameter.path, self._config, outputs)
        if values.ndim == 1:
            return values if order.rows is None else values[order.rows]
        return order.ordered(values)


def _type(name: str, shape: tuple[int, ...], wanted: Type) -> Type:
    """Return the type of a tensor: norms, biases and routers stay float32."""
    if len(shape) == 1 or name.endswith(_PLAIN):
        return Type.F32
    fits = wanted != Type.Q8_0 or shape[-1] % 32 == 0
    return wanted if fits else Type.F16
