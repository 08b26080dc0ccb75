"""PEFT's adapter format, written: transposed matrices, full names, the scale baked into B.

With `lora_alpha = r` no reader can get the scale wrong, whatever it makes of alpha or rsLoRA. DoRA
goes out by its own fields. An embedding that is also the output layer cannot go: mlx-lm applies its
adapter on both sides, PEFT on the input alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.peft import CONFIG_FILE, PREFIX, WEIGHTS_FILE
from orpo_mlx.adapters.reward_head import HEAD, HEAD_WEIGHT
from orpo_mlx.errors import ExportError
from orpo_mlx.export import card
from orpo_mlx.export.checks import (
    PRECISION,
    DeltaDifference,
    ExportCheck,
    check_delta,
    check_finite,
    check_tensors,
    compare_factors,
)
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.serving import vllm_notes, with_vllm
from orpo_mlx.export.source import AdaptedLayer, AdapterSource
from orpo_mlx.export.written import (
    Exported,
    Target,
    check_checksums,
    require_space,
    write_folder,
)
from orpo_mlx.models.architectures import Architecture
from orpo_mlx.storage.safetensors import check_safetensors
from orpo_mlx.text.commands import command_line

A, B, M = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
EMBEDDING_A, EMBEDDING_B = "lora_embedding_A", "lora_embedding_B"


def export(source: AdapterSource, target: Target, say: ExportListener) -> Exported:
    """Write the adapter as PEFT saves one.

    Raises:
        AdapterError, ModelError: the adapter or its base cannot be used.
        ExportError: PEFT cannot express it, or it cannot be written; nothing was written.
        ExportCheckError: what was written is not the adapter; it was removed.
    """
    dtype = target.options.get("dtype", "float32")
    base_id, is_known = source.base.original_id(target.options.get("base_id"))
    say.step(0, 3, "reading the adapter")
    names, notes = PeftNames.of(source), []
    _refuse(source)
    if not is_known:
        notes.append(
            f"base_model_name_or_path is {base_id}: programs load the base by this name; give the "
            "original's Hub id with --base-id OWNER/NAME, and before you share the folder."
        )
    if names.architecture is None:
        notes.append(
            f"model_type {source.base.config['model_type']} is not in the table of names: layers "
            "keep the names they have in mlx-lm."
        )
    notes += _notes(source)
    if names.architecture and names.architecture.peft_note:
        notes.append(names.architecture.peft_note)
    wanted = _tensors(source, names)
    require_space(target.path, sum(a.size for a in wanted.values()) * 4)
    config = _config(source, names, base_id)

    def write(folder: Path) -> None:
        say.step(1, 3, "writing")
        kind = getattr(mx, dtype)
        arrays = {
            name: mx.array(np.ascontiguousarray(a)).astype(kind) for name, a in wanted.items()
        }
        mx.save_safetensors(str(folder / WEIGHTS_FILE), arrays, metadata={"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
        card.write(folder, source, "peft", base_id)

    def inspect(folder: Path) -> list[ExportCheck]:
        say.step(2, 3, "checking what was written")
        return _inspect(folder, source, names, dtype)

    files = write_folder(target, write, inspect, say.verified)
    # An MLX model is none that PEFT or vLLM could load.
    base = base_id if is_known or not source.base.is_quantized else "OWNER/NAME"
    serve = with_vllm(source, base, target.path)
    command = _command(base, target.path, notes, source.rates)
    return Exported(target.path, files, command, serve, notes)


def _command(base: str, path: Path, notes: list[str], rates: bool) -> str:
    kind, labels = ("SequenceClassification", ", num_labels=1") if rates else ("CausalLM", "")
    # In double quotes: single ones would have to be escaped for the shell.
    base, folder = (json.dumps(name, ensure_ascii=False) for name in (base, str(path)))
    code = (
        f"from transformers import AutoModelFor{kind} as M; from peft import PeftModel; "
        f"model = PeftModel.from_pretrained(M.from_pretrained({base}{labels}), {folder})"
    )
    if find_spec("peft"):
        return command_line(sys.executable, "-c", code)
    notes.append("The command needs PEFT and torch: pip install peft.")
    return command_line("python3", "-c", code)


class PeftNames:
    """What PEFT calls the tensors of each layer."""

    def __init__(self, architecture: Architecture | None) -> None:
        self.architecture = architecture

    @classmethod
    def of(cls, source: AdapterSource) -> PeftNames:
        """Return the names of an adapter's base; one that is not in the table keeps its own."""
        return cls(source.base.known_architecture)

    def modules(self, layer: AdaptedLayer) -> list[str]:
        """Return the module of a layer, or those of all its experts.

        Raises:
            ExportError: it holds experts and the names of its experts are not known.
        """
        experts = len(layer.a) if layer.kind == "experts" else 0
        row = self.architecture
        found = row.peft_names(layer.path, experts) if row else [layer.path]
        if len(found) != max(experts, 1) or (experts and row is None):
            raise ExportError(
                f"{layer.path}: holds {experts} experts, and what Hugging Face calls each of them "
                "is not known here; nothing was written.",
                "Use --to mlx, or --to fused.",
            )
        return found

    def tensors(self, source: AdapterSource) -> dict[str, np.ndarray]:
        """Return every tensor by name, the scale multiplied into B."""
        found = {}
        for layer in _exported(source):
            for module, parts in zip(self.modules(layer), _parts(layer, source), strict=True):
                found |= {f"{PREFIX}{module}.{name}": array for name, array in parts.items()}
        return found


def _tensors(source: AdapterSource, names: PeftNames) -> dict[str, np.ndarray]:
    """Return every tensor by name, a reward model's head among them."""
    head = {f"{PREFIX}{HEAD_WEIGHT}": source.head} if source.rates else {}
    return names.tensors(source) | head


