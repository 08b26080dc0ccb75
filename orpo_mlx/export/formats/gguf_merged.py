"""A complete GGUF of the tuned model: the adapter added to a GGUF of the base model.

Tensor by tensor, so that memory holds one at a time. Tensors the adapter does not touch are copied
byte for byte; tokenizer and settings are those of the base file. No torch and no llama.cpp. Without
a base file `new_gguf` writes one anew.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np

from orpo_mlx.adapters.files import WEIGHTS_FILE
from orpo_mlx.errors import ExportError
from orpo_mlx.export.answers import KeptChange
from orpo_mlx.export.base_weights import BaseWeights
from orpo_mlx.export.checks import ExportCheck, check_tensors
from orpo_mlx.export.formats.gguf_answers import kept_change
from orpo_mlx.export.formats.gguf_base import (
    GGUF_ADAPTER,
    ROWS_COMPARED,
    BaseGguf,
    likeness,
    open_base_gguf,
    require_architecture,
    require_likeness,
    require_no_delta,
    require_unmerged,
)
from orpo_mlx.export.formats.gguf_changes import (
    Change,
    Type,
    bytes_of,
    check_changes,
    plan_changes,
    size_of,
)
from orpo_mlx.export.new_gguf.whole import FILE_TYPES, export_whole
from orpo_mlx.export.ownership import GGUF_MARK
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.serving import with_llama
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.written import (
    Exported,
    Inspect,
    Target,
    check_checksums,
    require_space,
    sha256,
    write_file,
    write_folder,
)
from orpo_mlx.text.commands import command_line
from orpo_mlx.text.formatting import counted, visible

Keys = gguf.Keys.General

_PHI = re.compile("phi-?3", re.IGNORECASE)


def export(source: AdapterSource, target: Target, say: ExportListener) -> Exported:
    """Merge the adapter into a GGUF of its base, or write one anew if none is given.

    Raises:
        AdapterError, ModelError: the adapter, its base or the GGUF cannot be used.
        ExportError: they do not belong together, or the file cannot be written; nothing was.
        ExportCheckError: what was written is not the tuned model; it was removed.
    """
    if not target.options.get("base_gguf"):
        return export_whole(source, target, say)
    say.step(0, 1, "reading the adapter")
    base = open_base(source, target, say)
    require_architecture(base, source.base)
    require_unmerged(base)
    notes: list[str] = []
    changes = plan_changes(source, base, target.options.get("weights_dtype", "keep"))
    _require_same_model(changes, base, source, say, notes)
    require_space(target.path, size_of(base, changes))
    keys = _own_keys(source, base, changes)

    def inspect(path: Path) -> list[ExportCheck]:
        checks = _inspect(path, base, changes, keys, say)
        if all(check.passed for check in checks):
            kept = kept_change(path, source, base, changes, say)
            notes.extend(_rounding_notes(kept, changes))
        return checks

    files = write_file(
        target,
        lambda path: _write(path, base, changes, keys, say),
        inspect,
        say.verified,
    )
    notes = [*_notes(changes, base), *notes]
    command = command_line("llama-cli", "-m", target.path)
    return Exported(target.path, files, command, [with_llama(target.path)], notes)


def open_base(source: AdapterSource, target: Target, say: ExportListener) -> BaseGguf:
    """Open the GGUF that --base-gguf names.

    Raises:
        ExportError: it names none.
        ModelError: it cannot be read.
    """
    wanted = target.options.get("base_gguf")
    if not wanted:
        raise ExportError(
            "--to ollama: into which GGUF is the adapter merged?",
            f"Give one of the base model ({source.base.original_id()[0]}): --base-gguf FILE or "
            "--base-gguf OWNER/NAME:FILE.gguf.",
        )
    return open_base_gguf(wanted, say)


def export_folder(
    source: AdapterSource,
    target: Target,
    name: str,
    say: ExportListener,
    more: Mapping[str, str] | None = None,
    inspect: Inspect = lambda _: [],
) -> Exported:
    """Merge as `export` does, into a folder of its own.

    Args:
        source: the adapter.
        target: the folder.
        name: of the GGUF in it.
        say: told of both checks.
        more: text of further files by name.
        inspect: checks these in the folder.
    """
    merged: list[Exported] = []

    def write(folder: Path) -> None:
        inner = replace(target, path=folder / name, is_file=True, force=False)
        merged.append(export(source, inner, say))
        for file, text in (more or {}).items():
            (folder / file).write_text(text, encoding="utf-8")

    def inspect_all(folder: Path) -> list[ExportCheck]:
        return [*inspect(folder), check_checksums(folder)]

    files = write_folder(target, write, inspect_all, say.verified)
    serve = [with_llama(target.path / name)]
    return replace(merged[0], path=target.path, files=files, serve=serve)


# Before anything is written


def _require_same_model(
    changes: dict[str, Change],
    base: BaseGguf,
    source: AdapterSource,
    say: ExportListener,
    notes: list[str],
) -> None:
    """Compare weights of the file with the model's own, where that is on this machine."""
    if not any(source.base.settings_folder.glob("model*.safetensors")):
        notes.append(
            f"The weights of {source.base.name} are not on this machine, so it was not checked "
            "that the GGUF is of the same model."
        )
        return
    say.step(0, 1, "comparing the GGUF with the base model")
    weights, seen = BaseWeights(source.base), set()
    for name, change in changes.items():
        kind = name.rpartition("blk.")[2].partition(".")[2]
        if kind in seen:
            continue  # one of each kind shows a wrong model or order
        seen.add(kind)
        weight = weights.weight(change.layer.path)
        flat = weight if weight.ndim == 2 else weight[0]
        order = source.base.architecture.order(
            change.layer.path, source.base.text_config, len(flat)
        )
        ours = order.ordered(flat)[:ROWS_COMPARED]
        delta = change.tuned(ours, slice(0, len(ours))) - ours
        require_no_delta(base, name, ours, delta)
        require_likeness(likeness(base, name, ours), base, name, source.base)


