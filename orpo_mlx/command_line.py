"""The command line of a training, made from the declared settings.

`parse_train` either returns what to do, or raises: `ConfigError` for a mistake,
`TextRequested` for --help, --version and --show-config. Nothing here prints or exits.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from orpo_mlx import __version__
from orpo_mlx.config import TrainConfig, build_config, iter_settings
from orpo_mlx.errors import ConfigError, OrpoError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.listing import find_run
from orpo_mlx.settings.declaration import GROUPS, Setting
from orpo_mlx.settings_file import (
    expanded,
    overruled_settings,
    read_settings,
    with_absolute_paths,
    write_settings,
)
from orpo_mlx.suggestions import nearest_name

Output = Literal["rich", "quiet", "json"]

_SIBLINGS = {
    "steps": "epochs",
    "epochs": "steps",
    "scale": "alpha",
    "alpha": "scale",
    "valid_data": "valid_fraction",
    "valid_fraction": "valid_data",
}
"""Settings that exclude each other: a flag for one wins over a file's value for the other."""

_EXAMPLES = """\
examples:
  {prog} --demo
      train a tiny model on tiny pairs in about a minute, to see how a run looks
  {prog} --model mlx-community/Qwen3-0.6B-4bit --data pairs.jsonl
      train on your own pairs, one a line:
      {{"prompt": "...", "chosen": "...", "rejected": "..."}}
"""


class TextRequested(Exception):
    """The user asked for a text instead of an action: --help, --version, --show-config."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True)
class TrainCommand:
    """What a training command line asks for.

    Attributes:
        config: the validated settings; of a resumed run its own, with `resume_overrides` applied.
        origins: where each setting that is no default came from ("--rank", "run.toml: rank").
        resume: the run to go on with.
        resume_overrides: settings given besides --resume, validated.
    """

    config: TrainConfig
    origins: dict[str, str] = field(default_factory=dict)
    demo: bool = False
    resume: RunDirectory | None = None
    resume_overrides: dict[str, Any] = field(default_factory=dict)
    dry_run: bool = False
    output: Output = "rich"
    debug: bool = False


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def _split_lines(self, text: str, width: int) -> list[str]:
        # Names such as mlx-community/... and flags stay whole.
        return textwrap.wrap(text, width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises `ConfigError` and never prints or exits.

    Abbreviations are off, options not given are absent from the result.
    """

    def __init__(self, prog: str, description: str, epilog: str = "", usage: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            usage=usage or None,
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            exit_on_error=False,
            formatter_class=_HelpFormatter,
        )

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        """Return the options given.

        Raises:
            ConfigError: naming every unknown option, or the option that lacks its value.
            TextRequested: --help or --version was given.
        """
        try:
            found, unknown = self.parse_known_args(self._joined(argv))
        except argparse.ArgumentError as error:
            raise self._refused_value(error) from None
        if unknown:
            raise self._refused_options(unknown)
        return vars(found)

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, for what argparse still reports by itself."""
        raise ConfigError(message, f"`{self.prog} --help` shows what is possible.")

    def options(self) -> list[str]:
        """Return every long option."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def _joined(self, argv: Sequence[str]) -> list[str]:
        """Write `--lam -1e-5` as `--lam=-1e-5`: argparse takes such numbers for options."""
        joined: list[str] = []
        for word in argv:
            action = self._option_string_actions.get(joined[-1]) if joined else None
            if action is not None and action.nargs is None and _is_negative_number(word):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return joined

    def _refused_value(self, error: argparse.ArgumentError) -> ConfigError:
        name = (error.argument_name or "").split("/")[-1].split(", ")[0]
        known = {setting.flag: setting for setting in iter_settings()}
        help = f"`{self.prog} --help` explains every option."
        if "expected one argument" in error.message:
            named = self._option_string_actions[name].metavar or "a value"
            needs = known[name].allowed if name in known else named
            return ConfigError(f"{name}: the value is missing, needs {needs}", help)
        if "ignored explicit argument" in error.message:
            positive = name.replace("--no-", "--", 1)
            both = f"{positive} or --no-{positive[2:]}" if positive in known else positive
            return ConfigError(f"{name}: takes no value", f"Write {both} alone.")
        return ConfigError(f"{name}: {error.message}", help)

    def _refused_options(self, unknown: list[str]) -> ConfigError:
        names = [word.split("=")[0] for word in unknown if word.startswith("-") and word != "-"]
        problems = [self._unknown_option(name) for name in names] or [
            f"{word!r}: stands alone; every value needs its option, such as --model or --data"
            for word in unknown[:1]
        ]
        return ConfigError("\n".join(problems), f"`{self.prog} --help` lists all options.")

    def _unknown_option(self, name: str) -> str:
        near = nearest_name(_setting_name(name), [_setting_name(known) for known in self.options()])
        hint = f"; did you mean --{near.replace('_', '-')}?" if near else ""
        return f"{name}: there is no such option{hint}"


