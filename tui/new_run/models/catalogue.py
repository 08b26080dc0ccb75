"""Models to choose from: built in, in folders of this machine, in the Hub's cache, on the Hub.

Sizes and number formats come from config.json, the sizes of files and what the Hub knows.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orpo_mlx import demo
from orpo_mlx.errors import ModelError
from orpo_mlx.storage.hub import FIRST_ANSWER_SECONDS, MODEL, explain_search_error

CONFIG = "config.json"
HUB_LIMIT = 40
_DEPTH = 3
_MOST_FOLDERS = 5_000
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "I8": 1, "U8": 1}
_FLOATS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class ModelRow:
    """A model one may choose.

    Attributes:
        name: as given to --model: a folder or a Hub id.
        title: as shown.
        quant: number format of its weights, "4 bit" or "bf16"; "" if unknown.
        size: of its weights in bytes; 0 if unknown.
        kind: architecture, as config.json names it.
        place: where it is.
        downloads: how often it was downloaded lately; of models on the Hub.
        folder: where its files are; "" for models on the Hub.
    """

    name: str
    title: str
    quant: str = ""
    size: int = 0
    kind: str = ""
    place: Literal["built-in", "cache", "folder", "hub"] = "folder"
    downloads: int = 0
    folder: str = ""


def local_models(folders: Sequence[Path] = ()) -> list[ModelRow]:
    """Return the models of this machine: built in, the Hub's cache, usual and given folders."""
    rows = [_folder_row(demo.model_path(), "built-in demo model", "built-in")]
    rows += cached_models(hub_cache())
    seen = {row.name for row in rows}
    for folder in (*folders, Path.home() / ".lmstudio" / "models", Path.cwd()):
        for row in models_below(folder):
            if row.name not in seen:
                seen.add(row.name)
                rows.append(row)
    return rows


def hub_cache() -> Path:
    """Return the folder where models from the Hub are kept."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def cached_models(cache: Path) -> list[ModelRow]:
    """Return the models in a cache of the Hub, with all of their weights or a part of them."""
    rows = []
    with contextlib.suppress(OSError):
        for folder in sorted(cache.glob("models--*")):
            name = folder.name.removeprefix("models--").replace("--", "/")
            snapshots = [path.parent for path in folder.glob(f"snapshots/*/{CONFIG}")]
            complete = [path for path in snapshots if _weight_bytes(path)]
            if complete:
                rows.append(_folder_row(complete[-1], name, "cache", name))
    return rows


def models_below(folder: Path) -> Iterator[ModelRow]:
    """Yield the model folders in a folder, a few levels deep: config.json beside weights."""
    for path in _walk(folder.expanduser(), _DEPTH, [_MOST_FOLDERS]):
        yield _folder_row(path, _short(path), "folder")


def _walk(folder: Path, depth: int, left: list[int]) -> Iterator[Path]:
    """Yield folders that hold a model; those that cannot be read hold none."""
    left[0] -= 1
    if left[0] < 0:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    names = {entry.name for entry in entries}
    if CONFIG in names and any(name.endswith(".safetensors") for name in names):
        yield folder
        return
    for entry in entries:
        if depth and not entry.name.startswith((".", "__")) and entry.name != "node_modules":
            with contextlib.suppress(OSError):
                if entry.is_dir():
                    yield from _walk(Path(entry.path), depth - 1, left)


def _folder_row(
    path: Path, title: str, place: Literal["built-in", "cache", "folder"], name: str = ""
) -> ModelRow:
    config = _read_config(path / CONFIG)
    kind, folder = str(config.get("model_type", "")), str(path.absolute())
    size = _weight_bytes(path)
    return ModelRow(name or folder, title, quant_of(config), size, kind, place, folder=folder)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _weight_bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for file in folder.glob("*.safetensors"):
            with contextlib.suppress(OSError):
                total += file.stat().st_size
    return total


def quant_of(config: Mapping[str, Any]) -> str:
    """Return the number format a config.json names: "4 bit", "bf16", "" if none."""
    for key in ("quantization", "quantization_config"):
        found = config.get(key)
        if isinstance(found, dict) and isinstance(found.get("bits"), int):
            return f"{found['bits']} bit"
    for holder in (config, config.get("text_config")):
        if isinstance(holder, dict):
            name = holder.get("torch_dtype") or holder.get("dtype")
            if name:
                return _FLOATS.get(str(name), str(name)[:8])
    return ""


def _short(path: Path) -> str:
    text, home = str(path.absolute()), str(Path.home())
    return "~" + text[len(home) :] if text.startswith(home + os.sep) else text


# The Hub


def search_hub(text: str) -> list[ModelRow]:
    """Return MLX models on the Hub that contain a text, the most downloaded first.

    Raises:
        ModelError: the Hub did not answer or refused, in a sentence.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    try:
        # Not HfApi.list_models: that one retries for 23 seconds where there is no network.
        answer = get_session().get(
            f"{constants.ENDPOINT}/api/models",
            params={
                **({"search": text} if text else {}),
                "filter": "mlx", "sort": "downloads", "limit": HUB_LIMIT,
                "expand": ["downloads", "safetensors", "config", "gated"],
            },
            headers=build_hf_headers(),
            timeout=FIRST_ANSWER_SECONDS,
        )  # fmt: skip
        hf_raise_for_status(answer)
        return [_hub_row(found) for found in answer.json()]
    except Exception as error:
        problem, advice = explain_search_error(error, MODEL)
        raise ModelError(f"The Hub was not searched: {problem}.", advice) from error


def _hub_row(found: Mapping[str, Any]) -> ModelRow:
    """Return a row of what the Hub says; most of it is optional, config.json is the author's."""
    config, name = _object(found.get("config")), str(found["id"])
    weights = _object(_object(found.get("safetensors")).get("parameters"))
    size = sum(int(count) * _BYTES.get(kind, 2) for kind, count in weights.items())
    return ModelRow(
        name, name, quant_of(config) or _quant_in_name(name), size,
        str(config.get("model_type", "")), "hub", int(found.get("downloads") or 0),
    )  # fmt: skip


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _quant_in_name(name: str) -> str:
    found = re.search(r"(\d)-?bit|(bf16|fp16|fp32)", name, re.IGNORECASE)
    if not found:
        return ""
    return f"{found[1]} bit" if found[1] else found[2].lower()
