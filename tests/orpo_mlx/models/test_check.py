"""Model folders: what is wrong with one is named before weights are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from orpo_mlx.errors import ModelError
from orpo_mlx.models.check import check_model_folder, check_model_type, supported_model_types


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON object; None removes a key."""
    content = {**json.loads(path.read_text()), **changes}
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept))


def refused(folder: Path) -> ModelError:
    """Check the folder, expect a refusal, and return it."""
    with pytest.raises(ModelError) as error:
        check_model_folder(folder)
    assert error.value.what_to_do
    return error.value


# Sound folders


def test_links_to_regular_files_are_a_model_as_in_the_hub_cache(
    folder: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    assert check_model_folder(linked)["model_type"] == "llama"


def test_checking_a_folder_imports_neither_mlx_nor_transformers(model_folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from orpo_mlx.models.check import check_model_folder;"
        "check_model_folder(Path(sys.argv[1]));"
        "sys.exit(bool({'mlx', 'mlx_lm', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(model_folder)]).returncode == 0


def test_the_list_of_architectures_holds_models_and_no_shared_parts() -> None:
    known = supported_model_types()
    assert {"llama", "qwen3", "qwen3_moe", "gemma3", "phi3"} <= set(known)
    assert not {"base", "cache", "switch_layers", "rope_utils", "__init__"} & set(known)


def test_a_type_that_mlx_lm_maps_to_another_is_known() -> None:
    check_model_type({"model_type": "mistral"}, "config.json")


# config.json


def test_a_folder_without_config_names_the_missing_file(tmp_path: Path) -> None:
    assert "config.json is missing" in refused(tmp_path).message
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "this is an adapter" in refused(tmp_path).message


def test_a_single_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    assert "not a folder" in refused(path).message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{\n"model_type": "llama",\n"hidden', "config.json, line 3, column"),
        (b"[1, 2]", "holds a list"),
        (b"{}", "model_type is missing"),
        (b'{"model_type": 7}', "model_type is 7"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "this is a Git-LFS pointer"),
        (b"<!doctype html>", "this is an HTML page"),
        (b'{"model_type": "lama"}', "Did you mean llama?"),
        (b'{"model_type": "../llama"}', "is not supported by mlx-lm"),
        (b'{"model_type": "base"}', "is not supported by mlx-lm"),
    ],
)
def test_a_damaged_config_is_named(folder: Path, content: bytes, said: str) -> None:
    (folder / "config.json").write_bytes(content)
    assert said in refused(folder).message


def test_an_unknown_architecture_shows_version_and_list_command(folder: Path) -> None:
    import mlx_lm

    edit_json(folder / "config.json", model_type="hal9000")
    error = refused(folder)
    assert "'hal9000'" in error.message
    assert mlx_lm.__version__ in error.message
    command = error.what_to_do.split("List: ")[1].split('"')[1]
    listed = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert "llama" in listed.stdout.split()


def test_a_folder_without_tokenizer_says_what_was_looked_for(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json, tokenizer.model" in refused(folder).message


# Weights


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "w.npz"])
def test_pickle_weights_are_named_and_the_way_to_safetensors_is_shown(
    folder: Path, name: str
) -> None:
    (folder / "model.safetensors").rename(folder / name)
    error = refused(folder)
    assert "pickle weights are not read" in error.message
    assert name in error.message
    assert "mlx_lm.convert" in error.what_to_do


def test_other_weight_names_are_shown(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    assert "(found: consolidated.safetensors)" in refused(folder).message


def test_a_missing_shard_is_named_from_the_index(folder: Path) -> None:
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    (folder / "model.safetensors").rename(folder / shards[0])
    mx.save_safetensors(str(folder / shards[2]), {"other": mx.ones((1,))})
    index = {"weight_map": {"a": shards[0], "b": shards[1], "c": shards[2]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    message = refused(folder).message
    assert "1 of 3 weight files" in message
    assert shards[1] in message


def test_a_name_in_the_index_is_never_used_as_a_path(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "../copy/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "the first is ../copy/model.safetensors" in refused(folder).message


def test_a_tensor_in_two_files_is_refused(folder: Path) -> None:
    mx.save_safetensors(
        str(folder / "model-old.safetensors"), {"model.norm.weight": mx.ones((64,))}
    )
    message = refused(folder).message
    assert "model.norm.weight is in model-old.safetensors and in model.safetensors" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "this is a Git-LFS pointer",
        ),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\x10\0\0\0\0\0\0\0{}", "not a sound safetensors file"),
        (b"", "not a sound safetensors file"),
    ],
)
def test_what_stands_in_the_place_of_weights_is_named(
    folder: Path, content: bytes, said: str
) -> None:
    (folder / "model.safetensors").write_bytes(content)
    message = refused(folder).message
    assert said in message
    assert "model.safetensors" in message


def test_a_pipe_in_the_place_of_weights_does_not_hang(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    assert "not a regular file" in refused(folder).message


def test_half_of_the_weights_are_missing(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "not a sound safetensors file" in refused(folder).message
