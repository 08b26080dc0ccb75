"""Every setting of a training run, declared once.

A declaration gives type, range, default, unit, help and effect; from it come the settings-file key
(TOML), the command-line flag, the form field, the help text and the table in the docs. Names follow
the glossary in CONTRIBUTING.md; `lam` is the paper's lambda.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from orpo_mlx.errors import ConfigError
from orpo_mlx.suggestions import did_you_mean

GROUPS = {
    "model": "Model",
    "data": "Data",
    "objective": "Objective",
    "adapter": "Adapter (LoRA)",
    "optimisation": "Optimisation",
    "evaluation": "Evaluation and samples",
    "run": "Run directory and reports",
}


def setting(
    default: Any,
    help: str,
    *,
    group: str,
    unit: str = "",
    effect: str = "",
    may_change: bool = False,
    **bounds: Any,
) -> Any:
    """Declare one setting.

    Args:
        default: its value when neither flag nor file gives one.
        help: one sentence for `--help`, forms and docs.
        group: a key of `GROUPS`.
        unit: what a number counts ("steps", "tokens", ...), "" if it has none.
        effect: what a higher value does to memory, time or quality.
        may_change: whether a resumed run may use another value without becoming another run.
        bounds: pydantic limits (`ge`, `gt`, `le`, `lt`).
    """
    about = {"group": group, "unit": unit, "effect": effect, "may_change": may_change}
    return Field(default, description=help, json_schema_extra={"setting": about}, **bounds)


def _split_list(value: Any) -> Any:
    """Accept "q_proj,v_proj" from the command line for list settings."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


NameList = Annotated[list[str], BeforeValidator(_split_list)]


def _from_switch(value: Any) -> Any:
    """Accept true and false for a choice that was a switch once."""
    words = {"true": "on", "false": "off"}
    return words.get(str(value).lower(), value)


WERE_SWITCHES = ("grad_checkpoint",)
"""Choices for which a settings file may say true or false."""

Recomputing = Annotated[Literal["auto", "off", "on"], BeforeValidator(_from_switch)]

KEEPS_STATE = ("shared", "fork")
"""Ways of scoring whose caches hold arrays of a layer: a layer that is computed again in the
backward pass would write into a cache its first computation already changed, and gradients would go
wrong."""


def split_map(value: Any) -> Any:
    """Accept "prompt=question chosen=good", or a list of such words, for a table of names.

    Raises:
        ValueError: a word is not of this form, or a name stands there twice.
    """
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list):
        return value
    table: dict[str, str] = {}
    # A column's name may hold blanks, so they only part words that name several.
    texts = [part for text in words for part in str(text).split(",")]
    several = [part.split() if part.count("=") > 1 else [part] for part in texts]
    for word in (part for parts in several for part in parts if part.strip()):
        name, path = (part.strip() for part in word.partition("=")[::2])
        if not name or not path or name in table:
            raise ValueError(f"{word} is not NAME=COLUMN, or {name} stands there twice")
        table[name] = path
    return table or None


NameMap = Annotated[dict[str, str] | None, BeforeValidator(split_map)]


