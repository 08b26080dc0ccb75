"""The settings of a training run: all groups as one, read from anywhere, checked together.

A setting is declared once, in the module of its group in `settings/`. Names follow the glossary in
CONTRIBUTING.md; `lam` is the paper's lambda.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError, model_validator

from orpo_mlx.config.adapter import AdapterSettings
from orpo_mlx.config.data import DataSettings
from orpo_mlx.config.declaration import Setting, described
from orpo_mlx.config.evaluation import EvaluationSettings
from orpo_mlx.config.model import ModelSettings
from orpo_mlx.config.objective import (
    OF_ANSWERS,
    OWN_SETTINGS,
    RATES,
    ObjectiveSettings,
    foreign_settings,
)
from orpo_mlx.config.optimisation import CANNOT_KEEP, CANNOT_RECOMPUTE, OptimisationSettings
from orpo_mlx.config.run import TRACKERS, RunSettings
from orpo_mlx.errors import ConfigError
from orpo_mlx.text.spelling import did_you_mean


# pydantic takes the fields of the last base first.
class TrainConfig(
    RunSettings,
    EvaluationSettings,
    OptimisationSettings,
    AdapterSettings,
    ObjectiveSettings,
    DataSettings,
    ModelSettings,
):
    """The settings of one run; immutable, and valid by construction.

    Raises:
        pydantic.ValidationError: from the constructor; `load_config` and the command line turn it
            into a `ConfigError` that lists every problem.
    """

    @model_validator(mode="before")
    @classmethod
    def _rate_of_the_objective(cls, values: Any) -> Any:
        """Take the learning rate that goes with the objective, if none is given."""
        if isinstance(values, dict) and "learning_rate" not in values:
            rate = RATES.get(str(values.get("objective", "orpo")))
            return values if rate is None else {**values, "learning_rate": rate}
        return values


def iter_settings() -> Iterator[Setting]:
    """Yield every setting in the order of its declaration."""
    for name, field in TrainConfig.model_fields.items():
        yield described(name, field)


def build_config(values: dict[str, Any], origins: dict[str, str] | None = None) -> TrainConfig:
    """Validate settings and report every problem together.

    Args:
        values: setting names to raw values; strings are converted.
        origins: for each name, where the value came from ("--rank", "run.toml: rank").

    Raises:
        ConfigError: listing every unknown name, refused value and conflict.
    """
    origins = origins or {}
    try:
        config = TrainConfig(**values)
    except ValidationError as error:
        problems = [_describe(problem, origins) for problem in error.errors()]
        raise _refused(problems) from None
    require_consistent(config, given=set(values))
    return config


def require_consistent(config: TrainConfig, given: set[str] | None = None) -> None:
    """Refuse settings that contradict each other.

    Args:
        config: the settings.
        given: names set on purpose (default: those whose value is not the default).

    Raises:
        ConfigError: listing every conflict.
    """
    if given is None:
        given = {s.name for s in iter_settings() if getattr(config, s.name) != s.default}
    if problems := list(conflicts(config, given)):
        raise _refused(problems)


def _describe(problem: Any, origins: dict[str, str]) -> str:
    name = str(problem["loc"][0])
    known = {s.name: s for s in iter_settings()}
    where = origins.get(name, name)
    if name not in known:
        return f"{where}: there is no such setting{did_you_mean(name, known)}"
    return f"{where}: {known[name].refusal(problem['input'])}"


def _refused(problems: list[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(problems[0], "Correct it and start again; --help lists all settings.")
    listed = "\n".join(f"  {problem}" for problem in problems)
    return ConfigError(
        f"{len(problems)} settings cannot be used:\n{listed}",
        "Correct them and start again; --help lists all settings.",
    )


def conflicts(config: TrainConfig, given: set[str]) -> Iterator[str]:
    """Yield each combination of settings that contradicts itself.

    Args:
        config: the settings.
        given: names set on purpose; a default never conflicts.
    """
    if config.steps is not None and "epochs" in given:
        yield f"--steps {config.steps} and --epochs {config.epochs:g}: give only one of both"
    if config.scale is not None and config.alpha is not None:
        yield f"--scale {config.scale:g} and --alpha {config.alpha:g}: give only one of both"
    if not config.target_modules:
        yield "--target-modules: names no layer; needs all, or names such as q_proj,v_proj"
    for name in config.report_to:
        if name not in TRACKERS:
            yield f"--report-to {name}: there is no such tracker; needs {', '.join(TRACKERS)}"
    if config.num_layers == 0 and not config.init_adapter:
        yield "--num-layers 0: adapts no block; needs 1 or more, or -1 for all"
    # A run's config.toml names every setting, so that a default must not conflict.
    default = TrainConfig.model_fields["trunk_cache_size"].default
    if config.trunk_cache_size != default and config.trunk_cache == "off":
        yield "--trunk-cache-size: needs --trunk-cache memory or disk"
    if config.trunk_cache_dir is not None and config.trunk_cache != "disk":
        yield "--trunk-cache-dir: needs --trunk-cache disk"
    if config.trunk_cache != "off":
        yield from _against_trunk_cache(config)
    if config.rslora and config.alpha is None:
        yield "--rslora: needs --alpha (scale = alpha / sqrt(rank))"
    yield from _of_objective(config)
    if config.valid_data is not None and "valid_fraction" in given and config.valid_fraction:
        yield "--valid-data and --valid-fraction: give only one of both"
    has_validation = config.valid_data is not None or config.valid_fraction > 0
    for name in ("keep_best", "early_stop"):
        if getattr(config, name) and not has_validation:
            yield f"--{name.replace('_', '-')}: needs validation pairs (--valid-fraction above 0)"
    if config.keep_best and config.eval_every == 0:
        yield "--keep-best: needs --eval-every N, else only start and end are compared"
    if config.early_stop and config.eval_every == 0:
        yield "--early-stop: needs --eval-every N"
    if config.stop_drift and config.drift_every == 0:
        yield f"--stop-drift {config.stop_drift:g}: needs drift; leave out --drift-every 0"
    if config.scoring in CANNOT_RECOMPUTE and config.grad_checkpoint == "on":
        yield f"--scoring {config.scoring}: not with --grad-checkpoint on; take auto"
    if config.grad_checkpoint_every > 1 and config.grad_checkpoint != "on":
        yield f"--grad-checkpoint-every {config.grad_checkpoint_every}: needs --grad-checkpoint on"


def _of_objective(config: TrainConfig) -> Iterator[str]:
    for name in sorted(foreign_settings(config.objective)):
        value = getattr(config, name)
        if value == TrainConfig.model_fields[name].default or (name in OF_ANSWERS and not value):
            continue
        users = ", ".join(other for other, names in OWN_SETTINGS.items() if name in names)
        flag = "--" + name.replace("_", "-")
        yield (
            f"{flag}: does nothing with --objective {config.objective}; it is for "
            f"{users or 'models that write answers'}"
        )
    if config.objective == "orpo" and config.nll_weight == 0:
        if config.preference == "none":
            yield "--preference none with --nll-weight 0: nothing would be trained"
        elif config.lam == 0:
            yield "--lam 0 with --nll-weight 0: nothing would be trained"
    if config.label_smoothing and config.dpo_loss not in ("sigmoid", "robust"):
        yield f"--label-smoothing: not with --dpo-loss {config.dpo_loss}; take sigmoid or robust"
    if config.ipo_length != "averaged" and config.dpo_loss != "ipo":
        yield f"--ipo-length: needs --dpo-loss ipo, found {config.dpo_loss}"
    if config.objective == "kto":
        yield from _against_kto(config)
    if config.reference == "start" and config.init_adapter is None:
        yield "--reference start: needs --init-adapter, else the start is the base"


def _against_kto(config: TrainConfig) -> Iterator[str]:
    rows = config.micro_batch_size * config.grad_accumulation_steps
    if config.kto_loss == "kto" and rows < 2:
        yield (
            "--micro-batch-size 1 with --grad-accumulation-steps 1: kto estimates its KL from the "
            "other answers of a step; needs 2 or more in one of both, or --kto-loss "
            "apo_zero_unpaired"
        )
    if config.desirable_weight == config.undesirable_weight == 0:
        yield "--desirable-weight 0 with --undesirable-weight 0: nothing would be trained"


def _against_trunk_cache(config: TrainConfig) -> Iterator[str]:
    said = f"--trunk-cache {config.trunk_cache}"
    if config.scoring in CANNOT_KEEP:
        own = "which hands a prompt's states on to its answers"
        yield f"{said}: not with --scoring {config.scoring}, {own}"
    # Of an adapter to start from the layers are not known here.
    if config.num_layers == -1 and "all" in config.target_modules and not config.init_adapter:
        yield f"{said}: not with --num-layers -1, which leaves no block below the adapter"


def adapter_scale(config: TrainConfig) -> float:
    """Return the factor on the adapter's output: the one place where alpha becomes scale."""
    if config.alpha is None:
        return 2.0 if config.scale is None else config.scale
    return config.alpha / (config.rank**0.5 if config.rslora else config.rank)


def required(config: TrainConfig, name: str) -> str:
    """Return a setting that has no default.

    Raises:
        ConfigError: it is not set.
    """
    value = getattr(config, name)
    if not value:
        raise ConfigError(
            f"--{name}: is not set", "Give --model and --data, or try --demo, which has both."
        )
    return value
