"""Weights from outside: what the gate lets in and how it says no."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.errors import AdapterError, ModelError
from orpo_mlx.models.weights import load_checked
from orpo_mlx.storage.safetensors import MODEL_DTYPES, check_safetensors


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "adapters.safetensors"
    mx.save_safetensors(
        str(path), {"a": mx.arange(6.0).reshape(2, 3), "b": mx.ones((4,), dtype=mx.bfloat16)}
    )
    return path


def write_file(path: Path, header: dict[str, Any], data: bytes) -> Path:
    """Write a safetensors file by hand, as the format's description says."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_a_sound_file_gives_names_number_formats_and_shapes(weights: Path) -> None:
    assert check_safetensors(weights, weights.parent) == {"a": ("F32", (2, 3)), "b": ("BF16", (4,))}


def test_a_sound_file_gives_the_values_that_were_saved(weights: Path) -> None:
    arrays = load_checked(weights, {"a": (2, 3), "b": (4,)}, weights.parent)
    assert np.array(arrays["a"]).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["b"].dtype == mx.bfloat16


def test_half_of_the_tensors_are_not_enough(weights: Path) -> None:
    expected = {"a": (2, 3), "b": (4,), "c": (1,), "d": (1,)}
    with pytest.raises(AdapterError, match=r"2 found of 4 expected.*first missing: c"):
        load_checked(weights, expected, weights.parent)


def test_a_surplus_tensor_is_refused_by_name(weights: Path) -> None:
    with pytest.raises(AdapterError, match="the first is b"):
        load_checked(weights, {"a": (2, 3)}, weights.parent)


def test_another_shape_is_refused_with_both_shapes(weights: Path) -> None:
    with pytest.raises(AdapterError, match=r"tensor a has shape \(2, 3\); \(3, 2\) is needed"):
        load_checked(weights, {"a": (3, 2), "b": (4,)}, weights.parent)


def test_nan_and_infinity_are_refused_with_name_and_count(tmp_path: Path) -> None:
    path = tmp_path / "adapters.safetensors"
    values = mx.array([1.0, float("nan"), float("inf"), 2.0, float("-inf")])
    mx.save_safetensors(str(path), {"good": mx.ones((2,)), "worse": values})
    with pytest.raises(AdapterError, match=r"tensor worse holds 3 values.*of 5 \(1 of 2"):
        load_checked(path, {"good": (2,), "worse": (5,)}, tmp_path)


def test_integers_are_no_adapter_weights(tmp_path: Path) -> None:
    path = tmp_path / "adapters.safetensors"
    mx.save_safetensors(str(path), {"a": mx.ones((2,), dtype=mx.int8)})
    with pytest.raises(AdapterError, match="tensor a has number format I8"):
        check_safetensors(path, tmp_path)
    assert check_safetensors(path, tmp_path, dtypes=MODEL_DTYPES) == {"a": ("I8", (2,))}


def test_a_file_with_a_thousand_dimensions_is_refused(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [1] * 1000, "data_offsets": [0, 4]}}
    path = write_file(tmp_path / "a.safetensors", header, b"\0" * 4)
    with pytest.raises(AdapterError, match="1000 dimensions"):
        check_safetensors(path, tmp_path)


@pytest.mark.parametrize(
    ("shape", "offsets", "data"),
    [
        ([65536] * 4, [0, 0], b""),
        ([2], [0, 2**63], b"\0" * 8),
        ([-1, -1], [0, 4], b"\0" * 4),
        ([2], [4, 12], b"\0" * 12),
        ([2], [0, 8], b"\0" * 12),
        ([2.0], [0, 8], b"\0" * 8),
    ],
    ids=["product wraps", "offset past the end", "negative", "hole", "trailing bytes", "float"],
)
def test_headers_that_mlx_would_accept_are_refused(
    tmp_path: Path, shape: list[Any], offsets: list[int], data: bytes
) -> None:
    header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
    path = write_file(tmp_path / "a.safetensors", header, data)
    with pytest.raises(AdapterError, match="not a sound safetensors file"):
        check_safetensors(path, tmp_path)


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    os.mkfifo(path)
    with pytest.raises(AdapterError, match="not a regular file"):
        check_safetensors(path, tmp_path)


def test_a_missing_file_is_an_adapter_error(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot be read"):
        check_safetensors(tmp_path / "none.safetensors", tmp_path)


def test_a_link_out_of_the_folder_is_refused_unless_allowed(weights: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    link = inside / "adapters.safetensors"
    link.symlink_to(weights)
    with pytest.raises(AdapterError, match="leads out of"):
        check_safetensors(link, inside)
    assert set(check_safetensors(link)) == {"a", "b"}


def test_a_file_above_the_size_limit_is_refused(weights: Path) -> None:
    with pytest.raises(AdapterError, match="at most 10 are accepted"):
        check_safetensors(weights, weights.parent, max_bytes=10)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git-LFS pointer"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page"),
        (b"\n <html>", "an HTML page"),
    ],
)
def test_placeholders_are_called_by_their_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said):
        check_safetensors(path, error=ModelError)


def mutate(content: bytes, dice: random.Random) -> bytes:
    """Damage a file in one of the ways files get damaged."""
    data = bytearray(content)
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    kind = dice.randrange(6)
    if kind == 0:
        return bytes(data[: dice.randrange(len(data))])
    if kind == 1:
        return bytes(data + dice.randbytes(dice.randrange(1, 40)))
    if kind == 2:
        data[:8] = struct.pack("<Q", dice.choice([0, 1, 2**31, 2**63, dice.randrange(500)]))
    elif kind == 3:
        at = dice.randrange(8, header_end)
        data[at : at + 1] = dice.choice([b"-", b"9", b"0", b"[", b"]", b'"', b",", b"\xff", b"e"])
    elif kind == 4:
        for _ in range(dice.randrange(1, 5)):
            data[dice.randrange(header_end)] = dice.randrange(256)
    else:
        at, end = sorted(dice.randrange(8, header_end) for _ in range(2))
        del data[at:end]
    return bytes(data)


def test_three_thousand_damaged_files_give_nothing_but_adapter_errors(weights: Path) -> None:
    content, dice = weights.read_bytes(), random.Random(0)
    shapes = {"a": (2, 3), "b": (4,)}
    refused = 0
    for _ in range(3000):
        weights.write_bytes(mutate(content, dice))
        try:
            arrays = load_checked(weights, shapes, weights.parent)
        except AdapterError:
            refused += 1
        else:
            assert {name: array.shape for name, array in arrays.items()} == shapes
    assert refused > 2500