class _TextAction(argparse.Action):
    """Stops parsing to show a text."""

    def __init__(self, make_text: Callable[[argparse.ArgumentParser], str], **rest: Any) -> None:
        super().__init__(nargs=0, **rest)
        self.make_text = make_text

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise TextRequested(self.make_text(parser))


class _OnceAction(argparse.Action):
    """Refuses a second value, which would otherwise replace the first in silence."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        first = getattr(namespace, self.dest, values)
        if first != values:
            raise ConfigError(
                f"{option_string}: given twice ({first} and {values})",
                f"Give several with commas: {option_string} {first},{values}",
            )
        setattr(namespace, self.dest, values)


def add_help_option(group: Any) -> None:
    """Add --help and -h."""
    group.add_argument(
        "-h",
        "--help",
        action=_TextAction,
        make_text=lambda parser: parser.format_help(),
        help="Show this text.",
    )


def _setting_name(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _is_negative_number(word: str) -> bool:
    return bool(re.fullmatch(r"-(inf|nan|[0-9.][0-9._]*(e[+-]?[0-9]+)?)", word, re.IGNORECASE))


def build_train_parser(prog: str = "python -m orpo_mlx.train") -> Parser:
    """Return the parser of the training command: every setting, grouped, and what runs it."""
    parser = Parser(
        prog,
        "Train a LoRA adapter on preference pairs with ORPO.\n"
        "Flags win over the --config file, the file over the defaults.",
        _EXAMPLES.format(prog=prog),
        usage=f"{prog} --model MODEL --data FILE [options]",
    )
    _add_actions(parser)
    groups = {key: parser.add_argument_group(title) for key, title in GROUPS.items()}
    for setting in iter_settings():
        _add_setting(groups[setting.group], setting)
    return parser


def _add_actions(parser: Parser) -> None:
    group = parser.add_argument_group("What to do")
    add_help_option(group)
    group.add_argument(
        "--version", action=_TextAction, make_text=version_text, help="Show the version."
    )
    group.add_argument(
        "--config", metavar="FILE", help="Read settings from a TOML file; --show-config writes one."
    )
    group.add_argument(
        "--show-config",
        action="store_true",
        help="Print every setting and where it came from, as a settings file, and end.",
    )
    group.add_argument(
        "--demo", action="store_true", help="Train the built-in tiny model on built-in pairs."
    )
    group.add_argument(
        "--resume",
        metavar="RUN",
        help="Go on with a stopped run (its id or folder) from its newest checkpoint.",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="Prepare everything, show it, and train nothing."
    )
    group.add_argument("--quiet", action="store_true", help="Print errors and the result only.")
    group.add_argument("--json", action="store_true", help="Print events as JSON lines.")
    group.add_argument("--debug", action="store_true", help="Show tracebacks of errors.")


def version_text(*_: Any) -> str:
    """Return what --version prints."""
    return f"orpo-mlx {__version__}\n"


def _add_setting(group: Any, setting: Setting) -> None:
    help = setting_help(setting).replace("%", "%%")
    if setting.kind == "bool":
        action = argparse.BooleanOptionalAction
        group.add_argument(setting.flag, action=action, help=help, default=argparse.SUPPRESS)
    else:
        action = _OnceAction if setting.name in ("data", "valid_data") else "store"
        many = {"nargs": "+"} if setting.kind == "map" else {}
        group.add_argument(
            setting.flag, action=action, metavar=_metavar(setting), help=help, **many
        )


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return "|".join(setting.choices) if len(setting.choices) < 4 else "NAME"
    kinds = {"int": "N", "float": "X", "list": "NAMES", "map": "NAME=COLUMN"}
    return _METAVARS.get(setting.name) or kinds.get(setting.kind, "TEXT")


_METAVARS = {
    "model": "MODEL",
    "revision": "REVISION",
    "chat_template": "chatml|FILE",
    "data": "DATA",
    "valid_data": "DATA",
    "data_split": "SPLIT",
    "data_subset": "SUBSET",
    "data_revision": "REVISION",
    "init_adapter": "FOLDER",
    "run_dir": "FOLDER",
    "runs_dir": "FOLDER",
}


def setting_help(setting: Setting) -> str:
    """Return a setting's help with its effect, choices, unit and default."""
    text = setting.help
    if setting.effect:
        text += f" {setting.effect[0].upper()}{setting.effect[1:]}."
    if setting.usual:
        text += f" Usual: {setting.usual}."
    if len(setting.choices) >= 4:
        text += f" One of {', '.join(setting.choices)}."
    return f"{text} [{default_text(setting)}]"


