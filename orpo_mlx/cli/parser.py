"""The command line of a training, made from the declared settings.

`parse_train` either returns what to do, or raises: `ConfigError` for a mistake,
`TextRequested` for --help, --version and --show-config. Nothing here prints or exits.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.errors import ConfigError
from orpo_mlx.text.spelling import nearest_name
from orpo_mlx.version import __version__


class TextRequested(Exception):
    """The user asked for a text instead of an action: --help, --version, --show-config.

    Attributes:
        parser: whose text it is, None for a text without one.
    """

    def __init__(self, text: str, parser: argparse.ArgumentParser | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.parser = parser


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


class TextAction(argparse.Action):
    """Stops parsing to show a text."""

    def __init__(self, make_text: Callable[[argparse.ArgumentParser], str], **rest: Any) -> None:
        super().__init__(nargs=0, **rest)
        self.make_text = make_text

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise TextRequested(self.make_text(parser), parser)


class OnceAction(argparse.Action):
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
        action=TextAction,
        make_text=lambda parser: parser.format_help(),
        help="Show this text.",
    )


def add_debug_option(group: Any) -> None:
    """Add --debug, which `exit_codes.run_command` looks for in the words."""
    group.add_argument("--debug", action="store_true", help="Show tracebacks of errors.")


def add_json_option(group: Any, help: str) -> None:
    """Add --json; the help says what is printed."""
    group.add_argument("--json", action="store_true", help=help)


def add_runs_dir_option(group: Any, help: str = "Folder of all runs.") -> None:
    """Add --runs-dir."""
    group.add_argument("--runs-dir", metavar="FOLDER", help=help)


def add_run_argument(group: Any) -> None:
    """Add RUN; `missing_run` says that it was not given."""
    group.add_argument("run", nargs="?", metavar="RUN", help="Id, its beginning, or path.")


def missing_run(command: str) -> ConfigError:
    """Return the error of a command whose RUN was not given."""
    return ConfigError(
        f"orpo-mlx {command}: which run?",
        f"Give its id: orpo-mlx {command} RUN; see `orpo-mlx runs`.",
    )


def number_option(
    given: dict[str, Any],
    name: str,
    default: float,
    low: float,
    high: float = sys.float_info.max,
    *,
    whole: bool = False,
    bounds: str = "",
    advice: str = "Write {flag} {default}.",
) -> Any:
    """Return a number in [low, high].

    Args:
        given: options by name, as parsed; one that is not there, or None, has its default.
        name: of the option.
        default: of the option.
        low: the least.
        high: the most; of a range that is open or has `bounds` it is not named.
        whole: whether it must be an integer, in an open range written in digits alone.
        bounds: the range in words, such as "from 0 to below 1".
        advice: what to write instead, if the range is open or has `bounds`.

    Raises:
        ConfigError: it is something else.
    """
    said = given.get(name)
    flag, text = f"--{name.replace('_', '-')}", str(default if said is None else said)
    kind = "a whole number" if whole else "a number"
    if high == sys.float_info.max:
        bounds = f"from {low} on"
    value = _number(text, whole, digits_only=bool(bounds))
    if low <= value <= high:
        return value
    if bounds:
        what_to_do = advice.format(flag=flag, default=default)
        raise ConfigError(f"{flag}: {text} is not {kind} {bounds}", what_to_do)
    raise ConfigError(
        f"{flag}: found {text!r}, needs {kind} from {low:.10g} to {high:.10g}",
        "Correct it and start again.",
    )


def _number(text: str, whole: bool, digits_only: bool) -> float:
    if whole and digits_only and not (text.isascii() and text.isdigit()):
        return math.nan
    try:
        return int(text) if whole else float(text)
    except ValueError:
        return math.nan


def _setting_name(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _is_negative_number(word: str) -> bool:
    return bool(re.fullmatch(r"-(inf|nan|[0-9.][0-9._]*(e[+-]?[0-9]+)?)", word, re.IGNORECASE))


def version_text(*_: Any) -> str:
    """Return what --version prints."""
    return f"orpo-mlx {__version__}\n"