class TrainConfig(BaseModel):
    """The settings of one run; immutable, and valid by construction.

    Raises:
        pydantic.ValidationError: from the constructor; `load_config` and the command line turn it
            into a `ConfigError` that lists every problem.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

    # Model
    model: str | None = setting(
        None, "Model folder, or Hub id such as mlx-community/Qwen3-0.6B-4bit.", group="model"
    )
    revision: str | None = setting(
        None, "Branch, tag or commit of a Hub model; not set: main.", group="model"
    )
    chat_template: str | None = setting(
        None,
        "Template for a model that has none, or to replace its own: 'chatml' or a Jinja file.",
        group="model",
    )
    thinking: Literal["auto", "on", "off"] = setting(
        "auto",
        "Where answers begin for models that can think first: after an empty thought (off), where "
        "a thought may come (on), or on only for pairs that hold <think> blocks (auto).",
        group="model",
    )
    escape_special: bool = setting(
        False,
        "Learn control tokens inside texts, such as <|im_end|>, as the characters they are "
        "written with instead of as ends of turns.",
        group="model",
    )

    # Data
    data: str | None = setting(
        None,
        "Preference pairs: a file (.jsonl, .json, .csv, .parquet, also .gz), a folder, a Hub "
        "dataset such as argilla/dpo-mix-7k, or several with shares: a.jsonl:2,b.jsonl:1.",
        group="data",
    )
    data_split: str | None = setting(
        None,
        "Split of a folder or Hub dataset, such as train_prefs; not set: the one for training.",
        group="data",
    )
    data_subset: str | None = setting(
        None, "Subset (configuration) of a folder or Hub dataset that has several.", group="data"
    )
    data_revision: str | None = setting(
        None,
        "Branch, tag or commit of a Hub dataset; not set: main. A run keeps the commit it began "
        "with.",
        group="data",
    )
    layout: str | None = setting(
        None,
        "Layout of the rows by its name, such as explicit-chat, single-turn or plain-text; not "
        "set: told by the columns.",
        group="data",
    )
    map: NameMap = setting(
        None,
        "What the columns are: prompt=question chosen=good rejected=messages.1.content; a path "
        "leads into lists and objects.",
        group="data",
    )
    keep_ties: bool = setting(
        False, "Keep rows whose chosen and rejected have the same score.", group="data"
    )
    keep_inverted: bool = setting(
        False, "Keep rows whose chosen side has the lower score.", group="data"
    )
    keep_duplicates: bool = setting(
        False, "Keep rows that are equal to an earlier row.", group="data"
    )
    valid_data: str | None = setting(
        None,
        "Validation pairs from their own file, folder or Hub dataset instead of a split.",
        group="data",
    )
    valid_fraction: float = setting(
        0.05,
        "Share of the pairs held out for validation, drawn by seed; 0 = none.",
        group="data",
        ge=0,
        lt=1,
    )
    order: Literal["shuffled", "file"] = setting(
        "shuffled",
        "Order of the pairs: a new seeded order each epoch, or as in the file.",
        group="data",
    )
    max_seq_length: int = setting(
        1024,
        "Longest prompt + response; longer prompts lose their oldest tokens, "
        "pairs whose response alone is longer are dropped.",
        group="data",
        unit="tokens",
        effect="higher keeps more of long pairs and needs more memory and time",
        ge=8,
    )
    seed: int = setting(
        0,
        "Seed of the order, the split, the adapter's start and dropout.",
        group="data",
        ge=0,
        lt=2**31,
    )

    # Objective
    lam: float = setting(
        0.1,
        "Weight of the preference term (lambda in the paper, beta in TRL); not a temperature.",
        group="objective",
        effect="higher parts chosen and rejected faster and can hurt fluency; "
        "0.25-0.5 is advised below about 1B parameters",
        ge=0,
    )
    nll_scope: Literal["full", "response"] = setting(
        "full",
        "Tokens of the chosen side in the NLL: prompt + response (as TRL), or the response only.",
        group="objective",
        effect="'response' is cheaper on long prompts",
    )
    nll_reduction: Literal["token", "pair"] = setting(
        "token",
        "NLL as a mean over all counted tokens of the step, or over pairs of per-pair means.",
        group="objective",
    )
    nll_weight: float = setting(
        1.0,
        "Weight of the NLL (the usual language-model loss, on the chosen side); 0 trains on the "
        "preference term alone.",
        group="objective",
        ge=0,
    )
    preference: Literal["odds_ratio", "probability_ratio", "none"] = setting(
        "odds_ratio",
        "Preference term: ORPO's odds ratio, the paper's probability-ratio ablation, "
        "or none (plain SFT on the chosen side).",
        group="objective",
    )

    # Adapter
    rank: int = setting(
        8,
        "Rank of the adapter matrices.",
        group="adapter",
        effect="higher learns more per layer and needs a little more memory",
        ge=1,
        le=4096,
    )
    scale: float | None = setting(
        None,
        "Factor on the adapter's output, as mlx-lm means it; give scale or alpha "
        "(neither: scale 2).",
        group="adapter",
        gt=0,
    )
    alpha: float | None = setting(
        None,
        "The scale as PEFT writes it: scale = alpha / rank (alpha / sqrt(rank) with rslora).",
        group="adapter",
        gt=0,
    )
    rslora: bool = setting(
        False, "Rank-stabilised LoRA: alpha is divided by sqrt(rank).", group="adapter"
    )
    dora: bool = setting(
        False, "Weight-decomposed LoRA (DoRA): also learns a magnitude per row.", group="adapter"
    )
    dropout: float = setting(
        0.0,
        "Share of the adapter's inputs set to 0 while training, against overfitting.",
        group="adapter",
        ge=0,
        lt=1,
    )
    target_modules: NameList = setting(
        ["all"],
        "Layers that get an adapter: 'all' linear layers, or names such as q_proj,v_proj.",
        group="adapter",
    )
    num_layers: int = setting(
        16,
        "Adapt the last N blocks; -1 = all.",
        group="adapter",
        unit="blocks",
        effect="higher learns more and needs more memory and time",
        ge=-1,
    )
    init_adapter: str | None = setting(
        None, "Start from this adapter folder instead of a fresh adapter.", group="adapter"
    )

    # Optimisation
    optimizer: Literal["adamw", "lion", "sgd"] = setting(
        "adamw", "How gradients become steps; adamw has bias correction.", group="optimisation"
    )
    learning_rate: float = setting(
        5e-5,
        "Highest learning rate.",
        group="optimisation",
        effect="higher learns faster until the loss turns unstable",
        gt=0,
        le=10,
    )
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine", "Course of the learning rate after the warm-up.", group="optimisation"
    )
    warmup: float = setting(
        0.05,
        "Linear warm-up: below 1 a share of all steps, else a number of steps; 0 = none.",
        group="optimisation",
        unit="share or steps",
        ge=0,
    )
    final_lr_fraction: float = setting(
        0.1,
        "Share of the learning rate left at the last step (cosine, linear).",
        group="optimisation",
        ge=0,
        le=1,
    )
    weight_decay: float = setting(
        0.0,
        "Pull of the adapter's weights towards 0 at each step; 0 = none.",
        group="optimisation",
        ge=0,
        lt=1,
    )
    max_grad_norm: float = setting(
        1.0, "Clip the gradient's global norm to this; 0 = off.", group="optimisation", ge=0
    )
    epochs: float = setting(
        1.0,
        "Passes over the training pairs; 0.5 = half of them.",
        group="optimisation",
        unit="epochs",
        gt=0,
        le=10_000,
    )
    steps: int | None = setting(
        None, "Number of optimizer steps, instead of epochs.", group="optimisation", ge=1
    )
    batching: Literal["tokens", "fixed"] = setting(
        "tokens",
        "Division of a step into forward passes: by tokens, pairs of like length together, or by a "
        "fixed number of pairs. The gradient is the same.",
        group="optimisation",
    )
    tokens_per_batch: int = setting(
        4096,
        "Most tokens in a forward pass (batching tokens); a longer pair goes alone.",
        group="optimisation",
        unit="tokens",
        effect="higher is faster and needs more memory",
        ge=1,
    )
    micro_batch_size: int = setting(
        4,
        "Pairs per forward pass (batching fixed); times grad_accumulation_steps it is the number "
        "of pairs in a step.",
        group="optimisation",
        unit="pairs",
        effect="higher gives steadier steps; with batching fixed it needs more memory",
        ge=1,
    )
    grad_accumulation_steps: int = setting(
        1,
        "Micro-batches per optimizer step; the gradient is that of the whole step.",
        group="optimisation",
        effect="higher gives steadier steps at the same memory",
        ge=1,
    )
    scoring: Literal["auto", "packed", "shared", "fork", "plain"] = setting(
        "auto",
        "How pairs are computed: packed = prompts once, no padding; shared and fork = prompts "
        "once; plain = both rows in full. auto = the first that gives the model's own gradient.",
        group="optimisation",
    )
    grad_checkpoint: Recomputing = setting(
        "auto",
        "Recompute activations of adapted blocks in the backward pass: on, off, or auto = of as "
        "few blocks as the memory asks for, often none.",
        group="optimisation",
        effect="'on' needs much less memory and about a third more time",
    )
    grad_checkpoint_every: int = setting(
        1,
        "With grad_checkpoint on: recompute one of every N blocks from the first adapted one up.",
        group="optimisation",
        unit="blocks",
        effect="higher is faster and needs more memory",
        ge=1,
    )
    compile: Literal["auto", "on", "off"] = setting(
        "auto",
        "Compile the training step (mx.compile); auto = on a GPU only, because on a CPU MLX calls "
        "a C++ compiler for it.",
        group="optimisation",
    )

    trunk_cache: Literal["off", "memory", "disk"] = setting(
        "off",
        "Keep what the blocks below the first adapted one make of each pair, and compute it once "
        "instead of in every epoch.",
        group="optimisation",
        effect="faster from the second epoch on; needs room for hidden states of all pairs",
    )
    trunk_cache_size: float = setting(
        8.0,
        "Most the trunk cache may take; what does not fit is computed each time.",
        group="optimisation",
        unit="GB",
        gt=0,
        le=100_000,
        may_change=True,
    )
    trunk_cache_dir: str | None = setting(
        None,
        "Folder of the trunk cache on disk, kept for other runs; not set: the run's own, deleted "
        "when the run is finished.",
        group="optimisation",
        may_change=True,
    )

    # Evaluation
    eval_every: int = setting(
        0,
        "Evaluate every N steps besides the start and the end; 0 = only there.",
        group="evaluation",
        unit="steps",
        ge=0,
    )
    eval_pairs: int = setting(
        200,
        "Most validation pairs used in an evaluation; 0 = all.",
        group="evaluation",
        unit="pairs",
        ge=0,
    )
    best_metric: Literal[
        "loss", "nll_loss", "odds_ratio_loss", "preference_accuracy", "logps_margin"
    ] = setting(
        "loss", "Validation metric that decides which checkpoint is best.", group="evaluation"
    )
    keep_best: bool = setting(
        False,
        "Make the adapter from the best evaluation the result, not the last one.",
        group="evaluation",
    )
    early_stop: int = setting(
        0,
        "Stop after N evaluations in a row without improvement; 0 = never.",
        group="evaluation",
        unit="evaluations",
        ge=0,
    )
    sample_every: int = setting(
        0, "Answer held-out prompts every N steps besides the start and the end; "
        "0 = only there.", group="evaluation", unit="steps",
        ge=0, may_change=True,
    )  # fmt: skip
    sample_prompts: int = setting(
        3, "How many held-out prompts are answered; 0 = none.", group="evaluation", ge=0, le=64,
        may_change=True,
    )  # fmt: skip
    sample_tokens: int = setting(
        64, "Longest sampled answer.", group="evaluation", unit="tokens", ge=1, le=8192,
        may_change=True,
    )  # fmt: skip

    # Run
    run_dir: str | None = setting(
        None, "Folder of this run; not set: a new one under --runs-dir.", group="run",
    )  # fmt: skip
    runs_dir: str | None = setting(
        None, "Folder of all runs; not set: $ORPO_MLX_HOME/runs or the user data folder.",
        group="run",
    )  # fmt: skip
    report_every: int = setting(
        10, "Record and print metrics every N steps.", group="run", unit="steps", ge=1,
        may_change=True,
    )  # fmt: skip
    save_every: int = setting(
        100, "Checkpoint every N steps besides the start, the end and each best evaluation; "
        "0 = only there.", group="run",
        unit="steps", ge=0, may_change=True,
    )  # fmt: skip
    keep_checkpoints: int = setting(
        3, "Checkpoints kept besides the best one.", group="run", ge=1, may_change=True
    )
    allow_overcommit: bool = setting(
        False, "Train although the estimate says that the memory will not suffice.", group="run",
        may_change=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A declared setting, flattened for help texts, forms and docs."""

    name: str
    help: str
    default: Any
    group: str
    unit: str
    effect: str
    may_change: bool
    kind: str
    """"int", "float", "bool", "str", "list", "map" or "choice"."""
    choices: tuple[str, ...]
    allowed: str
    """The accepted values in words, such as "a number above 0"."""

    @property
    def flag(self) -> str:
        """The command-line option."""
        return "--" + self.name.replace("_", "-")