def default_text(setting: Setting) -> str:
    """Return a setting's default in words: "default 1024 tokens", "not set", "needed"."""
    if setting.default is None:
        return "needed" if setting.name in _NEEDED else "not set"
    if isinstance(setting.default, bool):
        return "default on" if setting.default else "default off"
    value = setting.default
    shown = ",".join(value) if isinstance(value, list) else str(value).removesuffix(".0")
    unit = "" if setting.unit == "share or steps" else setting.unit
    if value == 1:
        unit = unit.removesuffix("s")
    return f"default {shown} {unit}".rstrip()


def parse_train(
    argv: Sequence[str] | None = None, prog: str = "python -m orpo_mlx.train"
) -> TrainCommand:
    """Read a training command line.

    Args:
        argv: the words after the program's name; default: those of this process.
        prog: the program's name in help and advice.

    Raises:
        ConfigError: listing every problem.
        RunError: --resume names no run.
        TextRequested: a text was asked for.
    """
    given = build_train_parser(prog).parse(sys.argv[1:] if argv is None else argv)
    extras = {key: given.pop(key, None) for key in _EXTRAS}
    _check_extras(extras)
    flags = _Layer(given, {name: "--" + name.replace("_", "-") for name in given})
    layers = [*_file_layer(extras["config"]), flags]
    run = find_run(extras["resume"], given.get("runs_dir")) if extras["resume"] else None
    base = _resumed_layer(run) if run else _demo_layer(layers) if extras["demo"] else _Layer({}, {})
    merged = base
    for layer in layers:
        merged = merged.under(layer)
    config = with_absolute_paths(build_config(merged.values, merged.origins))
    if extras["show_config"]:
        raise TextRequested(show_config(config, merged.origins))
    _require_model_and_data(config, prog, run)
    chosen = {name for layer in layers for name in layer.values}
    if run:
        _require_own_place_and_start(config, run, base.values.get("init_adapter"))
    return TrainCommand(
        config=config,
        origins=merged.origins,
        demo=bool(extras["demo"]),
        resume=run,
        resume_overrides={name: getattr(config, name) for name in chosen} if run else {},
        dry_run=bool(extras["dry_run"]),
        output="quiet" if extras["quiet"] else "json" if extras["json"] else "rich",
        debug=bool(extras["debug"]),
    )


@dataclass(frozen=True)
class FitCommand:
    """What a `fit` command line asks for.

    Attributes:
        config: the validated settings; `data` may be missing.
        memory: as given, such as "16GB"; None: what this machine has.
        probe: whether to load the model and measure a few steps.
    """

    config: TrainConfig
    memory: str | None = None
    as_json: bool = False
    probe: bool = False


