"""A run that is being planned: what was chosen so far, what is wrong with it, its command; pure.

Values stay as they were typed until a training is started, so that a half-written number is
neither lost nor replaced.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from orpo_mlx import demo
from orpo_mlx.config import TrainConfig, build_config
from orpo_mlx.config.adapter import OF_THE_ADAPTER
from orpo_mlx.config.declaration import Setting
from orpo_mlx.config.objective import RATES, foreign_settings
from orpo_mlx.config.train_config import conflicts, iter_settings
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.group.sweep import changes_text, combinations, parse_sweeps
from orpo_mlx.storage.atomic import write_atomically
from tui.new_run.presets import PRESETS

SETTINGS: dict[str, Setting] = {setting.name: setting for setting in iter_settings()}
_SIBLINGS = (("steps", "epochs"), ("scale", "alpha"), ("valid_data", "valid_fraction"))
_DATA_GROUPS = ("model", "data")
MOST_PROCESSES = 64
"""The command takes no more."""


class Problem(NamedTuple):
    """Why settings cannot be used, and the settings it is about."""

    names: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Draft:
    """The settings chosen so far.

    Attributes:
        own: settings the user chose, as typed: texts, or values of their own type.
        preset: a key of `PRESETS`, whose values lie under the user's.
        counted: (words of the check that counted, training pairs it found, whether they are answers
            with a label each); they hold for what that check looked at.
    """

    own: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "balanced"
    counted: tuple[tuple[str, ...], int, bool] = ((), 0, False)
    sweeps: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values of settings that have several; each combination makes a run."""
    processes: int = 1
    """Of this machine that share the run."""
    hostfile: str = ""
    """Names the machines that share it; a terminal starts such a run."""

    @property
    def values(self) -> dict[str, Any]:
        """The preset's values under the user's; one that excludes a preset's replaces it."""
        under = dict(PRESETS[self.preset].values)
        for pair in _SIBLINGS:
            if set(pair) & set(self.own):
                under = {name: value for name, value in under.items() if name not in pair}
        if self.is_demo_model and under.get("num_layers", -1) > 0:
            del under["num_layers"]  # presets for real models ask for more blocks than it has
        objective = str(self.own.get("objective", "orpo"))
        foreign = foreign_settings(objective)
        if objective != "orpo" and self.preset != "demo":
            foreign = {*foreign, "learning_rate"}  # presets speak of ORPO's
        return {**{n: value for n, value in under.items() if n not in foreign}, **self.own}

    @property
    def idle(self) -> set[str]:
        """Settings that do nothing with the chosen objective; one of the user's is a conflict."""
        return foreign_settings(str(self.get("objective"))) - set(self.own)

    def get(self, name: str) -> Any:
        """Return a setting's present value: the user's, the preset's, or the default."""
        return self.values.get(name, self.default(name))

    def default(self, name: str) -> Any:
        """Return what counts where nothing is chosen; a learning rate goes with the objective."""
        if name == "learning_rate":
            return RATES.get(str(self.get("objective")), SETTINGS[name].default)
        return SETTINGS[name].default

    @property
    def model(self) -> str:
        """The model as given to --model, "" while there is none."""
        return str(self.own.get("model") or "")

    @property
    def data(self) -> str:
        """The data as given to --data, "" while there is none."""
        return str(self.own.get("data") or "")

    @property
    def is_demo_model(self) -> bool:
        """Whether the built-in model is meant."""
        return self.model == str(demo.model_path())

    @property
    def is_demo_data(self) -> bool:
        """Whether the built-in pairs are meant."""
        return self.data == str(demo.train_path())

    def with_value(self, name: str, value: Any) -> Draft:
        """Return the draft with a setting chosen; an empty one is no longer chosen."""
        if isinstance(value, str) and SETTINGS[name].kind in ("int", "float"):
            value = value.strip()
        rest = {key: old for key, old in self.own.items() if key != name}
        changed = replace(self, own=rest)
        if value in (None, "", {}) or _same(value, changed.get(name)):
            return changed
        return replace(self, own={**rest, name: value})

    def with_values(self, values: Mapping[str, Any]) -> Draft:
        """Return the draft with several settings chosen."""
        changed = self
        for name, value in values.items():
            changed = changed.with_value(name, value)
        return changed

    def with_model(self, model: str) -> Draft:
        """Return the draft with another model; the built-in one brings its preset with it."""
        changed = self.with_value("model", local_path(model))
        if changed.is_demo_model != self.is_demo_model:
            changed = replace(changed, preset="demo" if changed.is_demo_model else "balanced")
        return changed

    def with_data(self, data: str) -> Draft:
        """Return the draft with other data; what was said of the old one's columns is dropped."""
        path = local_path(data)
        if path == self.data:
            return self
        is_demo = path == str(demo.train_path())
        # The demo's validation pairs say nothing about other data.
        valid = str(demo.valid_path()) if is_demo else self.own.get("valid_data")
        valid = None if not is_demo and valid == str(demo.valid_path()) else valid
        changes = {"data": path, "valid_data": valid}
        changes |= {"map": None} if "map" in SETTINGS else {}
        return self.with_values(changes)

    def with_pairs(self, pairs: int, is_labelled: bool = False) -> Draft:
        """Return the draft, knowing what its data leave to train on; the objective is one for that.

        Args:
            pairs: for training.
            is_labelled: whether they are answers with a label each.
        """
        changed = replace(self, counted=(tuple(self.check_words()), pairs, is_labelled))
        is_kto = self.get("objective") == "kto"
        if is_labelled == is_kto or (is_kto and value_text(self.get("unpair")) == "true"):
            return changed
        return changed.with_value("objective", "kto" if is_labelled else None)

    @property
    def pairs(self) -> int:
        """Training pairs there are, 0 while the data were not looked at as they are planned now."""
        words, pairs, _ = self.counted
        return pairs if words == tuple(self.check_words()) else 0

    @property
    def is_labelled(self) -> bool:
        """Whether the data are known to be answers with a label each."""
        return bool(self.pairs) and self.counted[2]

    def with_preset(self, preset: str) -> Draft:
        """Return the draft with another preset; what the user chose stays."""
        return replace(self, preset=preset)

    # What is wrong

    def problems(self) -> list[Problem]:
        """Return what cannot be used, each with the settings it is about."""
        try:
            config = TrainConfig(**self.values)
        except ValidationError as error:
            return [_problem(found) for found in error.errors()]
        found = [
            *conflicts(config, set(self.values)),
            *self._too_few(config.micro_batch_size),
            *self._unserved(config),
            *self._shared_sweep(),
        ]
        return [Problem(named_settings(sentence), sentence) for sentence in found] or [
            Problem(tuple(changes), f"{changes_text(changes)}: {problem.text}")
            for changes in self._changes()
            for problem in self._as_one(changes).problems()
        ]

    def _shared_sweep(self) -> list[str]:
        flag = "hosts" if self.hostfile else "processes"
        is_shared = self.hostfile or self.processes > 1
        text = f"--sweep and --{flag}: the runs of a sweep are computed by one process each"
        return [text] if self.sweeps and is_shared else []

    def _changes(self) -> list[dict[str, str]]:
        """What is each run's own where settings have several values."""
        return combinations(self.sweeps) if self.sweeps else []

    def _as_one(self, changes: Mapping[str, str]) -> Draft:
        return replace(self, sweeps={}).with_values(changes)

    def runs(self) -> list[tuple[TrainConfig, dict[str, str]]]:
        """Return the settings of each run of a sweep, and what is its own.

        Raises:
            ConfigError: listing every problem.
        """
        return [(self._as_one(changes).config(), changes) for changes in self._changes()]

    def _too_few(self, smallest: int) -> list[str]:
        if not 0 < self.pairs < smallest:
            return []
        return [f"--micro-batch-size {smallest} is more than the {self.pairs:,} training pairs"]

    def _unserved(self, config: TrainConfig) -> Iterator[str]:
        """Yield why the data cannot serve the objective."""
        if self.is_labelled and config.objective != "kto":
            yield (
                f"--objective {config.objective}: needs pairs, and the data are answers with a "
                "label each; kto learns from them"
            )
        elif config.objective == "kto" and self.pairs and not (self.is_labelled or config.unpair):
            yield "--objective kto: needs answers with a label each, or pairs with --unpair"

    def missing(self) -> str:
        """Return what still has to be chosen, in a sentence, "" if nothing has."""
        wanted = [n for n, v in (("a model", self.model), ("data", self.data)) if not v]
        return f"Choose {' and '.join(wanted)} first." if wanted else ""

    def config(self) -> TrainConfig:
        """Return the settings of the run.

        Raises:
            ConfigError: listing every problem.
        """
        return build_config(self.values, {name: SETTINGS[name].flag for name in self.values})

    # As words

    def flags(self, names: Iterable[str] | None = None) -> list[str]:
        """Return settings that are no default as options of the command line."""
        wanted = set(SETTINGS if names is None else names)
        return [
            word
            for name, setting in SETTINGS.items()
            if name in self.values and name in wanted
            for word in _option(setting, self.values[name], self.default(name))
        ]

    def command(self) -> str:
        """Return the command that does the same."""
        swept = [f"{name}={','.join(values)}" for name, values in self.sweeps.items()]
        words = [word for text in swept for word in ("--sweep", text)]
        flags = self.flags(set(SETTINGS) - set(self.sweeps))
        return shlex.join(["orpo-mlx", "train", *flags, *words, *self.peer_words()])

    def peer_words(self) -> list[str]:
        """Return what says in a command who computes the run."""
        if self.hostfile:
            return ["--hosts", self.hostfile]
        return ["--processes", str(self.processes)] if self.processes > 1 else []

    def fit_words(self, model: str = "") -> list[str]:
        """Return the words behind `orpo-mlx fit` for this draft.

        Args:
            model: ask for this one instead, and without data: for the longest pairs possible.
        """
        asked = [] if self.hostfile else self.peer_words()
        if not model:
            return [*self.flags(), *asked, "--json"]
        rest = set(SETTINGS) - {"model", "data", "valid_data", "map"}
        return ["--model", model, *self.flags(rest), *asked, "--json"]

    def check_words(self) -> list[str]:
        """Return the words behind `orpo-mlx data check`; settings of the data alone matter."""
        names = {name for name, one in SETTINGS.items() if one.group in _DATA_GROUPS}
        return [self.data, *self.flags(names - {"data"}), "--json"]


