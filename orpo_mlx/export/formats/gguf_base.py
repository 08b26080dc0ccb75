"""A GGUF of a base model: found, opened, and held against the model an adapter was trained on.

Only the header is read; tensors are mapped and read as they are used.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

import gguf
import numpy as np

from orpo_mlx.errors import ExportError, ModelError, describe, reason_of
from orpo_mlx.export.base import BaseModel
from orpo_mlx.export.ownership import GGUF_MARK
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.models.download import download_gguf
from orpo_mlx.storage.regular import open_regular

_HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+?)(?::(.+\.gguf))?")
_SAME_MODEL = 0.9
"""Least correlation of the rows compared: 4-bit weights keep about 0.99, other models about 0."""
ROWS_COMPARED = 256
_MERGED = 0.5
"""Distance from the whole delta up to which it counts as being there."""
_CHANCES = 8.0
GGUF_ADAPTER = "orpo_mlx.adapter"
"""Name and sha256 of the adapter in a GGUF that was merged here."""
_PRE_WITH_BOS = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"}
    | {"tekken"}
)
"""`tokenizer.ggml.pre` of those byte-level tokenizers that add BOS unasked (llama-vocab.cpp)."""


class _BoundedReader(gguf.GGUFReader):
    """Raises where a length leads beyond the end of the file; the package would count on and on."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        if offset + int(count) * np.dtype(dtype).itemsize > len(self.data):
            raise ValueError("a length leads beyond the end of the file")
        return super()._get(offset, dtype, count, override_order)


class BaseGguf:
    """An open GGUF file.

    Attributes:
        path: where it lies.
        tensors: by name, as `gguf.GGUFReader` has them: `data` mapped, numpy order of dimensions.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            open_regular(path).close()
            self._reader = _BoundedReader(path)
        except Exception as error:  # cut or foreign files fail in every way
            raise ModelError(
                f"{path}: cannot be read as GGUF ({describe(error)}).",
                "Give a complete .gguf file of the base model; download it again if it is cut.",
            ) from error
        self.tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        if self._reader.byte_order == "S":
            raise ModelError(
                f"{path}: is big-endian.", "Take a little-endian one, as all usual files are."
            )
        if empty := next((t.name for t in self._reader.tensors if not t.n_elements), None):
            raise ModelError(
                f"{path}: its tensor {empty!r:.60} has no values.",
                "Download the file again; it is damaged.",
            )
        parts = self.number("split.count") or 1
        if parts > 1:
            raise ModelError(
                f"{path}: is one of {parts} parts of a split GGUF.",
                "Join them first with llama.cpp: llama-gguf-split --merge FIRST_PART OUT.gguf.",
            )

    def value(self, key: str) -> Any:
        """Return the value of a key of the header, None if it is not there."""
        field = self._reader.get_field(key)
        try:
            return field.contents() if field else None
        except ValueError as error:
            raise ModelError(
                f"{self.path}: {key} cannot be read ({reason_of(error)}).",
                "Download the file again; it is damaged.",
            ) from error

    def number(self, key: str) -> int | None:
        """Return the value of a key of the header that must be a whole number."""
        value = self.value(key)
        if value is None or isinstance(value, int | np.integer):
            return None if value is None else int(value)
        raise ModelError(
            f"{self.path}: {key} is {value!r:.40}; a whole number is needed.",
            "Download the file again; it is damaged.",
        )

    @property
    def adds_bos(self) -> bool:
        """Whether llama.cpp puts the BOS token before a text: what the file says, or its rule."""
        said = self.value("tokenizer.ggml.add_bos_token")
        if said is not None:
            return bool(said)
        kind, pre = self.value("tokenizer.ggml.model"), self.value("tokenizer.ggml.pre")
        return kind == "llama" or (kind == "gpt2" and pre in _PRE_WITH_BOS)

    def copy_keys(self, writer: gguf.GGUFWriter, but: Collection[str]) -> None:
        """Write the keys of the header into a new file, except some and the architecture."""
        for field in self._reader.fields.values():
            if field.name.startswith("GGUF.") or field.name == gguf.Keys.General.ARCHITECTURE:
                continue
            if field.name in but:
                continue
            kind, is_array = field.types[0], field.types[0] == gguf.GGUFValueType.ARRAY
            if is_array and not field.data:
                continue  # an empty array says what a missing key says; the writer takes none
            if field.types[-1] == gguf.GGUFValueType.STRING:
                # Tokens need not be UTF-8: their bytes are copied.
                texts = [field.parts[i].tobytes() for i in field.data]
                value: Any = texts if is_array else texts[0]
            else:
                value = field.contents()
            inner = field.types[-1] if is_array else None
            writer.add_key_value(field.name, value, kind, sub_type=inner)

    def key_bytes(self) -> dict[str, bytes]:
        """Return every key of the header with its type and value, as they lie in the file."""
        return {
            field.name: b"".join(part.tobytes() for part in field.parts[2:])
            for field in self._reader.fields.values()
            if not field.name.startswith("GGUF.")
            and (field.data or field.types[0] != gguf.GGUFValueType.ARRAY)
        }

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor in numpy's order of dimensions, [O, I]."""
        return tuple(int(n) for n in reversed(self.tensors[name].shape))

    def rows(self, name: str, rows: slice) -> np.ndarray:
        """Return rows of a tensor in float32, de-quantized; of experts all rows in one dimension.

        Args:
            name: of the tensor, [..., I].
            rows: of the tensor as [O, I], the dimensions before the last joined.
        """
        tensor = self.tensors[name]
        data = tensor.data.reshape(-1, tensor.data.shape[-1])[rows]
        try:
            with np.errstate(invalid="ignore", over="ignore"):  # the checks find what is not finite
                return np.asarray(gguf.quants.dequantize(data, tensor.tensor_type), np.float32)
        except NotImplementedError as error:
            raise ModelError(
                f"{self.path}: {name} is of type {tensor.tensor_type.name}, which cannot be "
                "unpacked here.",
                "Give a GGUF of another type: F16, BF16, Q8_0, Q4_K_M, ...",
            ) from error