def build_fit_parser(prog: str = "orpo-mlx fit") -> Parser:
    """Return the parser of `fit`: every setting of a training, and the memory there is."""
    parser = Parser(
        prog,
        "Estimate the memory a training needs, without loading or downloading the model, and show\n"
        "settings that fit. Exit code 0: it fits, 1: it does not. With --probe the model is\n"
        "loaded, and three steps are timed; nothing of them is kept. The lengths of the pairs are\n"
        "kept in the cache (at most 64 MB), so that asking again tokenizes only what changed.",
        usage=f"{prog} --model MODEL [--data FILE] [--memory 16GB] [--probe] [options of train]",
    )
    group = parser.add_argument_group("What to do")
    add_help_option(group)
    group.add_argument(
        "--memory", metavar="SIZE", help="Memory there is, such as 16GB. [default: this machine's]"
    )
    group.add_argument(
        "--probe",
        action="store_true",
        help="Take 3 steps on the longest batch of --data and tell the time of the run.",
    )
    group.add_argument("--config", metavar="FILE", help="Read settings from a TOML file.")
    group.add_argument("--demo", action="store_true", help="Ask for the built-in model and pairs.")
    group.add_argument("--json", action="store_true", help="Print one JSON object.")
    group.add_argument("--debug", action="store_true", help="Show tracebacks of errors.")
    groups = {key: parser.add_argument_group(title) for key, title in GROUPS.items()}
    for setting in iter_settings():
        _add_setting(groups[setting.group], setting)
    return parser


def parse_fit(argv: Sequence[str], prog: str = "orpo-mlx fit") -> FitCommand:
    """Read a `fit` command line.

    Raises:
        ConfigError: listing every problem.
        TextRequested: --help.
    """
    given = build_fit_parser(prog).parse(argv)
    names = ("memory", "probe", "config", "demo", "json", "debug")
    extras = {key: given.pop(key, None) for key in names}
    config = settings_from(given, extras["config"], bool(extras["demo"]))
    if not config.model:
        raise ConfigError(
            "--model: needed to know what fits",
            f"{prog} --model mlx-community/Qwen3-0.6B-4bit --memory 16GB",
        )
    if extras["probe"] and not config.data:
        raise ConfigError(
            "--probe: needs pairs, because the time of a step depends on their lengths",
            f"Add --data FILE: {prog} --model {config.model} --data pairs.jsonl --probe",
        )
    return FitCommand(config, extras["memory"], bool(extras["json"]), bool(extras["probe"]))


def settings_from(
    given: dict[str, Any], file: str | None = None, demo: bool = False
) -> TrainConfig:
    """Return the settings that flags say, over those of a file, over those of the demo.

    Args:
        given: settings by name, as parsed.
        file: a settings file.
        demo: whether the built-in model and pairs are meant.

    Raises:
        ConfigError: listing every problem.
    """
    flags = _Layer(given, {name: "--" + name.replace("_", "-") for name in given})
    layers = [*_file_layer(file), flags]
    merged = _demo_layer(layers) if demo else _Layer({}, {})
    for layer in layers:
        merged = merged.under(layer)
    return with_absolute_paths(build_config(merged.values, merged.origins))


def add_settings(parser: Parser, groups: Collection[str], without: Collection[str] = ()) -> None:
    """Add the settings of some groups of `config.GROUPS` as options."""
    titles = {key: parser.add_argument_group(GROUPS[key]) for key in groups}
    for setting in iter_settings():
        if setting.group in titles and setting.name not in without:
            _add_setting(titles[setting.group], setting)


_NEEDED = ("model", "data")
_EXTRAS = ("config", "show_config", "demo", "resume", "dry_run", "quiet", "json", "debug")


def _check_extras(extras: dict[str, Any]) -> None:
    for one, other in (("quiet", "json"), ("demo", "resume")):
        if extras[one] and extras[other]:
            raise ConfigError(f"--{one} and --{other}: give only one of both", "Leave one out.")


