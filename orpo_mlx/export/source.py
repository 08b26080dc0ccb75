"""What is exported: an adapter, read through the import gate, with its base model and its run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters import peft
from orpo_mlx.adapters.files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_base,
    read_adapter_config,
    read_adapter_spec,
)
from orpo_mlx.adapters.lora import AdapterSpec
from orpo_mlx.adapters.reward_head import HEAD_FILE, HEAD_WEIGHT, holds_head
from orpo_mlx.adapters.targets import in_model_order
from orpo_mlx.errors import AdapterError, ConfigError, ExportError, ModelError
from orpo_mlx.export.base import BaseModel
from orpo_mlx.models.load import fingerprint, load_tokenizer
from orpo_mlx.models.weights import load_checked
from orpo_mlx.runs.checkpoints import checkpoint_path, damage, iter_checkpoints, read_progress
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.listing import find_run
from orpo_mlx.storage.safetensors import check_safetensors
from orpo_mlx.text.commands import command_line

Kind = Literal["linear", "experts", "embedding"]


@dataclass(frozen=True)
class AdaptedLayer:
    """The adapter of one layer, as mlx-lm keeps it, in float32 numpy arrays.

    Attributes:
        path: the layer's full name in mlx-lm's model.
        kind: what it adapts.
        a, b: linear [I, R] and [R, O]; experts [E, R, I] and [E, O, R]; embedding [V, R] and
            [R, D].
        m: DoRA's magnitude [O], else None.
    """

    path: str
    kind: Kind
    a: np.ndarray
    b: np.ndarray
    m: np.ndarray | None = None

    def factors(self, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (B, A) of the delta as [out, in]: scale x B is [O, R], A is [R, I].

        With experts there is a dimension E in front. An embedding's delta is that of its weight,
        [V, D]: B comes from `lora_a` there.
        """
        if self.kind == "experts":
            return np.float32(scale) * self.b, self.a
        if self.kind == "embedding":
            return np.float32(scale) * self.a, self.b
        return np.float32(scale) * self.b.T, self.a.T

    def delta(self, scale: float) -> np.ndarray:
        """Return scale x B x A as [out, in], experts in front: what is added to the weight."""
        b, a = self.factors(scale)
        return b @ a


@dataclass(frozen=True)
class AdapterSource:
    """An adapter to export.

    Attributes:
        folder: in mlx-lm's format.
        spec: rank, scale and the like.
        base: its base model.
        name: what to call it in file names: the run's id, or the folder's name.
        run: the run it comes from, None for a folder.
        step: of the checkpoint, None for the run's result or a folder.
    """

    folder: Path
    spec: AdapterSpec
    base: BaseModel
    name: str
    run: RunDirectory | None = None
    step: int | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """adapter_config.json."""
        return read_adapter_config(self.folder)

    @property
    def rates(self) -> bool:
        """Whether it is a reward model, which has a head of its own and writes no answers."""
        return holds_head(self.folder)

    @cached_property
    def head(self) -> np.ndarray:
        """A reward model's head [1, hidden], float32.

        Raises:
            AdapterError: it is not sound.
        """
        path = self.folder / HEAD_FILE
        found = check_safetensors(path, within=self.folder)
        width = found[HEAD_WEIGHT][1][-1] if HEAD_WEIGHT in found else 0
        arrays = load_checked(path, {HEAD_WEIGHT: (1, width)}, within=self.folder)
        return np.array(arrays[HEAD_WEIGHT].astype(mx.float32))

    @cached_property
    def template_file(self) -> str | None:
        """What --chat-template was in training; None for the base's own template."""
        return self.run.read_config().chat_template if self.run else None

    @cached_property
    def template(self) -> str | None:
        """The chat template it was trained with, None for the base's own.

        Raises:
            ExportError: its file cannot be read any more.
        """
        if self.template_file is None:
            return None
        try:
            tokenizer = load_tokenizer(self.base.settings_folder, self.template_file)
        except ModelError as error:
            raise ExportError(
                f"{self.name} was trained with --chat-template: {error.message}",
                "Put the file back where it was: without it the exported model would be asked in "
                "another form than it was trained in.",
            ) from error
        return str(tokenizer.chat_template)

    def places(self, *more: str | None) -> tuple[Path, ...]:
        """Return the folders and files on this machine that an export of it reads.

        Args:
            more: what else it reads, as written: a GGUF of the base, the original model.
        """
        named = (self.base.name, *more)
        found = [Path(name).expanduser() for name in named if name]
        return (self.folder, *(path for path in found if path.exists()))

    @cached_property
    def layers(self) -> tuple[AdaptedLayer, ...]:
        """Every adapted layer in the order of the model, its arrays read and checked.

        Raises:
            AdapterError: tensors are missing, surplus, of another shape or not finite.
            ModelError: the base model's config.json cannot be used.
        """
        modules, expected = self.base.adapter_shapes(
            self.config["lora_parameters"], self.spec.num_layers, self.spec.dora
        )
        arrays = load_checked(self.folder / WEIGHTS_FILE, expected, within=self.folder)
        found = {name: np.array(array.astype(mx.float32)) for name, array in arrays.items()}
        return tuple(
            AdaptedLayer(
                path,
                _kind(modules[path]),
                found[f"{path}.lora_a"],
                found[f"{path}.lora_b"],
                found.get(f"{path}.m"),
            )
            for path in in_model_order(modules)
        )


