"""The models that are measured: one in 4 bits, one in bfloat16, of one shape, and their pairs.

A model that was downloaded is taken as it is; what is missing is made at random. No time or memory
depends on the values of weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.steps.workload import FOR_PROOFS, MadeUpPairs
from orpo_mlx.config import build_config
from orpo_mlx.data.batching.shape import Lengths
from orpo_mlx.errors import OrpoError
from orpo_mlx.export.base import BaseModel
from orpo_mlx.models.check import CONFIG
from orpo_mlx.models.load import resolve_model
from orpo_mlx.models.shape import folder_shape
from orpo_mlx.planning.memory import available_bytes
from orpo_mlx.planning.plan import Question
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.text.formatting import counted

_QUANTIZED, _WHOLE = "4-bit", "bfloat16"
_END = 1
"""The end-of-turn token of a made-up tokenizer."""
_PAIRS_A_STEP = (4, 2, 1)


def iter_models(task: Row, tell: Callable[[str], None]) -> Iterator[Row]:
    """Make models and pairs, and yield a row for each model and one for the pairs.

    Args:
        task: "folder" to make them in; "model" to take, "" for none; "must": whether that one and
            no other will do; "shape", config.json of the made-up one; "workloads", each as
            `MadeUpPairs` takes it.
        tell: told how far it is.
    """
    folder = Path(task["folder"])
    source, config, note = _source(task, tell)
    if note:
        yield {"kind": "note", "text": note}
    own = _kind_of(config) if source else ""
    kinds = [own if _is_quantized(own) else _QUANTIZED, _WHOLE if _is_quantized(own) else own]
    made: dict[str, Path] = {}
    for kind in kinds if source else [_QUANTIZED, _WHOLE]:
        if kind == own and source:
            made[kind] = source
        else:
            tell(f"making a random model, {kind}")
            made[kind] = _make(folder / kind, config, kind, source)
        yield {
            "kind": "model", "name": kind, "path": str(made[kind]), "shape": _describe(config),
            "bytes": folder_shape(made[kind]).weight_bytes,
            "from": _origin(task) if kind == own and source else "random weights",
        }  # fmt: skip
    yield _pairs(task, folder, made, config)


def _source(task: Row, tell: Callable[[str], None]) -> tuple[Path | None, Row, str]:
    """Return the folder of the model to take, None for none; its config.json; what to know."""
    if not task["model"]:
        return None, task["shape"], ""
    tell(f"fetching {task['model']}")

    def on_progress(done: int, total: int, label: str, _: str) -> None:
        tell(f"fetching {label}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    try:
        path = resolve_model(task["model"], on_progress=on_progress).path
    except OrpoError as error:
        if task["must"]:
            raise
        first = error.message.splitlines()[0]
        return None, task["shape"], f"a random model instead of {task['model']}: {first}"
    return path, json.loads((path / CONFIG).read_text(encoding="utf-8")), ""


def _origin(task: Row) -> str:
    is_folder = Path(task["model"]).expanduser().exists()
    return "a folder of the user" if is_folder else task["model"]


def _kind_of(config: Row) -> str:
    packed = config.get("quantization") or config.get("quantization_config")
    if packed:
        return f"{packed.get('bits', 4)}-bit"
    return str(config.get("torch_dtype") or config.get("dtype") or "own precision")


def _is_quantized(kind: str) -> bool:
    return kind.endswith("-bit")


def _describe(config: Row) -> str:
    sizes = {**config, **(config.get("text_config") or {})}
    blocks = counted(sizes.get("num_hidden_layers", 0), "block")
    words = counted(sizes.get("vocab_size", 0), "word")
    return f"{sizes.get('model_type')}, {blocks} of {sizes.get('hidden_size')}, {words}"


# Making


def _make(folder: Path, config: Row, kind: str, source: Path | None) -> Path:
    """Write a model of random weights; returns its folder."""
    folder.mkdir(parents=True)
    own = {k: v for k, v in config.items() if not k.startswith("quantization")}
    (folder / CONFIG).write_text(json.dumps(own), encoding="utf-8")
    mx.random.seed(0)
    model: Any = BaseModel(str(folder)).skeleton
    model.set_dtype(mx.bfloat16)
    if _is_quantized(kind):
        group = 64 if own.get("hidden_size", 64) % 64 == 0 else 32
        nn.quantize(model, group_size=group, bits=int(kind.split("-")[0]))
        own["quantization"] = {"group_size": group, "bits": int(kind.split("-")[0])}
        (folder / CONFIG).write_text(json.dumps(own), encoding="utf-8")
    weights: Any = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    if source is None:
        _write_tokenizer(folder, own["vocab_size"])
    else:
        _copy_tokenizer(source, folder)
    return folder


def _copy_tokenizer(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        is_weights = path.name == CONFIG or "safetensors" in path.name or path.suffix == ".gguf"
        if path.is_file() and not is_weights:
            shutil.copy(path, folder)


def _write_tokenizer(folder: Path, vocab: int) -> None:
    """Write a tokenizer of numbered words; the pairs are tokens already, so nothing calls it."""
    from tokenizers import Tokenizer, models

    words = {"<pad>": 0, "</s>": _END} | {f"w{i}": i for i in range(2, vocab)}
    Tokenizer(models.WordLevel(words, unk_token="<pad>")).save(str(folder / "tokenizer.json"))
    own = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(own), encoding="utf-8")


# Pairs


def _pairs(task: Row, folder: Path, made: dict[str, Path], config: Row) -> Row:
    """Write the pairs of each workload; return where, how many a step has, and ways of scoring."""
    sizes = {**config, **(config.get("text_config") or {})}
    end = sizes.get("eos_token_id", _END)
    end = end[0] if isinstance(end, list) else end
    workloads = [MadeUpPairs(**one) for one in task["workloads"]]
    largest = list(made.values())[-1]
    counts = {one.name: _fitting(largest, one) for one in workloads}
    files = {}
    for one in (*workloads, FOR_PROOFS):
        files[one.name] = str(folder / f"{one.name}.jsonl")
        count = counts.get(one.name, _PAIRS_A_STEP[0])
        one.write(Path(files[one.name]), count, sizes["vocab_size"], int(end))
    return {
        "kind": "pairs", "counts": counts, "files": files, "ways": list(WAYS),
        "lengths": {one.name: one.lengths(counts[one.name]) for one in workloads},
    }  # fmt: skip


def _fitting(model: Path, pairs: MadeUpPairs) -> int:
    """Return the pairs of a step: as many as plain mode has memory for with nothing recomputed."""
    shape, limit = folder_shape(model), available_bytes()
    own = {"model": str(model), "scoring": "plain", "batching": "fixed", "grad_checkpoint": "off",
           "num_layers": -1, "max_seq_length": 1 << 16}  # fmt: skip
    for count in _PAIRS_A_STEP:
        config = build_config({**own, "micro_batch_size": count})
        lengths = [Lengths(*one) for one in pairs.lengths(count)]
        if Question(shape, config, WAYS["plain"], lengths, limit=limit).fits():
            return count
    return _PAIRS_A_STEP[-1]