@dataclass(frozen=True)
class _Layer:
    """Settings from one source, and where each came from."""

    values: dict[str, Any]
    origins: dict[str, str]

    def under(self, upper: _Layer) -> _Layer:
        """Return both, `upper` winning, also over settings that exclude one of its own."""
        hidden = {_SIBLINGS[name] for name in upper.values if name in _SIBLINGS}
        kept = {name: value for name, value in self.values.items() if name not in hidden}
        return _Layer({**kept, **upper.values}, {**self.origins, **upper.origins})


def _file_layer(file: str | None) -> list[_Layer]:
    if not file:
        return []
    values = read_settings(expanded(file))
    return [_Layer(values, {name: f"{file}: {name}" for name in values})]


def _resumed_layer(run: RunDirectory) -> _Layer:
    values = read_settings(run.config_file)
    return _Layer(values, dict.fromkeys(values, f"run {run.id}"))


def _demo_layer(layers: list[_Layer]) -> _Layer:
    from orpo_mlx import demo

    values = {
        **demo.SETTINGS,
        "model": str(demo.model_path()),
        "data": str(demo.train_path()),
        "valid_data": str(demo.valid_path()),
    }
    # The demo's validation pairs say nothing about other data.
    if any("data" in layer.values for layer in layers):
        del values["valid_data"]
    return _Layer(values, dict.fromkeys(values, "--demo"))


def _require_own_place_and_start(config: TrainConfig, run: RunDirectory, start: str | None) -> None:
    if config.init_adapter != start:
        raise ConfigError(
            f"--init-adapter {config.init_adapter}: a resumed run goes on with its own adapter",
            "Leave out --init-adapter, or leave out --resume to start a new run from it.",
        )
    if config.run_dir and expanded(config.run_dir).absolute() != run.path.absolute():
        raise ConfigError(
            f"--run-dir {config.run_dir}: a resumed run stays in its folder, {run.path}",
            "Leave out --run-dir; to go on elsewhere copy the folder and resume the copy.",
        )


def _require_model_and_data(config: TrainConfig, prog: str, run: RunDirectory | None) -> None:
    missing = [f"--{name}" for name in _NEEDED if not getattr(config, name)]
    if missing and run:
        raise ConfigError(
            f"{run.config_file}: does not say {' and '.join(missing)}, so the run cannot go on",
            "Start it again as a new run.",
        )
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)}: needed to train",
            f"{prog} --demo\n{prog} --model mlx-community/Qwen3-0.6B-4bit --data pairs.jsonl",
        )


def show_config(config: TrainConfig, origins: dict[str, str]) -> str:
    """Return every setting with its origin; the text is itself a settings file."""
    unset = [
        setting.name
        for setting in iter_settings()
        if getattr(config, setting.name) is None or setting.name in overruled_settings(config)
    ]
    return write_settings(config, origins) + f"\n# Not in use: {', '.join(unset)}\n"


def run_command(function: Callable[[], int], debug: bool = False) -> int:
    """Run a command and turn what it raises into messages; return the exit code.

    0 done, 1 the run or the program failed, 2 bad input, 130 interrupted.
    """
    from orpo_mlx import report

    report.open_missing_streams()
    try:
        code = function()
        report.flush()
        return code
    except TextRequested as request:
        text = request.text
        return run_command(lambda: report.print_text(text))
    except BrokenPipeError:  # `orpo-mlx runs | head -1`
        report.silence()
        return 0
    except KeyboardInterrupt:
        report.print_error_text("interrupted")
        return 130
    except OrpoError as error:
        report.print_error(error, traceback.format_exc() if debug else "")
        return error.exit_code
    except Exception as error:
        details = traceback.format_exc() if debug else ""
        if isinstance(error, RuntimeError) and "home directory" in str(error):
            report.print_error(_NO_SUCH_USER, details)  # of pathlib's `expanduser`
            return _NO_SUCH_USER.exit_code
        report.print_internal_error(error, details)
        return 1


_NO_SUCH_USER = ConfigError(
    "a path begins with ~ and the name of a user who does not exist", "Write the folder out."
)
