"""The only door by which weights written by others come in.

MLX builds arrays from crafted safetensors files on which the first index is a segmentation fault,
and it accepts NaN, missing and surplus tensors in silence. So a file is read by the strict
`safetensors` reader first, its names and shapes must be exactly the expected ones, and its values
must be finite before anything uses them.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from orpo_mlx.errors import AdapterError, OrpoError, reason_of
from orpo_mlx.storage.regular import open_regular, read_regular

ADAPTER_DTYPES = frozenset({"F32", "F16", "BF16"})
# What `mx.load` reads and a model file may hold: floats, packed integers, scales in 8 bits.
MODEL_DTYPES = ADAPTER_DTYPES | {
    "U8", "U16", "U32", "U64", "I8", "I16", "I32", "I64", "BOOL", "F8_E4M3", "F8_E8M0",
}  # fmt: skip
MAX_DIMENSIONS = 8
MAX_ADAPTER_BYTES = 16 << 30

LFS_START = b"version https://git-lfs"

Shape = tuple[int, ...]


def check_safetensors(
    path: Path,
    within: Path | None = None,
    max_bytes: int | None = MAX_ADAPTER_BYTES,
    *,
    dtypes: Collection[str] = ADAPTER_DTYPES,
    error: type[OrpoError] = AdapterError,
) -> dict[str, tuple[str, Shape]]:
    """Read the header of a safetensors file and refuse everything unsound.

    Args:
        path: the file. A link is followed; what it leads to must be a regular file.
        within: a folder the file must really lie in, links resolved; None allows any place
            (the Hub's cache is made of links).
        max_bytes: the largest size allowed, None for any.
        dtypes: names of the number formats allowed, as safetensors writes them.
        error: the class of what is raised; `ModelError` for model weights.

    Returns:
        For each tensor its dtype and shape, sorted by name.

    Raises:
        AdapterError (or `error`): the file is missing, not a regular file, outside `within`, too
            large, a placeholder (Git-LFS pointer, HTML page), damaged, or holds a tensor with an
            odd dtype or more than 8 dimensions.
    """
    _check_regular_file(path, within, max_bytes, error)
    check_not_placeholder(path, error)
    tensors = _read_header(path, error)
    for name, (dtype, shape) in tensors.items():
        if dtype not in dtypes:
            raise error(
                f"{path}: tensor {name} has number format {dtype}; allowed here: "
                f"{', '.join(sorted(dtypes))}.",
                "Save the tensor in one of these formats.",
            )
        if len(shape) > MAX_DIMENSIONS:
            raise error(
                f"{path}: tensor {name} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} "
                "make sense.",
                "The file is damaged or made to do harm: get it again from a source you trust.",
            )
    return tensors


def _check_regular_file(
    path: Path, within: Path | None, max_bytes: int | None, error: type[OrpoError]
) -> None:
    try:
        found = path.stat()
    except (OSError, ValueError) as reason:
        raise error(
            f"{path}: the file cannot be read ({reason_of(reason)}).",
            "Check the path, or copy or download the folder again.",
        ) from reason
    if not stat.S_ISREG(found.st_mode):
        raise error(
            f"{path}: not a regular file; weights must be one.",
            "Replace it by the real file: pipes, devices and folders are never read.",
        )
    if within is not None and not path.resolve().is_relative_to(within.resolve()):
        raise error(
            f"{path}: the file is a link that leads out of {within}.",
            "Copy the file itself into the folder.",
        )
    if max_bytes is not None and found.st_size > max_bytes:
        raise error(
            f"{path}: {found.st_size} bytes; at most {max_bytes} are accepted here.",
            "Check that this is the right file.",
        )


def check_not_placeholder(path: Path, error: type[OrpoError] = AdapterError) -> None:
    """Refuse a text that stands where a file should be.

    Raises:
        AdapterError (or `error`): the file is a Git-LFS pointer or an HTML page.
    """
    try:
        with open_regular(path) as file:
            start = file.read(256)
    except OSError as reason:
        raise error(
            f"{path}: the file cannot be read ({reason_of(reason)}).",
            "Check its permissions, or download it again.",
        ) from reason
    if start.startswith(LFS_START):
        raise error(
            f"{path}: this is a Git-LFS pointer, a small text that stands for the real file.",
            "Download the real file again: run `git lfs pull` in the clone, or "
            "`hf download REPO --local-dir FOLDER`.",
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise error(
            f"{path}: this is an HTML page, not the file: a web page was saved in its place.",
            "Download the file again, for example with `hf download REPO --local-dir FOLDER`.",
        )


def read_json_object(path: Path, error: type[OrpoError]) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Raises:
        `error`: naming the file and, where there is one, the line.
    """
    check_not_placeholder(path, error)
    again = "Copy or download the file again."
    try:
        value = json.loads(read_regular(path))
    except json.JSONDecodeError as reason:
        raise error(
            f"{path}, line {reason.lineno}, column {reason.colno}: not JSON ({reason.msg}).", again
        ) from reason
    except (OSError, ValueError, RecursionError) as reason:
        raise error(f"{path}: not JSON ({reason_of(reason)}).", again) from reason
    if not isinstance(value, dict):
        raise error(f"{path}: holds a {type(value).__name__}; an object is needed.", again)
    return value


def _read_header(path: Path, error: type[OrpoError]) -> dict[str, tuple[str, Shape]]:
    from safetensors import safe_open

    tensors = {}
    try:
        with safe_open(str(path), framework="numpy") as file:
            for name in sorted(file.keys()):
                view = file.get_slice(name)
                tensors[name] = (str(view.get_dtype()), tuple(view.get_shape()))
    except Exception as reason:  # the reader is native code; whatever it objects to is a bad file
        raise error(
            f"{path}: not a sound safetensors file ({reason_of(reason)}).",
            "The file is incomplete or damaged: copy or download it again.",
        ) from reason
    return tensors


def check_expected(path: Path, found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Compare the tensors of a file with those that are needed.

    Raises:
        AdapterError: naming the first missing, surplus or misshapen tensor and the counts.
    """
    missing = [name for name in expected if name not in found]
    if missing:
        there = len(expected) - len(missing)
        raise AdapterError(
            f"{path}: {there} found of {len(expected)} expected tensors; first missing: "
            f"{missing[0]}.",
            "The file is incomplete or was made for other layers: check rank, layers and model.",
        )
    surplus = [name for name in found if name not in expected]
    if surplus:
        raise AdapterError(
            f"{path}: {len(surplus)} tensors have no place in this adapter; the first is "
            f"{surplus[0]}.",
            "The adapter was made for more or other layers: check its adapter_config.json.",
        )
    for name, shape in expected.items():
        if tuple(found[name]) != tuple(shape):
            raise AdapterError(
                f"{path}: tensor {name} has shape {tuple(found[name])}; {tuple(shape)} is needed.",
                "The rank in adapter_config.json or the model does not fit these weights.",
            )