def iter_settings() -> Iterator[Setting]:
    """Yield every setting in the order of its declaration."""
    for name, field in TrainConfig.model_fields.items():
        extra: Any = field.json_schema_extra
        kind, choices = _kind(field)
        yield Setting(
            name=name,
            help=field.description or "",
            default=field.get_default(),
            kind=kind,
            choices=choices,
            allowed=_allowed(kind, choices, field),
            **extra["setting"],
        )


def _kind(field: FieldInfo) -> tuple[str, tuple[str, ...]]:
    annotation: Any = field.annotation
    if get_origin(annotation) is Literal:
        return "choice", tuple(get_args(annotation))
    options = [a for a in get_args(annotation) if a is not type(None)] or [annotation]
    if get_origin(annotation) is list or annotation is list:
        return "list", ()
    if get_origin(options[0]) is dict:
        return "map", ()
    return {int: "int", float: "float", bool: "bool"}.get(options[0], "str"), ()


_BOUND_WORDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _allowed(kind: str, choices: tuple[str, ...], field: FieldInfo) -> str:
    if choices:
        return "one of " + ", ".join(choices)
    noun = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "list": "names separated by commas",
        "map": "words such as prompt=question",
        "str": "text",
    }[kind]
    limits = [
        f"{word} {_plain(getattr(limit, key))}"
        for limit in field.metadata
        for key, word in _BOUND_WORDS.items()
        if getattr(limit, key, None) is not None
    ]
    return " ".join([noun, " and ".join(limits)]).strip()