def open_base_gguf(text: str, say: ExportListener) -> BaseGguf:
    """Open the GGUF file a user names.

    Args:
        text: a path, or a Hub repository: OWNER/NAME, or OWNER/NAME:FILE.gguf if it has several.
        say: told of the download.

    Raises:
        ModelError: it is not there, not GGUF, damaged or in parts.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return BaseGguf(path)
    found = _HUB_FILE.fullmatch(text)
    is_file = text.startswith((".", "/", "~")) or (text.endswith(".gguf") and ":" not in text)
    if path.exists() or found is None or is_file:
        kind = "is a folder" if path.is_dir() else "there is no such file"
        raise ModelError(
            f"--base-gguf {text}: {kind}.",
            "Give a .gguf file of the base model, or a Hub repository: OWNER/NAME:FILE.gguf.",
        )
    say.step(0, 1, f"finding {text} on the Hub")
    return BaseGguf(download_gguf(found[1], found[2]))


def require_architecture(base: BaseGguf, model: BaseModel) -> None:
    """Refuse a GGUF of another architecture or number of blocks.

    Raises:
        ExportError: naming both.
    """
    ours, theirs = model.architecture.gguf, base.value("general.architecture")
    if theirs != ours:
        raise ExportError(
            f"{base.path}: holds a model of architecture {theirs}; the adapter is for {model.name} "
            f"({ours}). Nothing was written.",
            f"Give a GGUF of {model.original_id()[0]} with --base-gguf.",
        )
    blocks = base.number(f"{theirs}.block_count")
    wanted = model.text_config.get("num_hidden_layers")
    if blocks is not None and wanted is not None and blocks != int(wanted):
        raise ExportError(
            f"{base.path}: has {blocks} blocks, {model.name} has {wanted}. Nothing was written.",
            f"Give a GGUF of {model.original_id()[0]} with --base-gguf.",
        )


def require_unmerged(base: BaseGguf) -> None:
    """Refuse a GGUF that an export has merged an adapter into.

    Raises:
        ExportError: naming that adapter.
    """
    if base.value(GGUF_MARK) is not None:
        _refuse_merged(base, f"({base.value(GGUF_ADAPTER)})")


def require_no_delta(base: BaseGguf, name: str, weight: np.ndarray, delta: np.ndarray) -> None:
    """Refuse a GGUF whose weights have this adapter in them already, whoever merged it.

    Args:
        base: the file.
        name: of its tensor.
        weight, delta: its first rows as the model has them, and what the adapter adds there.

    Raises:
        ExportError: the weights of the file are nearer to weight + delta than to weight.
    """
    found = base.rows(name, slice(0, len(weight))) - weight
    product, square = float((found * delta).sum()), float(np.square(delta).sum())
    if not square:
        return
    share = product / square
    # What quantizing the file did is no part of the delta: its share is 0, give or take this.
    chance = float(np.linalg.norm(found)) / (square * found.size) ** 0.5
    if abs(share - 1) < _MERGED and share > _CHANCES * chance:
        _refuse_merged(base, f"(this one, as {name} shows)")


def _refuse_merged(base: BaseGguf, which: str) -> NoReturn:
    raise ExportError(
        f"{base.path}: an adapter is merged into it already {which}; this one would be added to "
        "that. Nothing was written.",
        "Give the GGUF of the base model itself with --base-gguf.",
    )


def likeness(base: BaseGguf, name: str, weight: np.ndarray) -> float:
    """Return how far the first rows of a GGUF tensor are those of a weight, -1 to 1.

    Args:
        base: the file.
        name: of its tensor.
        weight: first rows [N, I] in the file's order, de-quantized.
    """
    theirs = base.rows(name, slice(0, len(weight)))
    return float(np.corrcoef(weight.ravel(), theirs.ravel())[0, 1])


def require_likeness(found: float, base: BaseGguf, name: str, model: BaseModel) -> None:
    """Refuse a GGUF whose weights are not those the adapter was trained on.

    Raises:
        ExportError: the correlation is low, or there is none.
    """
    # NaN fails the comparison.
    if not found >= _SAME_MODEL:
        raise ExportError(
            f"{base.path}: the weights of {name} are not those of {model.name} (correlation "
            f"{found:.2f}; the same model has 0.9 and more). Nothing was written.",
            f"Give a GGUF of {model.original_id()[0]}, of exactly this model and version.",
        )