def draft_like(config: TrainConfig, start: Path | None = None) -> Draft:
    """Return a draft with the settings of a run, which are then changed; its places are its own.

    Args:
        config: of that run.
        start: a folder with an adapter to go on from; its shape is its own.
    """
    values = config.model_dump(exclude={"model", "run_dir", "runs_dir"}, exclude_none=True)
    for wins, name in (("steps", "epochs"), ("valid_data", "valid_fraction")):
        if wins in values:
            values.pop(name, None)
    # On the defaults: what the run left unset must not come from the built-in model's preset.
    draft = replace(Draft().with_model(str(config.model or "")), preset="balanced")
    draft = draft.with_values(values)
    if start is None:
        return draft
    return draft.with_values({**dict.fromkeys(OF_THE_ADAPTER), "init_adapter": str(start)})


def draft_anew(config: TrainConfig, checkpoint: Path | None) -> Draft:
    """Return a draft like a run that met NaN: at half its rate, from the adapter saved last.

    Args:
        config: of that run.
        checkpoint: a folder with its adapter; None to begin afresh.
    """
    return draft_like(config, checkpoint).with_value("learning_rate", config.learning_rate / 2)


def local_path(text: str) -> str:
    """Return a path to something that is there as an absolute one, anything else as it stands."""
    text = text.strip()
    try:
        path = Path(text).expanduser()
        return str(path.absolute()) if text and path.exists() else text
    except (OSError, RuntimeError, ValueError):  # too long a name, no such user, a NUL
        return text


