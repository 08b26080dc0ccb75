"""The base model of an adapter: where it is, what it is called, which layers it has."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from orpo_mlx.errors import AdapterError, ExportError, ModelError, describe
from orpo_mlx.models.architectures import Architecture, find_architecture
from orpo_mlx.models.check import CONFIG, check_model_type, refuse_code
from orpo_mlx.models.load import ModelFolder, is_path_like, load_model, resolve_model
from orpo_mlx.storage.safetensors import read_json_object

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a name is OWNER/NAME and no folder here: what others can load by it."""
    path = Path(name).expanduser()
    return bool(_HUB_ID.fullmatch(name)) and not is_path_like(name) and not path.exists()


@dataclass(frozen=True)
class BaseModel:
    """The model an adapter belongs to; nothing is read before it is asked for.

    Attributes:
        name: a folder or a Hub id, as it was recorded or given.
        revision: of a Hub model.
    """

    name: str
    revision: str | None = None

    @cached_property
    def settings_folder(self) -> Path:
        """The folder of config.json and tokenizer files; of a Hub model only those are fetched.

        Raises:
            ModelError: there is no such model.
        """
        path = Path(self.name).expanduser()
        if path.is_dir():
            return path.absolute()
        if path.exists() or is_path_like(self.name):
            raise ModelError(
                f"{self.name}: the base model of this adapter is not there.",
                "Say where it is: --model FOLDER or --model OWNER/NAME.",
            )
        from orpo_mlx.models.download import download_settings

        return download_settings(self.name, self.revision)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, checked: an architecture mlx-lm knows, no code to run.

        Raises:
            ModelError: it is missing or damaged.
        """
        path = self.settings_folder / CONFIG
        if not path.is_file():
            raise ModelError(
                f"{path}: is missing, so {self.name} is no model folder.",
                "Give the base model: --model FOLDER or --model OWNER/NAME.",
            )
        config = read_json_object(path, ModelError)
        refuse_code(config, str(path))
        check_model_type(config, str(path))
        return config

    @property
    def text_config(self) -> dict[str, Any]:
        """The sizes of the language model: config.json, or the part of it that says so."""
        return {**self.config, **(self.config.get("text_config") or {})}

    @cached_property
    def folder(self) -> ModelFolder:
        """The whole model with its weights, downloaded if need be.

        Raises:
            ModelError: it is not there or cannot be used.
        """
        return resolve_model(self.name, self.revision)

    @property
    def recorded_name(self) -> str:
        """The name that still holds in another folder: an absolute path, or a Hub id."""
        path = Path(self.name).expanduser()
        return str(path.absolute()) if path.exists() else self.name

    @property
    def is_quantized(self) -> bool:
        """Whether its weights are packed."""
        return bool(self.config.get("quantization") or self.config.get("quantization_config"))

    @cached_property
    def architecture(self) -> Architecture:
        """Its row in the table of names.

        Raises:
            ExportError: it is not in the table; lists what is.
        """
        return find_architecture(self.config)

    @property
    def known_architecture(self) -> Architecture | None:
        """Its row in the table of names, None if it has none."""
        try:
            return self.architecture
        except ExportError:
            return None

    @property
    def skeleton(self) -> nn.Module:
        """A model as mlx-lm builds it from config.json, its weights never made; new each time.

        Raises:
            ModelError: mlx-lm cannot build it.
        """
        from mlx_lm import utils

        try:
            model_class, args_class = utils._get_classes(self.config)
            return model_class(args_class.from_dict(self.config))
        except Exception as error:  # each architecture fails in its own way
            raise ModelError(
                f"{self.settings_folder / CONFIG}: mlx-lm cannot build a model from it "
                f"({describe(error)}).",
                "A value is missing or wrong: download the file again.",
            ) from error

    def adapter_shapes(
        self, parameters: dict[str, Any], num_layers: int, dora: bool
    ) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
        """Return an adapter's layers as mlx-lm makes them, and the names and shapes of its tensors.

        Args:
            parameters: `lora_parameters` of adapter_config.json.
            num_layers: the last N blocks; -1 = all.
            dora: whether it is DoRA.

        Raises:
            AdapterError: mlx-lm cannot put it on this model, or finds none of its layers.
        """
        from mlx_lm.tuner.utils import linear_to_lora_layers

        model = self.skeleton
        help = "Give the model the adapter was trained on: --model."
        try:
            # Nothing is evaluated: the arrays have shapes, no values.
            linear_to_lora_layers(model, num_layers, dict(parameters), dora)
        except Exception as error:  # whatever odd settings make mlx-lm raise
            raise AdapterError(
                f"mlx-lm cannot put this adapter on {self.name} ({describe(error)}).", help
            ) from error
        layers = {name: m for name, m in model.named_modules() if "lora_a" in m}
        if any(map(_is_head, layers)) and self.is_tied:  # mlx-lm finds no such layer
            layers = {name: module for name, module in layers.items() if not _is_head(name)}
        if not layers:
            keys = ", ".join(map(str, (parameters.get("keys") or ["all"])[:3]))
            raise AdapterError(
                f"{self.name}: has none of the layers of this adapter ({keys}).", help
            )
        parts = ("lora_a", "lora_b", "m")
        shapes = {
            f"{name}.{part}": tuple(module[part].shape)
            for name, module in layers.items()
            for part in parts
            if part in module
        }
        return layers, shapes

    @cached_property
    def is_tied(self) -> bool:
        """Whether the embedding is the output layer too: then there is no lm_head.

        Some models (Gemma 3) have one until they are loaded, whatever config.json says, and drop
        it if the weights have none: those weights are asked, fetched if need be.

        Raises:
            ModelError: the weights decide, and are not there or cannot be used.
        """
        model = self.skeleton
        if not _has_head(model):
            return True
        if not _drops_head(model):
            return False
        return not _has_head(load_model(self.folder, lazy=True).model)

    def original_id(self, given: str | None = None) -> tuple[str, bool]:
        """Return the Hub id of the original model, and whether that is more than a guess.

        In this order: what the user says; `base_model` in the model's card, which mlx-lm's
        converter writes; `_name_or_path` in config.json; the name itself.

        Raises:
            ExportError: what the user says is no Hub id.
        """
        if given is not None:
            if not _HUB_ID.fullmatch(given) or is_path_like(given):
                raise ExportError(f"--base-id {given}: is not a Hub id.", "Write it as OWNER/NAME.")
            return given, True
        recorded = self.config.get("_name_or_path")
        for name in (_card_base(self.settings_folder / "README.md"), recorded):
            if isinstance(name, str) and is_hub_id(name):
                return name, True
        return self.name, is_hub_id(self.name) and not self.is_quantized


def _is_head(path: str) -> bool:
    return path.rpartition(".")[2] == "lm_head"


def _has_head(model: nn.Module) -> bool:
    return any(_is_head(name) for name, _ in model.named_modules())


def _drops_head(model: Any) -> bool:
    """Whether a model loses its output layer when it is loaded without its weights."""
    found: Any = tree_flatten(model.parameters())
    weights = {name: array for name, array in found if "lm_head." not in name}
    # Some want other names here, as the original has them: those keep what they have.
    with contextlib.suppress(Exception):
        model.sanitize(weights)
    return not _has_head(model)


def _card_base(card: Path) -> str | None:
    """Return `base_model` from the front matter of a model card, None if it is not there."""
    try:
        text = card.read_text(encoding="utf-8", errors="replace")[:20_000]
    except OSError:
        return None
    front = re.match(r"---\n(.*?)\n---", text, re.S)
    found = front and re.search(r"^base_model:\s*(?:\n\s*-\s*)?(\S+)\s*$", front[1], re.M)
    return found[1].strip("\"'") if found else None
