"""A loaded model with the adapters of a run, of which one answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo_mlx.adapters import files, lora
from orpo_mlx.adapters.reward_head import require_answers
from orpo_mlx.chat.conversation import as_text
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import required
from orpo_mlx.data.tokens.encoder import Encoder, TemplateRefused, fold_system
from orpo_mlx.data.types import Message, TokenPair
from orpo_mlx.errors import ConfigError, DataError
from orpo_mlx.generation.side_by_side import SideBySide
from orpo_mlx.models import load
from orpo_mlx.models.precision import choose_float32
from orpo_mlx.models.shape import context_length
from orpo_mlx.runs.checkpoints import find_newest, iter_checkpoints
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.listing import find_run

FINAL = "final"


@dataclass
class Playground:
    """A loaded model, its adapter, and where other adapters of the same run lie.

    Attributes:
        checkpoints: adapter folders by name: "final", or the step of a checkpoint.
        manifest: what the run's newest checkpoint recorded of its data; {} for a model alone.
        pairs: held-out pairs of the run, read when first asked for.
        held_out: whether they are that; else nothing was, and these were trained on.
    """

    both: SideBySide
    loaded: load.LoadedModel
    name: str
    config: TrainConfig | None
    checkpoints: dict[str, Path]
    current: str
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)
    pairs: Sequence[TokenPair] | None = field(default=None, repr=False)
    held_out: bool = True

    @property
    def encoder(self) -> Encoder:
        """The tokenizer with its template."""
        return Encoder(self.both.tokenizer)

    @property
    def context(self) -> int | None:
        """Positions of the model, None if it does not say."""
        return context_length(self.loaded.config)


def open_playground(given: dict[str, Any]) -> Playground:
    """Load the model and the adapter a command line names.

    Raises:
        OrpoError: there is nothing to load, or it cannot be loaded.
    """
    if given.get("run"):
        run = find_run(given["run"], given.get("runs_dir"))
        config = run.read_config()
        found = adapters_of(run)
        if not found:
            raise _no_adapter(run)
        name, template = required(config, "model"), config.chat_template
        place = _load(name, config.revision, template, found, given.get("checkpoint"), config)
        place.manifest = find_newest(run.checkpoints_folder).manifest
        return place
    if not given.get("model"):
        raise ConfigError("--run or --model: one is needed.", "Give --run RUN or --model MODEL.")
    folders = {FINAL: Path(given["adapter"])} if given.get("adapter") else {}
    return _load(given["model"], None, None, folders, None, None)


def _no_adapter(run: RunDirectory) -> ConfigError:
    if run.is_locked():
        return ConfigError(
            f"run {run.id}: it has saved no adapter yet.",
            f"Wait for its first checkpoint, or ask for one: orpo-mlx checkpoint {run.id}.",
        )
    return ConfigError(
        f"run {run.id}: it ended before it saved an adapter.",
        f"Resume it, orpo-mlx resume {run.id}, or choose another run.",
    )


def adapters_of(run: RunDirectory) -> dict[str, Path]:
    """Return the adapters of a run by name, the one to begin with last."""
    found = {str(int(p.name)): p for p in sorted(iter_checkpoints(run.checkpoints_folder))}
    if run.adapter_folder.is_dir():
        found[FINAL] = run.adapter_folder
    return found


def _load(
    name: str,
    revision: str | None,
    template: str | None,
    adapters: dict[str, Path],
    wanted: str | None,
    config: TrainConfig | None,
) -> Playground:
    current = wanted or next(reversed(adapters), "")
    if current and current not in adapters:
        raise _no_checkpoint(current, adapters)
    spec = files.read_adapter_spec(adapters[current]) if current else None
    if current:
        require_answers(adapters[current])
    if config is not None:
        choose_float32(config.float32)
    loaded = load.load_model(load.resolve_model(name, revision), chat_template=template)
    if spec is not None:
        lora.attach_adapter(loaded.model, spec, seed=0)
        files.load_adapter_into(
            loaded.model, adapters[current], loaded.fingerprint, loaded.path.name
        )
    both = SideBySide(loaded.model, loaded.tokenizer)
    return Playground(both, loaded, name, config, adapters, current)


def _no_checkpoint(name: str, adapters: dict[str, Path]) -> ConfigError:
    return ConfigError(
        f"checkpoint {name}: there is none of this name.", f"There are: {', '.join(adapters)}."
    )


def use_checkpoint(place: Playground, name: str) -> None:
    """Let the adapter of a checkpoint answer from now on.

    Raises:
        ConfigError: there is none of this name.
        AdapterError: it does not fit.
    """
    if name not in place.checkpoints:
        raise _no_checkpoint(name, place.checkpoints)
    files.load_adapter_into(place.loaded.model, place.checkpoints[name], place.loaded.fingerprint)
    place.current = name


def encode_turns(encoder: Encoder, turns: list[Message]) -> list[int]:
    """Return the ids of turns, up to where the answer begins.

    Without a chat template their text is continued. A template that can switch thinking off writes
    an empty thought, as before the answers that were trained on.

    Raises:
        DataError: the last turn is empty, or the template refuses them.
    """
    if not turns[-1]["content"].strip():
        raise DataError("the prompt is empty.", "Type something for the model to answer.")
    if not encoder.has_chat_template:
        if any(turn["role"] == "system" for turn in turns):
            raise DataError(
                "the model has no chat template, and so no place for a system prompt.",
                "Leave it out, or say it in the user's turn.",
            )
        return encoder.encode(as_text(turns))
    folded = fold_system(turns) if encoder.folds_system else turns
    thinks = False if encoder.switches_thinking else None
    try:
        return encoder.encode(encoder.render(folded, True, thinks))
    except TemplateRefused as error:
        raise DataError(f"the chat template refuses this prompt: {error}", "Change it.") from error
