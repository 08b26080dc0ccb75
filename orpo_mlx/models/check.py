"""A model folder, checked before its weights are read and without mlx.

mlx-lm and transformers answer the same mistakes with some twenty kinds of exception, or ask on the
terminal whether to run a model's code. Here each mistake is one `ModelError` that names the file,
and no code that comes with a model is ever run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import re
from collections.abc import Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

from orpo_mlx.errors import ModelError
from orpo_mlx.storage.safetensors import (
    MODEL_DTYPES,
    check_not_placeholder,
    check_safetensors,
    read_json_object,
)
from orpo_mlx.text.spelling import did_you_mean

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
INDEX = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".npz", ".pkl", ".ckpt")
TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("tiktoken.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
)


def check_model_folder(path: Path) -> dict[str, Any]:
    """Check everything that can be checked without reading the weights themselves.

    Returns:
        The content of config.json.

    Raises:
        ModelError: naming the file that is missing, damaged, unsupported or wants to run code.
    """
    config = _check_config(path)
    tokenizer_config = path / TOKENIZER_CONFIG
    if tokenizer_config.exists():
        refuse_code(read_json_object(tokenizer_config, ModelError), str(tokenizer_config))
    _check_tokenizer_files(path)
    _check_layers(config, weight_headers(path), str(path / CONFIG))
    _check_end_tokens(path, config)
    return config


def _check_end_tokens(path: Path, config: dict[str, Any]) -> None:
    """Refuse an end of text that no token is: answers would never end."""
    inner = config.get("text_config")
    size = config.get("vocab_size") or (inner.get("vocab_size") if isinstance(inner, dict) else 0)
    size = size if isinstance(size, int) else 0
    for name in (CONFIG, "generation_config.json"):
        if not (path / name).exists():
            continue
        given = read_json_object(path / name, ModelError).get("eos_token_id")
        for token in given if isinstance(given, list) else [given]:
            last = f"; the last token of the vocabulary is {size - 1}" if size else ""
            if token is None or (isinstance(token, int) and 0 <= token < (size or math.inf)):
                continue
            raise ModelError(
                f"{path / name}: eos_token_id is {token!r:.40}{last}.",
                "Put the id of the model's own end token there, or download the file again.",
            )


_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")


def _check_layers(config: dict[str, Any], headers: Mapping[str, Sized], where: str) -> None:
    """Refuse more blocks than the weights can be for: each would be built before it is missed."""
    tensors = sum(map(len, headers.values()))
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        for key in _LAYERS:
            if isinstance(layers := part.get(key), int) and layers > max(tensors, 1):
                raise ModelError(
                    f"{where}: {key} is {layers if layers < 1 << 63 else 'a huge number'}, but "
                    f"the weights have {tensors} tensors.",
                    "The file is damaged or of another model: download the model again.",
                )


def _check_config(path: Path) -> dict[str, Any]:
    if path.suffix in (".jsonl", ".json") and path.is_file():
        raise ModelError(
            f"{path}: a file; a model is a folder with config.json and model*.safetensors.",
            "If these are the preference pairs, give them as --data and the model as --model.",
        )
    if not path.is_dir():
        raise ModelError(
            f"{path}: not a folder; a model is a folder with config.json and model*.safetensors.",
            "GGUF and other single files cannot be trained: give the folder of the original model.",
        )
    if not (path / CONFIG).exists():
        if (path / "adapter_config.json").exists():
            raise ModelError(
                f"{path}: this is an adapter, not a model ({CONFIG} is missing).",
                "Give the base model as --model and this folder as --init-adapter.",
            )
        raise ModelError(
            f"{path}: {CONFIG} is missing, so this is no model folder.",
            "Give the folder that holds config.json, tokenizer files and model*.safetensors.",
        )
    config = read_json_object(path / CONFIG, ModelError)
    refuse_code(config, str(path / CONFIG))
    check_model_type(config, str(path / CONFIG))
    return config


def refuse_code(config: dict[str, Any], where: str) -> None:
    """Refuse a model that cannot be loaded without running Python files of its own.

    Many models that mlx-lm builds itself still name such files under `auto_map`; those load, and
    the files are never run, because everything is loaded with `trust_remote_code=False`.

    Raises:
        ModelError: `model_file` is set, or `auto_map` for an architecture mlx-lm does not have.
    """
    for key in ("model_file", "auto_map"):
        if not config.get(key):
            continue
        if key == "auto_map" and config.get("model_type") in supported_model_types():
            continue
        shown = json.dumps(config[key], default=str)[:120]
        raise ModelError(
            f"{where}: {key} asks to run code that comes with the model ({shown}). It is "
            "refused and was not run.",
            f"Use a model that mlx-lm supports itself, such as one from mlx-community without "
            f"{key}.",
        )


def check_model_type(config: dict[str, Any], where: str) -> None:
    """Check that the installed mlx-lm knows the architecture, without importing it.

    Raises:
        ModelError: `model_type` is missing or unknown.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ModelError(
            f"{where}: model_type is {'missing' if model_type is None else repr(model_type)}; "
            "it must name the architecture, such as llama.",
            "Download the file again; a folder of another program may not be a model for mlx-lm.",
        )
    known = supported_model_types()
    if model_type not in known and model_type not in _remapped_model_types():
        version = importlib.metadata.version("mlx-lm")
        raise ModelError(
            f"{where}: model_type {model_type!r} is not supported by mlx-lm {version}"
            f"{did_you_mean(model_type, known)}",
            "Update mlx-lm, or choose a supported model. List: "
            'python -c "from orpo_mlx.models.check import supported_model_types as s; print(*s())"',
        )