def value_text(value: Any) -> str:
    """Return a setting's value as it is typed; "" for none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{name}={path}" for name, path in value.items())
    return str(value)


def _same(value: Any, other: Any) -> bool:
    if value_text(value) == value_text(other):
        return True
    try:
        return not isinstance(other, bool) and float(value) == float(other)
    except (TypeError, ValueError):
        return False


def _option(setting: Setting, value: Any, default: Any) -> list[str]:
    if setting.kind == "bool":
        on = value_text(value) == "true"
        return [] if on == default else [setting.flag if on else f"--no-{setting.flag[2:]}"]
    text = value_text(value)
    if text == value_text(default):
        return []
    if setting.kind == "str" and text.startswith("-"):
        return [f"{setting.flag}={text}"]  # it would be taken for an option
    return [setting.flag, text]


def _problem(found: Any) -> Problem:
    name = str(found["loc"][0])
    if name not in SETTINGS:
        return Problem((name,), f"{name}: there is no such setting")
    return Problem((name,), SETTINGS[name].refusal(found["input"]))


def named_settings(sentence: str) -> tuple[str, ...]:
    """Return the settings whose flags a sentence names, in its order."""
    flags = re.findall(r"--([a-z][a-z-]*)", sentence)
    names = [flag.replace("-", "_") for flag in flags]
    return tuple(dict.fromkeys(name for name in names if name in SETTINGS))


# Keeping it


def save_draft(draft: Draft, file: Path) -> None:
    """Keep a draft.

    Raises:
        OSError: it could not be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    sweeps = {name: list(values) for name, values in draft.sweeps.items()}
    content = {"preset": draft.preset, "own": dict(draft.own), "sweeps": sweeps}
    content |= {"processes": draft.processes, "hostfile": draft.hostfile}
    write_atomically(file, (json.dumps(content, indent=2) + "\n").encode())


def load_draft(file: Path) -> Draft | None:
    """Return the draft that was kept, None if there is none that can be used.

    Settings this version does not know are left out: another version may have written them.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    own = content.get("own") if isinstance(content, dict) else None
    if not isinstance(own, dict):
        return None
    preset = content.get("preset")
    known = {name: value for name, value in own.items() if name in SETTINGS}
    preset = preset if preset in PRESETS else "balanced"
    sweeps = _kept_sweeps(content.get("sweeps"))
    processes, hostfile = content.get("processes"), content.get("hostfile")
    processes = processes if isinstance(processes, int) and 1 < processes <= MOST_PROCESSES else 1
    hostfile = hostfile if isinstance(hostfile, str) else ""
    draft = Draft(known, preset, sweeps=sweeps, processes=processes, hostfile=hostfile)
    return draft if known else None


def _kept_sweeps(raw: object) -> dict[str, list[str]]:
    """Return the sweeps of a kept draft; none where they make no sense to this version."""
    if not isinstance(raw, dict):
        return {}
    try:
        return parse_sweeps([f"{name}={','.join(values)}" for name, values in raw.items()])
    except (ConfigError, TypeError):
        return {}
