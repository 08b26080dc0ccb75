"""A complete GGUF of the tuned model, made from the MLX weights alone: base + adapter.

Tensor by tensor, so that memory holds one at a time. Nothing of llama.cpp or torch is needed.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import gguf
import numpy as np

from orpo_mlx.adapters.files import WEIGHTS_FILE
from orpo_mlx.export.checks import ExportCheck, check_tensors
from orpo_mlx.export.formats.gguf_base import GGUF_ADAPTER, BaseGguf
from orpo_mlx.export.formats.gguf_changes import ROUNDING, Type
from orpo_mlx.export.new_gguf.header import add_sizes, require_described
from orpo_mlx.export.new_gguf.tensors import WholeModel
from orpo_mlx.export.new_gguf.vocabulary import (
    add_vocabulary,
    pre_tokenizer_name,
    read_tokenizer,
    tokenizer_model,
)
from orpo_mlx.export.ownership import GGUF_MARK
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.serving import with_llama
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.tuned import TunedWeights, own_dtype
from orpo_mlx.export.written import Exported, Target, require_space, sha256, write_file
from orpo_mlx.models.load import load_model, load_tokenizer
from orpo_mlx.text.commands import command_line
from orpo_mlx.text.formatting import counted, visible

FILE_TYPES = {
    Type.F32: int(gguf.LlamaFileType.ALL_F32),
    Type.F16: int(gguf.LlamaFileType.MOSTLY_F16),
    Type.BF16: int(gguf.LlamaFileType.MOSTLY_BF16),
    Type.Q8_0: int(gguf.LlamaFileType.MOSTLY_Q8_0),
}
_PHI = re.compile("phi-?3", re.IGNORECASE)
_HEADER_BYTES = 32 << 20
"""About what a large vocabulary takes."""


def export_whole(source: AdapterSource, target: Target, say: ExportListener) -> Exported:
    """Write the tuned model as one GGUF file.

    Raises:
        AdapterError, ModelError: the adapter or its base cannot be used.
        ExportError: architecture or tokenizer cannot be said in a GGUF here (what can is named),
            or the file cannot be written; nothing was.
        ExportCheckError: what was written is not the tuned model; it was removed.
    """
    require_described(source.base.architecture)
    pre = pre_tokenizer_name(
        read_tokenizer(source.base.settings_folder), source.base.architecture.gguf
    )
    say.step(0, 1, "reading the adapter")
    loaded = load_model(source.base.folder, lazy=True)
    wanted = target.options.get("weights_dtype", "keep")
    dtype = own_dtype(loaded) if wanted == "keep" else wanted
    model = WholeModel(source, TunedWeights(source, loaded, "float32"), dtype)
    require_space(target.path, sum(tensor.n_bytes for tensor in model.tensors) + _HEADER_BYTES)
    files = write_file(
        target,
        lambda path: _write(path, source, model, say),
        lambda path: _inspect(path, source, model, say),
        say.verified,
    )
    command = command_line("llama-cli", "-m", target.path)
    notes = _notes(source, model, pre)
    return Exported(target.path, files, command, [with_llama(target.path)], notes)


def _notes(source: AdapterSource, model: WholeModel, pre: str) -> list[str]:
    types = ", ".join(sorted({tensor.type.name for tensor in model.tensors}))
    notes = [f"Made from the MLX weights, which are written as {types}."]
    if source.base.is_quantized:
        notes.append(
            "The base is quantized, so the file has its rounded weights, unpacked: as large as "
            "the original model and no better than the quantized one. --base-gguf merges into a "
            "GGUF of the original."
        )
    if pre == "gpt-4o":
        notes.append(
            "llama.cpp cuts words with combining marks (Thai, Hindi) otherwise than this tokenizer "
            "does; all else gives the same tokens."
        )
    return notes


# Writing


def _write(path: Path, source: AdapterSource, model: WholeModel, say: ExportListener) -> None:
    base = source.base
    writer = gguf.GGUFWriter(path, base.architecture.gguf)
    writer.add_string(GGUF_MARK, "gguf")
    for key, value in _own_keys(source).items():
        writer.add_string(key, value)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(FILE_TYPES[_main_type(model)])
    add_sizes(writer, base.architecture, base.text_config)
    tokenizer = load_tokenizer(base.settings_folder, source.template_file)
    rows = _embedding_rows(model)
    add_vocabulary(writer, base.settings_folder, tokenizer, rows, source.template)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for tensor in model.tensors:
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32), tensor.n_bytes, tensor.type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, (tensor, values) in enumerate(model, start=1):
        with np.errstate(over="ignore"):  # what overflows is found by the checks
            writer.write_tensor_data(gguf.quants.quantize(values, tensor.type))
        say.step(done, len(model.tensors), "writing")
    writer.close()


def _own_keys(source: AdapterSource) -> dict[str, str]:
    name = visible(source.name)
    return {
        GGUF_ADAPTER: f"{name}, sha256 {sha256(source.folder / WEIGHTS_FILE)}",
        # A name with phi3 in it makes llama.cpp look for tokens that only Phi-3 has.
        gguf.Keys.General.NAME: _PHI.sub("phi", name),
    }


def _main_type(model: WholeModel) -> Type:
    """Return the type of the largest tensor, which names that of the file."""
    return max(model.tensors, key=lambda tensor: math.prod(tensor.shape)).type


def _embedding_rows(model: WholeModel) -> int:
    return next(t.shape[0] for t in model.tensors if t.name == "token_embd.weight")


# Checks


def _inspect(
    path: Path, source: AdapterSource, model: WholeModel, say: ExportListener
) -> list[ExportCheck]:
    """Open the file again and hold keys, names and every weight against the model."""
    found = BaseGguf(path)
    shapes = {name: found.shape(name) for name in found.tensors}
    checks = [check_tensors(shapes, {t.name: t.shape for t in model.tensors})]
    if checks[-1].passed:
        checks += [_check_keys(found, source, model), _check_weights(found, model, say)]
    return checks


def _check_keys(found: BaseGguf, source: AdapterSource, model: WholeModel) -> ExportCheck:
    architecture = source.base.architecture.gguf
    tokens = found.value("tokenizer.ggml.tokens") or []
    wanted = {
        **_own_keys(source),
        "general.architecture": architecture,
        f"{architecture}.block_count": int(source.base.text_config["num_hidden_layers"]),
        "tokenizer.ggml.model": tokenizer_model(
            read_tokenizer(source.base.settings_folder), architecture
        ),
    }
    wrong = [key for key, value in wanted.items() if found.value(key) != value]
    if len(tokens) != _embedding_rows(model):
        wrong.append("tokenizer.ggml.tokens")
    text = f"{wrong[0]} is wrong" if wrong else f"{architecture}, {counted(len(tokens), 'token')}"
    return ExportCheck("header", not wrong, float(len(wrong)), 0.0, text)


def _check_weights(found: BaseGguf, model: WholeModel, say: ExportListener) -> ExportCheck:
    """Compare every tensor with base + scale x B x A; the worst, against its type's step."""
    worst, where = 0.0, ""
    for done, (tensor, exact) in enumerate(model, start=1):
        ratio = _largest_error(found, tensor.name, exact) / ROUNDING[tensor.type]
        if ratio > worst:
            worst, where = ratio, tensor.name
        say.step(done, len(model.tensors), "checking")
    text = (
        f"{counted(len(model.tensors), 'tensor')}: base + scale x B x A to within {worst:.2g} of "
        f"the rounding their types allow{f' ({where})' if where else ''}"
    )
    advice = "" if worst < math.inf else "Write them wider: --weights-dtype bfloat16 or float32."
    return ExportCheck("weights", worst <= 1.0, worst, 1.0, text, advice)


def _largest_error(found: BaseGguf, name: str, exact: np.ndarray) -> float:
    """Return the largest error as a share of the tensor's largest weight; infinity for NaN."""
    written = found.rows(name, slice(None)).reshape(exact.shape)
    error = float(np.abs(written - exact).max())
    largest = float(np.abs(exact).max())
    if not math.isfinite(error):
        return math.inf
    return error / largest if largest else error
