"""What is judged: one base model in memory, the adapters it wears in turn, the pairs to judge by.

Everything that can be wrong is looked at from cheap to dear: the runs and their adapters, the data,
the tokenizer, and only then the weights. A second model is never loaded: the base is the model
before an adapter is put on, and the layers an adapter wraps are put back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.adapters.folder import load_into, read_spec
from orpo_mlx.adapters.lora import attach_adapter, detach_adapter
from orpo_mlx.adapters.reward_head import attach_head, detach_head, holds_head
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import required
from orpo_mlx.errors import CheckpointError, ConfigError, RunError
from orpo_mlx.evaluation.held_out import HeldOut, draw, find_of_run, find_own, tokenize_held_out
from orpo_mlx.models.load import (
    LoadedModel,
    ModelFolder,
    load_model,
    load_tokenizer,
    read_weights,
    resolve_model,
)
from orpo_mlx.models.precision import choose_float32
from orpo_mlx.objectives import build_objective
from orpo_mlx.runs.checkpoints import find_newest
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.head import REWARD
from orpo_mlx.scoring.plain import Plain
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.text.progress import OnProgress, tell_phase

START = "start"
"""The side that is only measured from: the adapter a run with `--reference start` began with."""


@dataclass(frozen=True)
class AdapterPlace:
    """An adapter on disk and what to call it.

    Attributes:
        name: a run's id, or the folder.
        folder: in mlx-lm's format or PEFT's.
        run: it comes from, None for a folder.
        manifest: of the run's newest checkpoint, {} if there is none.
        note: what the user should know of it, often "".
    """

    name: str
    folder: Path
    run: RunDirectory | None = None
    manifest: dict[str, Any] | None = None
    note: str = ""


@dataclass(frozen=True)
class Asked:
    """What is to be judged, by what.

    Attributes:
        config: of the run, or made from options; with --data its `data` is that file.
        adapter: None for a model alone.
        against: another adapter on the same base.
        has_own_data: whether the pairs are the user's, not what the run held out.
        pairs: how many are drawn; 0 = all.
        seed: of every draw.
    """

    config: TrainConfig
    adapter: AdapterPlace | None
    against: AdapterPlace | None = None
    has_own_data: bool = False
    pairs: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """A model in memory, pairs, and what it can wear.

    Attributes:
        sides: adapters by side: "adapter", and "other" where two are compared.
        scoring: as the run's training scored, response tokens only; rewards of a reward model.
        notes: what the user should know.
        start: the adapter that rewards are measured from; None: from the base.
    """

    asked: Asked
    folder: ModelFolder
    loaded: LoadedModel
    held: HeldOut
    sides: dict[str, AdapterPlace]
    scoring: Scoring
    notes: tuple[str, ...]
    start: AdapterPlace | None = None

    @contextmanager
    def wearing(self, side: str) -> Iterator[None]:
        """Be the adapted model inside; "base" is the model as it is, START what it began as.

        Raises:
            AdapterError: the adapter does not fit, or is of another base.
        """
        if side == "base":
            yield
            return
        place = self.start if side == START else self.sides[side]
        assert place is not None
        with _worn(self.loaded, place.folder, self.folder.name):
            yield


@contextmanager
def _worn(loaded: LoadedModel, place: Path, base: str) -> Iterator[None]:
    attach_adapter(loaded.model, read_spec(place), seed=0)
    if holds_head(place):
        attach_head(loaded.model, seed=0)
    try:
        load_into(loaded.model, place, loaded.fingerprint, base)
        yield
    finally:
        detach_adapter(loaded.model)
        detach_head(loaded.model)


def adapter_of(run: RunDirectory) -> AdapterPlace:
    """Return the adapter a run has made, of an unfinished one its newest checkpoint.

    Raises:
        RunError: it is being trained, or has saved nothing yet.
    """
    if run.is_locked():
        raise RunError(
            f"run {run.id}: is being trained ({run.read_status()}); a finished or stopped run is "
            "needed.",
            f"Wait for its end (orpo-mlx watch {run.id}), or stop it: orpo-mlx stop {run.id} "
            "--wait.",
        )
    try:
        newest = find_newest(run.checkpoints_folder)
    except CheckpointError:
        newest = None
    manifest = newest.manifest if newest else {}
    if run.adapter_folder.is_dir():
        return AdapterPlace(run.id, run.adapter_folder, run, manifest)
    if newest is None:
        raise RunError(
            f"run {run.id}: ended ({run.last_status()}) before it saved an adapter.",
            f"Go on with it, orpo-mlx resume {run.id}, or choose another run.",
        )
    note = f"run {run.id} has no result; its checkpoint of step {int(newest.path.name)} is taken"
    return AdapterPlace(run.id, newest.path, run, manifest, note)


def open_subject(
    asked: Asked, on_progress: OnProgress | None = None, *, reads_weights: bool = True
) -> Subject:
    """Find, check and load what is to be judged.

    Args:
        asked: what.
        on_progress: told of each phase, of downloads and of rows.
        reads_weights: else they stay on disk until `models.load.read_weights`.

    Raises:
        OrpoError: naming what is wrong and what to do.
    """
    config, own, start = asked.config, asked.adapter, start_of(asked.config)
    manifest = (own.manifest if own else None) or {}
    contradicted = choose_float32(config.float32)
    tell_phase(on_progress, "reading the data")
    of_run = bool(own and own.run) and not asked.has_own_data
    name = own.name if own else ""
    found = (
        find_of_run(config, manifest, name, on_progress)
        if of_run
        else find_own(config, on_progress)
    )
    folder = resolve_model(required(config, "model"), config.revision, on_progress)
    tell_phase(on_progress, "tokenizing the pairs")
    tokenizer = load_tokenizer(folder, config.chat_template)
    held = tokenize_held_out(config, found, tokenizer, folder, of_run, on_progress)
    held = draw(held, asked.pairs, asked.seed)
    sides = {
        side: place
        for side, place in (("other", asked.against), ("adapter", own))
        if place is not None
    }
    scope = _scope(sides)
    tell_phase(on_progress, "loading the weights")
    loaded = load_model(folder, tokenizer, lazy=True)
    for place in (*sides.values(), *([start] if start else [])):
        with _worn(loaded, place.folder, folder.name):
            pass
    if reads_weights:
        read_weights(loaded)
    notes = (
        *filter(None, [contradicted, folder.note]),
        *(place.note for place in sides.values() if place.note),
        *held.notes,
        *notes_on_groups(held),
        *_notes_on_other(asked),
        *_notes_on_seen(asked, found.hashes["data"], manifest),
    )
    way = WAYS.get(str(manifest.get("scoring")), Plain())
    return Subject(asked, folder, loaded, held, sides, Scoring(way, scope), notes, start)


def start_of(config: TrainConfig) -> AdapterPlace | None:
    """Return the adapter that the rewards of a run are measured from, None where it is the base.

    Raises:
        ConfigError: it is no longer where the run found it.
    """
    if config.reference != START or config.init_adapter is None:
        return None
    if not build_objective(config.objective, config.model_dump()).needs_reference:
        return None
    folder = Path(config.init_adapter).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"--reference start: rewards are measured from the adapter the run began with, and "
            f"there is no folder {folder} any more.",
            "Put it back, or compare the adapters alone: orpo-mlx evaluate --model MODEL --adapter "
            "FOLDER --data FILE.",
        )
    return AdapterPlace(START, folder)


def _scope(sides: dict[str, AdapterPlace]) -> str:
    """Return what is scored: rewards if all sides are reward models, log-probs if none is.

    Raises:
        ConfigError: one is and the other is not.
    """
    rating = [place for place in sides.values() if holds_head(place.folder)]
    if not rating:
        return "response"
    if len(rating) < len(sides):
        raise ConfigError(
            f"--against: {rating[0].name} is a reward model and the other side is not; what they "
            "say of a pair cannot be compared.",
            "Compare two reward models, or two models that write answers.",
        )
    return REWARD


def notes_on_groups(held: HeldOut) -> list[str]:
    """Say whether the pairs have too few different prompts."""
    count = len(set(held.groups.tolist()))
    if count >= 10:
        return []
    return [
        f"the {len(held.pairs)} pairs have only {count} different prompts: intervals are drawn "
        "over prompts, and from so few they are too narrow"
    ]


def _notes_on_seen(asked: Asked, digest: str, manifest: dict[str, Any]) -> list[str]:
    """Say whether the user's pairs are the very file the run was trained on."""
    if not asked.has_own_data or digest != manifest.get("content", {}).get("data"):
        return []
    return [
        f"--data {asked.config.data} is what the run was trained on: good numbers on these pairs "
        "say nothing about others"
    ]