# Writing


def _own_keys(
    source: AdapterSource, base: BaseGguf, changes: dict[str, Change]
) -> dict[str, str | int]:
    """Return the keys of the header that are not the base's."""
    digest, name = sha256(source.folder / WEIGHTS_FILE), visible(source.name)
    keys: dict[str, str | int] = {
        GGUF_MARK: "gguf",
        GGUF_ADAPTER: f"{name}, sha256 {digest}",
        # A name with phi3 in it makes llama.cpp look for tokens that only Phi-3 has.
        Keys.NAME: f"{base.value(Keys.NAME) or ''} {_PHI.sub('phi', name)}".strip(),
    }
    before = _main_type({name: tensor.tensor_type for name, tensor in base.tensors.items()}, base)
    types = {n: changes[n].type if n in changes else t.tensor_type for n, t in base.tensors.items()}
    after = _main_type(types, base)
    file_type = base.number(Keys.FILE_TYPE) if after == before else FILE_TYPES.get(after)
    return keys if file_type is None else {**keys, Keys.FILE_TYPE: file_type}


def _main_type(types: dict[str, Type], base: BaseGguf) -> Type:
    """Return the type of most weights."""
    sizes = Counter[Type]()
    for name, kind in types.items():
        sizes[kind] += math.prod(base.shape(name))
    return sizes.most_common(1)[0][0]


def _write(
    path: Path,
    base: BaseGguf,
    changes: dict[str, Change],
    keys: dict[str, str | int],
    say: ExportListener,
) -> None:
    writer = gguf.GGUFWriter(path, str(base.value("general.architecture")))
    for key, value in keys.items():
        writer.add_string(key, value) if isinstance(value, str) else writer.add_uint32(key, value)
    base.copy_keys(writer, keys)
    alignment = base.number("general.alignment")
    if alignment:
        writer.data_alignment = int(alignment)
    for name, tensor in base.tensors.items():
        if name not in changes:
            data = tensor.data
            writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
            continue
        kind, shape = changes[name].type, base.shape(name)
        size = bytes_of(changes[name], base)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, (name, tensor) in enumerate(base.tensors.items(), start=1):
        change = changes.get(name)
        writer.write_tensor_data(_encoded(change, base) if change else np.asarray(tensor.data))
        say.step(done, len(base.tensors), "merging")
    writer.close()