def supported_model_types() -> list[str]:
    """Return the architectures the installed mlx-lm has a file for, sorted."""
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("mlx-lm is not installed.", "Install it: pip install mlx-lm")
    folder = Path(spec.submodule_search_locations[0], "models")
    # Parts shared by models lie in the same folder; only a model has both names.
    return sorted(
        file.stem
        for file in folder.glob("*.py")
        if {"Model", "ModelArgs"} <= set(re.findall(r"\w+", file.read_text(encoding="utf-8")))
    )


def _remapped_model_types() -> set[str]:
    from mlx_lm import utils

    by_class = getattr(utils, "MODEL_ARCHITECTURE_REMAPPING", {})
    return set(utils.MODEL_REMAPPING) | {model_type for model_type, _ in by_class}


def _check_tokenizer_files(path: Path) -> None:
    found = [names for names in TOKENIZER_FILES if all((path / n).exists() for n in names)]
    if not found and not list(path.glob("*.tiktoken")):
        raise ModelError(
            f"{path}: no tokenizer is there; looked for tokenizer.json, tokenizer.model and the "
            "like.",
            "Copy the tokenizer files of the model into the folder, or download it again.",
        )
    for name in {*(found[0] if found else ()), *_ALSO_READ}:
        if (path / name).exists():
            check_not_placeholder(path / name, ModelError)


_ALSO_READ = (
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
    "generation_config.json", "vocab.json", "merges.txt",
)  # fmt: skip
"""By whoever builds the tokenizer; none may be a pipe or a device."""


# Weights


def weight_headers(path: Path) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """Check the weight files and return their headers: file name to tensor name to (dtype, shape).

    Links are followed, since the Hub's cache is made of them, but must end at a regular file.

    Raises:
        ModelError: weights are missing, incomplete, a placeholder, unsound or doubly there.
    """
    names = check_weight_names([entry.name for entry in path.iterdir()], str(path))
    _check_index(path, names)
    headers = {}
    owner: dict[str, str] = {}
    for name in names:
        headers[name] = check_safetensors(
            path / name, max_bytes=None, dtypes=MODEL_DTYPES, error=ModelError
        )
        for tensor in headers[name]:
            if tensor in owner:
                raise ModelError(
                    f"{path}: tensor {tensor} is in {owner[tensor]} and in {name}; mlx-lm would "
                    "take either.",
                    "Remove the files of the older copy, or download into an empty folder.",
                )
            owner[tensor] = name
    return headers


def check_weight_names(names: Iterable[str], where: str) -> list[str]:
    """Return the weight files among the names of a folder, sorted.

    Raises:
        ModelError: there are none that mlx-lm reads; pickle files are named as such.
    """
    names = sorted(names)
    weights = [n for n in names if n.startswith("model") and n.endswith(".safetensors")]
    if weights:
        return weights
    pickles = [name for name in names if name.endswith(PICKLE_SUFFIXES)]
    others = [name for name in names if name.endswith((".safetensors", ".gguf"))]
    if pickles and not others:
        raise ModelError(
            f"{where}: only {', '.join(pickles[:3])}; pickle weights are not read, since loading "
            "them can run code.",
            "Look for a safetensors version (mlx-community has many), or convert it where you "
            "trust it: mlx_lm.convert --hf-path MODEL --mlx-path FOLDER.",
        )
    found = f" (found: {', '.join(others[:3])})" if others else ""
    raise ModelError(
        f"{where}: no weights named model*.safetensors{found}.",
        "Give a complete model folder in safetensors format, or download the model again.",
    )


def _check_index(path: Path, names: list[str]) -> None:
    if not (path / INDEX).exists():
        return
    weight_map = read_json_object(path / INDEX, ModelError).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelError(
            f"{path / INDEX}: weight_map is missing; it must name the file of each tensor.",
            "Download the file again.",
        )
    # Only compared with names that are there; never used as a path.
    shards = {str(shard) for shard in weight_map.values()}
    missing = sorted(shards - set(names))
    if missing:
        raise ModelError(
            f"{path}: {len(missing)} of {len(shards)} weight files named in {INDEX} are missing; "
            f"the first is {missing[0]}.",
            "Download the missing files: hf download REPO --local-dir FOLDER goes on where it "
            "stopped.",
        )