def _plain(number: float) -> str:
    return f"{number:g}" if abs(number) < 1e6 else f"{number:,.0f}"


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
    return f"{where}: found {problem['input']!r}, needs {known[name].allowed}"


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
    # A run's config.toml names every setting, so that a default must not conflict.
    default = TrainConfig.model_fields["trunk_cache_size"].default
    if config.trunk_cache_size != default and config.trunk_cache == "off":
        yield "--trunk-cache-size: needs --trunk-cache memory or disk"
    if config.trunk_cache_dir is not None and config.trunk_cache != "disk":
        yield "--trunk-cache-dir: needs --trunk-cache disk"
    if config.rslora and config.alpha is None:
        yield "--rslora: needs --alpha (scale = alpha / sqrt(rank))"
    if config.preference == "none" and config.nll_weight == 0:
        yield "--preference none with --nll-weight 0: nothing would be trained"
    if config.preference != "none" and config.lam == 0 and config.nll_weight == 0:
        yield "--lam 0 with --nll-weight 0: nothing would be trained"
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
    if config.scoring in KEEPS_STATE and config.grad_checkpoint == "on":
        yield f"--scoring {config.scoring}: not with --grad-checkpoint on; take packed or plain"
    if config.grad_checkpoint_every > 1 and config.grad_checkpoint != "on":
        yield f"--grad-checkpoint-every {config.grad_checkpoint_every}: needs --grad-checkpoint on"


def adapter_scale(config: TrainConfig) -> float:
    """Return the factor on the adapter's output: the one place where alpha becomes scale."""
    if config.alpha is None:
        return 2.0 if config.scale is None else config.scale
    return config.alpha / (config.rank**0.5 if config.rslora else config.rank)