def _kind(module: Any) -> Kind:
    if "embedding" in module:
        return "embedding"
    return "experts" if module["lora_a"].ndim == 3 else "linear"


# Finding it


def open_source(
    text: str,
    checkpoint: str | None = None,
    model: str | None = None,
    runs_dir: str | None = None,
) -> AdapterSource:
    """Find the adapter a user means.

    Args:
        text: an adapter folder; or a run by id, the beginning of its id, or path.
        checkpoint: of a run: a step, "best", or "final" (the default: the run's result).
        model: the base model, if it is not where the adapter says.
        runs_dir: the folder of all runs.

    Raises:
        RunError, AdapterError, ConfigError: there is none, or it is not as it should be.
    """
    path = Path(text).expanduser()
    if (text and (path / CONFIG_FILE).is_file()) or (path / peft.WEIGHTS_FILE).is_file():
        if checkpoint is not None:
            raise ConfigError(
                f"--checkpoint {checkpoint}: {text} is an adapter; only runs have checkpoints.",
                "Leave out --checkpoint, or give the run.",
            )
        return _open(path.absolute(), path.absolute().name, model)
    run = find_run(text, runs_dir)
    folder, step = _find_in_run(run, checkpoint or "final")
    name = run.id if step is None else f"{run.id}-{step}"
    return _open(folder, name, model, run, step)


def _open(
    folder: Path,
    name: str,
    model: str | None,
    run: RunDirectory | None = None,
    step: int | None = None,
) -> AdapterSource:
    if peft.is_peft(folder):
        words = ["orpo-mlx", "adapter", "import", folder, "--out", "FOLDER"]
        raise AdapterError(
            f"{folder}: this adapter is in PEFT's format already; mlx-lm's format is needed here.",
            f"Import it first: {command_line(*words)}.",
        )
    config = read_adapter_config(folder)
    spec = read_adapter_spec(folder)
    recorded = config.get("base_model") or config.get("model")
    if not model and not recorded:
        raise ExportError(
            f"{folder / CONFIG_FILE}: does not name the base model of the adapter.",
            "Say which it is: --model FOLDER or --model OWNER/NAME.",
        )
    revision = run.read_config().revision if run and not model else None
    base = BaseModel(str(model or recorded), revision)
    if model or Path(base.name).is_dir():
        _require_same_base(folder, config, base)
    return AdapterSource(folder, spec, base, name, run, step)


def _require_same_base(folder: Path, config: dict[str, Any], base: BaseModel) -> None:
    """Refuse a base the adapter was not trained on: by fingerprint if its weights are here."""
    weights = base.settings_folder
    has_weights = any(weights.glob("model*.safetensors"))
    check_base(folder, config, fingerprint(weights) if has_weights else None, base.name)


def _find_in_run(run: RunDirectory, which: str) -> tuple[Path, int | None]:
    if which == "final":
        if (run.adapter_folder / CONFIG_FILE).is_file():
            return run.adapter_folder, None
        saved = [path.name for path in iter_checkpoints(run.checkpoints_folder)]
        raise ExportError(
            f"{run.path}: has no result yet ({run.read_status()}).",
            f"Export a checkpoint: --checkpoint {int(saved[0])}."
            if saved
            else f"Let it go on: orpo-mlx resume {run.id}.",
        )
    step = _best_step(run) if which == "best" else _step(which)
    path = checkpoint_path(run.checkpoints_folder, step)
    steps = [str(int(p.name)) for p in iter_checkpoints(run.checkpoints_folder)]
    if not path.is_dir():
        raise ExportError(
            f"--checkpoint {which}: run {run.id} has no checkpoint of step {step}.",
            f"There are: {', '.join(steps) or 'none'}; final is the result of the run.",
        )
    if reason := damage(path):
        raise ExportError(
            f"{path}: the checkpoint is damaged: {reason}.", f"Others: {', '.join(steps)}, final."
        )
    return path, step


def _step(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    raise ConfigError(f"--checkpoint {text}: is not a step, best or final.", "Give one of these.")


def _best_step(run: RunDirectory) -> int:
    for path in iter_checkpoints(run.checkpoints_folder):
        if damage(path) is None and (best := read_progress(path).best_step) is not None:
            return best
    raise ExportError(
        f"--checkpoint best: run {run.id} has no evaluation, so none is known to be best.",
        "Give a step, or leave out --checkpoint.",
    )
