"""What a command line of `orpo-mlx evaluate` asks for; runs and files are not looked at yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_json_option,
    add_run_argument,
    add_runs_dir_option,
    number_option,
)
from orpo_mlx.config.evaluation import DRIFT_TOKENS
from orpo_mlx.errors import ConfigError

_USAGE = "orpo-mlx evaluate RUN | --model MODEL [--adapter FOLDER] --data DATA [options]"


@dataclass(frozen=True)
class EvaluateCommand:
    """What a command line asks for; runs and files are not looked at yet.

    Attributes:
        given: options by name, as text.
        pairs: to draw; 0 = all.
        seed: of every draw.
        per_pair: file for a row per pair, None for none.
        report: file for the HTML page, None for none.
        save: whether to write both files into the run's folder, as its end does.
        drift_prompts: neutral prompts to answer; 0 = drift is not measured.
        drift_tokens: of the longest of these answers.
    """

    given: dict[str, Any]
    pairs: int
    seed: int
    per_pair: Path | None
    report: Path | None
    save: bool
    drift_prompts: int
    drift_tokens: int
    as_json: bool


def build_evaluate_parser() -> Parser:
    """Return the parser of `orpo-mlx evaluate`."""
    parser = Parser(
        "orpo-mlx evaluate",
        "Compare a run's adapter with its base model on held-out pairs: every number with a 95 %\n"
        "interval, the difference paired, one sentence as verdict.",
        usage=_USAGE,
    )
    add_subject_options(parser)
    parser.add_argument("--pairs", metavar="N", help="Draw N of the pairs. [default: all]")
    parser.add_argument("--seed", metavar="N", help="Of every draw. [default 0]")
    parser.add_argument(
        "--per-pair", metavar="FILE.jsonl", help="Write what each pair scored, a line for each."
    )
    _add_drift(parser)
    parser.add_argument(
        "--report", metavar="FILE.html", help="Write a page with charts and example pairs."
    )
    parser.add_argument(
        "--save",
        action="store_true",
        help="Write evaluation.json and report.html into the run's folder, as its end does.",
    )
    add_json_option(parser, "Print a JSON object.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def _add_drift(parser: Parser) -> None:
    group = parser.add_argument_group(
        "Drift: how far the model has moved on what it was not trained on"
    )
    group.add_argument("--no-drift", action="store_true", help="Leave it out; it takes longest.")
    group.add_argument(
        "--drift-data",
        metavar="FILE",
        help="Prompts that must not be forgotten: a text file with one a line, or rows with a "
        "prompt. [default: shipped ones, of ten kinds]",
    )
    group.add_argument("--drift-prompts", metavar="N", help="Draw N of them. [default 30]")
    group.add_argument(
        "--drift-tokens", metavar="N", help=f"Longest answer. [default {DRIFT_TOKENS} tokens]"
    )


def add_subject_options(parser: Parser) -> None:
    """Add what says which sides are compared on which pairs; `check_subject` looks at them."""
    add_help_option(parser)
    add_run_argument(parser)
    parser.add_argument("--model", metavar="MODEL", help="A folder or a Hub id, instead of a run.")
    parser.add_argument("--adapter", metavar="FOLDER", help="An adapter for --model.")
    parser.add_argument("--revision", metavar="REVISION", help="Of a Hub model.")
    parser.add_argument("--chat-template", metavar="chatml|FILE", help="As for train.")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="Pairs to judge by, which training has not seen. [default: what the run held out]",
    )
    parser.add_argument("--layout", metavar="NAME", help="Layout of the rows, as for train.")
    parser.add_argument(
        "--map", nargs="+", metavar="NAME=COLUMN", help="What the columns are, as for train."
    )
    parser.add_argument(
        "--against", metavar="OTHER_RUN", help="Compare with this run's adapter, not the base."
    )


def parse_evaluate(argv: Sequence[str]) -> EvaluateCommand:
    """Read a command line.

    Raises:
        ConfigError: something is missing, unknown or contradicts something else.
        TextRequested: --help.
    """
    given = build_evaluate_parser().parse(argv)
    _check_words(given)
    return EvaluateCommand(
        given=given,
        pairs=_whole(given, "pairs", 200, 10) if "pairs" in given else 0,
        seed=_whole(given, "seed", 0, 0, advice="Write {flag} 1."),
        per_pair=_path(given, "per_pair"),
        report=_path(given, "report"),
        save="save" in given,
        drift_prompts=0 if "no_drift" in given else _whole(given, "drift_prompts", 30, 5),
        drift_tokens=_whole(given, "drift_tokens", DRIFT_TOKENS, 1),
        as_json="json" in given,
    )


def _path(given: dict[str, Any], name: str) -> Path | None:
    return Path(given[name]).expanduser() if name in given else None


_OF_MODEL = ("model", "adapter", "revision", "chat_template")


def _check_words(given: dict[str, Any]) -> None:
    drift = [name for name in ("drift_data", "drift_prompts", "drift_tokens") if name in given]
    if "no_drift" in given and drift:
        flag = f"--{drift[0].replace('_', '-')}"
        raise ConfigError(f"--no-drift and {flag}: give only one of both", "Leave one out.")
    if drift and "run" not in given and "adapter" not in given:
        flag = f"--{drift[0].replace('_', '-')}"
        raise ConfigError(
            f"{flag}: drift is how far an adapter moves a model, and none is given.",
            f"Give --adapter FOLDER, or leave out {flag}.",
        )
    if "report" in given and given["report"] == given.get("per_pair"):
        raise ConfigError(
            f"--report and --per-pair: both name {given['report']}.", "Give each its own file."
        )
    if "save" in given and ("run" not in given or {"against", "data"} & given.keys()):
        raise ConfigError(
            "--save: what is kept in a run's folder is the run's own pairs under base and adapter.",
            "Give a run without --against and --data, or leave out --save: --report FILE.html "
            "writes a page anywhere.",
        )
    check_subject("evaluate", _USAGE, given)


def check_subject(command: str, usage: str, given: dict[str, Any]) -> None:
    """Check that a run is named, or a model with pairs.

    Raises:
        ConfigError: neither or both are.
    """
    if "run" in given:
        if both := [name for name in _OF_MODEL if name in given]:
            flag = f"--{both[0].replace('_', '-')}"
            raise ConfigError(
                f"orpo-mlx {command}: both a run and {flag}; a run has its own model and adapter.",
                f"Leave out {flag}, or the run.",
            )
        return
    if "model" not in given:
        raise ConfigError(
            f"orpo-mlx {command}: which run?",
            f"Give its id: orpo-mlx {command} RUN (see `orpo-mlx runs`), or a model: {usage}",
        )
    if "data" not in given:
        raise ConfigError(
            f"orpo-mlx {command} --model: the pairs are missing.", "Give them: --data DATA."
        )


def _whole(given: dict[str, Any], name: str, default: int, low: int, **words: str) -> int:
    most = (1 << 31) - 1
    return number_option(
        given, name, default, low, most, whole=True, bounds=f"from {low} on", **words
    )
