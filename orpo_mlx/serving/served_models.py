"""Which models a server offers: one base and adapters of it, each under a name of its own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.adapters.files import CONFIG_FILE, read_adapter_config
from orpo_mlx.adapters.folder import read_spec
from orpo_mlx.adapters.peft import is_peft
from orpo_mlx.adapters.reward_head import require_answers
from orpo_mlx.config.file import expanded
from orpo_mlx.config.train_config import required
from orpo_mlx.data.tokens.encoder import Encoder
from orpo_mlx.data.tokens.template_check import check_chat_template
from orpo_mlx.demo import model_path
from orpo_mlx.errors import AdapterError, ConfigError
from orpo_mlx.evaluation.subject import adapter_of
from orpo_mlx.models.load import ModelFolder, load_tokenizer, resolve_model
from orpo_mlx.runs.listing import find_run
from orpo_mlx.storage.safetensors import read_json_object
from orpo_mlx.text.commands import command_line
from orpo_mlx.text.progress import OnProgress


@dataclass(frozen=True)
class ServedModel:
    """A name that a request may give, and what answers to it.

    Attributes:
        folder: of the adapter; None is the base as it is.
        encoder: writes prompts as its training did.
    """

    name: str
    folder: Path | None
    encoder: Encoder


@dataclass(frozen=True)
class ServedModels:
    """What one server offers.

    Attributes:
        base: the model that all of them are.
        models: by name; adapters in the order they were given, the base last.
        notes: what the user should know.
    """

    base: ModelFolder
    models: dict[str, ServedModel]
    notes: tuple[str, ...] = ()

    @property
    def base_name(self) -> str:
        """What a request calls the base."""
        return next(reversed(self.models))

    @property
    def chats(self) -> bool:
        """Whether messages can be answered; else there is text to continue only."""
        return self.models[self.base_name].encoder.has_chat_template

    @property
    def vocabulary(self) -> int:
        """Token ids that a request may name are below this."""
        size = self.base.vocab_size
        return size or len(self.models[self.base_name].encoder.tokenizer.get_vocab())  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Found:
    """An adapter with what it says of its base; `asked` is what the user called it."""

    asked: str
    name: str
    folder: Path
    model: str
    revision: str | None = None
    template: str | None = None
    note: str = ""

    @property
    def fingerprint(self) -> str | None:
        """Of the base, None where it is not recorded."""
        if is_peft(self.folder):
            return None
        return read_adapter_config(self.folder).get("base_fingerprint")


def find_served_models(
    sources: Sequence[str],
    model: str | None = None,
    runs_dir: str | None = None,
    on_progress: OnProgress | None = None,
) -> ServedModels:
    """Find what is to be served and check all of it but the weights.

    Args:
        sources: runs (id, its beginning, path) and folders of adapters.
        model: the base, if it is not where the adapters say, or to serve it alone.
        runs_dir: the folder of all runs.
        on_progress: told of a download of the base.

    Raises:
        OrpoError: something is not there or unfit, or the adapters are of different bases.
    """
    found = list({one.folder: one for one in (_find(text, model, runs_dir) for text in sources)}
                 .values())  # fmt: skip
    if not model and not found:
        raise ConfigError(
            "orpo-mlx serve: what?",
            "Give runs or adapter folders: orpo-mlx serve RUN ... (see `orpo-mlx runs`); or a "
            "model alone: orpo-mlx serve --model MODEL.",
        )
    if not model:
        _require_one_base(found, runs_dir)
    revision = None if model else found[0].revision
    base = resolve_model(model or found[0].model, revision, on_progress)
    names = [*(one.name for one in found), _base_name(base)]
    _require_own_names(names)
    templates = {one.template: None for one in found} or {None: None}
    encoders = {template: _encoder(base, template) for template in templates}
    models = {one.name: ServedModel(one.name, one.folder, encoders[one.template]) for one in found}
    models[names[-1]] = ServedModel(names[-1], None, next(iter(encoders.values())))
    notes = (base.note, *(one.note for one in found))
    return ServedModels(base, models, tuple(filter(None, notes)))


def _find(text: str, model: str | None, runs_dir: str | None) -> _Found:
    path = expanded(text)
    if text and (os.path.isfile(path / CONFIG_FILE) or is_peft(path)):
        found = _Found(text, path.absolute().name, path.resolve(), model or _base_of(path))
    else:
        run = find_run(text, runs_dir)
        place, config = adapter_of(run), run.read_config()
        found = _Found(
            text, run.id, place.folder.resolve(), required(config, "model"), config.revision,
            config.chat_template, place.note,
        )  # fmt: skip
    require_answers(found.folder)
    read_spec(found.folder)
    return found


def _base_of(folder: Path) -> str:
    if is_peft(folder):
        settings = read_json_object(folder / CONFIG_FILE, AdapterError)
        name = settings.get("base_model_name_or_path")
    else:
        settings = read_adapter_config(folder)
        name = settings.get("base_model") or settings.get("model")
    if not isinstance(name, str) or not name:
        raise AdapterError(
            f"{folder / CONFIG_FILE}: does not name the base model of the adapter.",
            "Say which it is: --model FOLDER or --model OWNER/NAME.",
        )
    return name


def _require_one_base(found: Sequence[_Found], runs_dir: str | None) -> None:
    first = found[0]
    where = ["--runs-dir", runs_dir] if runs_dir else []
    for other in found[1:]:
        prints = first.fingerprint, other.fingerprint
        is_same = (
            prints[0] == prints[1]
            if all(prints)
            else (first.model, first.revision) == (other.model, other.revision)
        )
        if not is_same:
            raise ConfigError(
                f"{other.name}: its base is {other.model}, that of {first.name} is {first.model}; "
                "one server has one base.",
                "Serve each base by itself, on a port of its own: "
                f"{command_line('orpo-mlx', 'serve', other.asked, *where, '--port', '8081')}.",
            )


def _base_name(base: ModelFolder) -> str:
    if base.path == model_path().resolve():
        return "demo"
    return base.path.name if base.is_local else base.name


def _require_own_names(names: Sequence[str]) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ConfigError(
            f"{name}: {count} of the models would have this name, and a request could not tell "
            "them apart.",
            "Serve a copy of the folder under another name, or leave one out.",
        )


def _encoder(base: ModelFolder, template: str | None) -> Encoder:
    tokenizer: Any = load_tokenizer(base, template)
    if tokenizer.has_chat_template:
        check_chat_template(tokenizer, base.name)
    return Encoder(tokenizer)