def _notes_on_other(asked: Asked) -> list[str]:
    """Say whether the other run may have been trained on the pairs of this one."""
    own, other = asked.adapter, asked.against
    if not (own and own.run and other and other.run) or asked.has_own_data:
        return []
    keys = ("data", "valid_data", "data_split", "data_subset", "valid_fraction", "seed")
    theirs = other.run.read_config()
    differ = [key for key in keys if getattr(asked.config, key) != getattr(theirs, key)]
    contents = [(place.manifest or {}).get("content", {}) for place in (own, other)]
    if contents[0].get("data") != contents[1].get("data"):
        differ.append("the content of the data")
    if not differ:
        return []
    return [
        f"run {other.name} divided its data otherwise ({', '.join(differ)} differ): it may have "
        f"been trained on pairs that run {own.name} held out"
    ]


def config_with_data(config: TrainConfig, given: dict[str, Any]) -> TrainConfig:
    """Return the settings of a run with other pairs to judge by.

    Args:
        config: of the run.
        given: data, and how it is read.
    """
    cleared = dict.fromkeys(
        ("valid_data", "data_split", "data_subset", "data_revision", "layout", "map")
    )
    return config.model_copy(update={**cleared, **given})


def require_same_base(own: AdapterPlace, config: TrainConfig, other: AdapterPlace) -> None:
    """Refuse runs whose settings name different models, before anything is loaded.

    Raises:
        ConfigError: they do; their adapters cannot be worn by one model.
    """
    theirs = other.run.read_config() if other.run else None
    prints = [(place.manifest or {}).get("content", {}).get("model") for place in (own, other)]
    if theirs is None or None in prints or prints[0] == prints[1]:
        return
    raise ConfigError(
        f"--against {other.name}: was trained on {theirs.model}, {own.name} on {config.model}; "
        "the same base model is needed.",
        "Compare runs of one model, or evaluate each by itself on the same --data FILE.",
    )