def _parts(layer: AdaptedLayer, source: AdapterSource) -> Iterator[dict[str, np.ndarray]]:
    """Yield the tensors of a layer, or of one expert after the other."""
    b, a = layer.factors(source.spec.scale)
    if layer.kind == "embedding":
        # Here it is the input side that the scale goes into; PEFT multiplies both the same.
        yield {EMBEDDING_A: layer.a.T, EMBEDDING_B: source.spec.scale * layer.b.T}
    elif layer.kind == "experts":
        yield from ({A: one, B: other} for one, other in zip(a, b, strict=True))
    elif layer.m is not None:
        yield {A: a, B: b, M: layer.m}
    else:
        yield {A: a, B: b}


def _exported(source: AdapterSource) -> list[AdaptedLayer]:
    """Return the adapted layers; without the output layer, which a reward model does not use."""
    if not source.rates:
        return list(source.layers)
    return [layer for layer in source.layers if not layer.path.endswith("lm_head")]


def _refuse(source: AdapterSource) -> None:
    for layer in source.layers:
        if layer.kind == "embedding" and source.base.is_tied:
            raise ExportError(
                f"{layer.path}: this embedding is also the output layer of {source.base.name}; "
                "mlx-lm applies its adapter on both sides, PEFT would on the input alone. Nothing "
                "was written.",
                "Use --to fused.",
            )
        if layer.kind == "embedding" and layer.m is not None:
            raise ExportError(
                f"{layer.path}: PEFT's DoRA on an embedding computes something else than mlx-lm's; "
                "nothing was written.",
                "Use --to fused.",
            )


def _notes(source: AdapterSource) -> list[str]:
    notes = []
    if source.base.is_quantized:
        notes.append(
            "The adapter was trained on a quantized base; on the unquantized one the answers "
            "differ by about what the quantization changed."
        )
    if source.spec.scale != 1.0:
        notes.append(
            f"The scale {source.spec.scale:g} stands in B, so that no program can get it wrong; "
            "trained on in PEFT at the same rate, B has that much less effect."
        )
    if source.rates:
        return [*notes, _PADDING]
    return [*notes, *vllm_notes(source)]


_PADDING = (
    "transformers rates the last token that is not the padding token, so one answer by itself, or "
    "set pad_token_id to a token that no answer ends with: where it is the end of turn, the token "
    "before it would be rated."
)


def _config(source: AdapterSource, names: PeftNames, base_id: str) -> dict[str, Any]:
    modules = [name for layer in _exported(source) for name in names.modules(layer)]
    head = {"modules_to_save": [HEAD]} if source.rates else {}
    return head | {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if source.rates else "CAUSAL_LM",
        "base_model_name_or_path": base_id,
        "r": source.spec.rank,
        "lora_alpha": source.spec.rank,
        "lora_dropout": source.spec.dropout,
        # Full paths: the only form that is right for the last N blocks and a head together.
        "target_modules": modules,
        "use_dora": source.spec.dora,
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


# Checks


def _inspect(
    folder: Path, source: AdapterSource, names: PeftNames, dtype: str
) -> list[ExportCheck]:
    """Open the folder again, as PEFT reads it, and rebuild every delta from it."""
    wanted = _tensors(source, names)
    shapes = {name: tuple(array.shape) for name, array in wanted.items()}
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    check_safetensors(folder / WEIGHTS_FILE, within=folder)
    loaded: Any = mx.load(str(folder / WEIGHTS_FILE))
    found = {name: np.array(array.astype(mx.float32)) for name, array in loaded.items()}
    checks = [check_tensors({name: array.shape for name, array in found.items()}, shapes)]
    if checks[-1].passed:
        checks.append(check_finite(found.items()))
    if checks[-1].passed:
        scale = config["lora_alpha"] / config["r"]
        checks.append(check_delta(_differences(found, scale, source, names), dtype))
        checks += [_check_magnitudes(found, wanted, dtype)] if source.spec.dora else []
        checks += [_check_head(found, source, dtype)] if source.rates else []
    return [*checks, check_checksums(folder)]


def _differences(
    found: dict[str, np.ndarray], scale: float, source: AdapterSource, names: PeftNames
) -> Iterator[DeltaDifference]:
    for layer in _exported(source):
        b, a = layer.factors(source.spec.scale)
        ours = list(zip(b, a, strict=True)) if layer.kind == "experts" else [(b, a)]
        for module, factors in zip(names.modules(layer), ours, strict=True):
            key = f"{PREFIX}{module}"
            if layer.kind == "embedding":
                theirs = found[f"{key}.{EMBEDDING_A}"].T, found[f"{key}.{EMBEDDING_B}"].T
            else:
                theirs = found[f"{key}.{B}"], found[f"{key}.{A}"]
            yield compare_factors(module, factors, (scale * theirs[0], theirs[1]))


def _check_head(found: dict[str, np.ndarray], source: AdapterSource, dtype: str) -> ExportCheck:
    apart = np.abs(found[f"{PREFIX}{HEAD_WEIGHT}"] - source.head).max()
    worst, limit = float(apart / np.abs(source.head).max()), PRECISION[dtype]
    text = f"the reward head differs by at most {worst:.1e} of its largest weight"
    return ExportCheck("reward head", worst <= limit, worst, limit, text)


def _check_magnitudes(
    found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], dtype: str
) -> ExportCheck:
    names = [name for name in wanted if name.endswith(M)]
    worst = max(float(np.abs(found[n] / wanted[n] - 1).max()) for n in names)
    limit = PRECISION[dtype]
    text = f"DoRA's magnitudes differ by at most {worst:.1e} of themselves"
    return ExportCheck("magnitudes", worst <= limit, worst, limit, text)