def _encoded(change: Change, base: BaseGguf) -> np.ndarray:
    """Return the bytes of a tuned tensor in its type."""
    shape = base.shape(change.name)
    width = gguf.quant_shape_to_byte_shape(shape, change.type)[-1]
    out = np.empty((int(np.prod(shape[:-1])), width), np.uint8)
    for rows in change.row_slices():
        encoded = gguf.quants.quantize(change.merged(base, rows), change.type)
        out[rows] = encoded.view(np.uint8).reshape(-1, width)
    return out


# Checks


def _inspect(
    path: Path,
    base: BaseGguf,
    changes: dict[str, Change],
    keys: dict[str, str | int],
    say: ExportListener,
) -> list[ExportCheck]:
    """Open the file again and hold every tensor against the base and the adapter."""
    found = BaseGguf(path)
    shapes = {name: found.shape(name) for name in found.tensors}
    checks = [check_tensors(shapes, {name: base.shape(name) for name in base.tensors})]
    if not checks[-1].passed:
        return checks
    kept = [name for name in base.tensors if name not in changes]
    differs = [n for n in kept if not _samebytes_of(found, base, n)]
    text = f"{counted(len(kept), 'tensor')} the adapter does not touch: " + (
        f"{differs[0]} differs" if differs else "the base's, byte for byte"
    )
    checks.append(ExportCheck("untouched", not differs, float(len(differs)), 0.0, text))
    checks.append(_check_keys(found, base, keys))
    checks.append(check_changes(found, base, changes, say))
    return checks


def _check_keys(found: BaseGguf, base: BaseGguf, own: dict[str, str | int]) -> ExportCheck:
    """Settings, tokenizer and chat template are the base's, byte for byte; a few keys our own."""
    ours, theirs = found.key_bytes(), base.key_bytes()
    wrong = [k for k in {**ours, **theirs} if k not in own and ours.get(k) != theirs.get(k)]
    wrong += [key for key, value in own.items() if found.value(key) != value]
    text = f"{counted(len(ours), 'key')} of the header: " + (
        f"{wrong[0]} differs" if wrong else f"the base's, but {', '.join(own)}"
    )
    return ExportCheck("header", not wrong, float(len(wrong)), 0.0, text)


def _samebytes_of(found: BaseGguf, base: BaseGguf, name: str) -> bool:
    one, other = found.tensors[name], base.tensors[name]
    return one.tensor_type == other.tensor_type and np.array_equal(
        one.data.reshape(-1).view(np.uint8), other.data.reshape(-1).view(np.uint8)
    )


def _rounding_notes(kept: KeptChange | None, changes: dict[str, Change]) -> list[str]:
    """Return what the rounding does to the answers, or that it was not measured."""
    types = ", ".join(sorted({change.type.name for change in changes.values()}))
    if kept is None:
        return [
            f"Rounding to {types}: what it does to the answers was not measured, which takes the "
            "weights of the MLX model, and memory for all of them in float32."
        ]
    return kept.notes(types, "choose --weights-dtype float16 or a finer base GGUF.")


def _notes(changes: dict[str, Change], base: BaseGguf) -> list[str]:
    coarse = sorted(
        {
            base.tensors[name].tensor_type.name
            for name, change in changes.items()
            if base.tensors[name].tensor_type != change.type
        }
    )
    if not coarse:
        return []
    written = sorted({change.type.name for change in changes.values()})
    return [
        f"The tensors the adapter changes were {', '.join(coarse)} and are written as "
        f"{', '.join(written)}; all others are as they were."
    ]
