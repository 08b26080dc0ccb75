"""A model's tensors in files of bounded size, with an index, and the tokenizer beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import mlx.core as mx

from orpo_mlx.errors import ModelError
from orpo_mlx.storage.safetensors import read_json_object

SHARD_BYTES = 2 << 30


INDEX = "model.safetensors.index.json"
TOKENIZER_CONFIG = "tokenizer_config.json"


_COPIED = (
    "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "chat_template*", "generation_config.json", "*.model", "*.tiktoken",
)  # fmt: skip


def write_shards(folder: Path, tensors: Iterable[tuple[str, mx.array]], size: int) -> None:
    """Write tensors as `model*.safetensors`, a few GB in memory at a time, with an index.

    Args:
        folder: being written.
        tensors: names and arrays; computed as they are written.
        size: bytes of all, for the number of files.
    """
    count = max(1, -(-size // SHARD_BYTES))
    shard: dict[str, mx.array] = {}
    places: dict[str, str] = {}
    written = filled = 0

    def flush() -> None:
        nonlocal written, filled
        written += 1
        number = f"-{written:05d}-of-{count:05d}" if count > 1 else ""
        name = f"model{number}.safetensors"
        mx.save_safetensors(str(folder / name), shard, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()
        mx.clear_cache()
        filled = 0

    for name, array in tensors:
        # The last file takes the rest: how many there are is in their names.
        if filled + array.nbytes > SHARD_BYTES and shard and written + 1 < count:
            flush()
        shard[name] = array
        filled += array.nbytes
    flush()
    if written > 1:
        _rename_shards(folder, places, written, count)
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _rename_shards(folder: Path, places: dict[str, str], written: int, planned: int) -> None:
    """Give the files the number of files there turned out to be."""
    if written == planned:
        return
    for name, old in places.items():
        new = old.replace(f"of-{planned:05d}", f"of-{written:05d}")
        if (folder / old).exists():
            (folder / old).rename(folder / new)
        places[name] = new


def copy_tokenizer(settings: Path, folder: Path, template: str | None = None) -> None:
    """Copy a tokenizer's files, template and generation settings, byte for byte.

    Args:
        settings: where they are.
        folder: being written.
        template: a chat template in place of theirs; the settings then name none.
    """
    for pattern in _COPIED:
        for file in settings.glob(pattern):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
    if template is None:
        return
    for place in ("chat_template.json", TOKENIZER_CONFIG):
        path = folder / place
        if path.exists():
            own = read_json_object(path, ModelError)
            if own.pop("chat_template", None) is not None:
                text = json.dumps(own, indent=2, ensure_ascii=False) + "\n"
                path.write_text(text, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
