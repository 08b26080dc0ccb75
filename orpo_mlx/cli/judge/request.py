"""What a command line of `orpo-mlx judge` asks for; runs and models are not looked at yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.cli.evaluate_request import add_subject_options, check_subject
from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_json_option,
    add_runs_dir_option,
    number_option,
)
from orpo_mlx.errors import ConfigError

_USAGE = "orpo-mlx judge RUN | --model MODEL --adapter FOLDER --data DATA [options]"


@dataclass(frozen=True)
class JudgeCommand:
    """What a command line asks for.

    Attributes:
        given: options by name, as text.
        prompts: to draw.
        max_tokens: longest answer.
        seed: of every draw.
        judge_model, judge_url, judge_name: which model judges; all None: a person.
        judge_tokens: longest reply of a judge.
        journal: folder of the journals; None: in the run's own.
        force: forget what is kept.
    """

    given: dict[str, Any]
    prompts: int
    max_tokens: int
    seed: int
    judge_model: str | None
    judge_url: str | None
    judge_name: str | None
    judge_tokens: int
    journal: Path | None
    force: bool
    as_json: bool

    @property
    def is_by_person(self) -> bool:
        """Whether a person judges."""
        return self.judge_model is None and self.judge_url is None


def build_judge_parser() -> Parser:
    """Return the parser of `orpo-mlx judge`."""
    parser = Parser(
        "orpo-mlx judge",
        "Let base and adapter (or two runs) answer held-out prompts, and judge the answers blind:\n"
        "you with keys, or a model. Answers and verdicts are kept; the same command goes on.",
        usage=_USAGE,
    )
    add_subject_options(parser)
    parser.add_argument("--pairs", metavar="N", help="Draw N of the prompts. [default 50]")
    parser.add_argument("--max-tokens", metavar="N", help="Longest answer. [default 256 tokens]")
    parser.add_argument(
        "--seed", metavar="N", help="Of the drawn prompts and the order of answers. [default 0]"
    )
    _add_judge(parser)
    parser.add_argument(
        "--journal", metavar="FOLDER", help="Where answers and verdicts are kept. [default: RUN]"
    )
    parser.add_argument(
        "--force", action="store_true", help="Forget the answers and verdicts that are kept."
    )
    add_json_option(parser, "Print a JSON object.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def _add_judge(parser: Parser) -> None:
    group = parser.add_argument_group("A model as judge, in place of you")
    group.add_argument(
        "--judge-model", metavar="MODEL", help="A folder or a Hub id that mlx-lm loads."
    )
    group.add_argument(
        "--judge-url", metavar="URL", help="A server that speaks OpenAI's chat completions. A key "
        "is taken from the environment: ORPO_MLX_JUDGE_KEY.",
    )  # fmt: skip
    group.add_argument("--judge-name", metavar="NAME", help="What the server calls the model.")
    group.add_argument(
        "--judge-tokens", metavar="N", help="Longest reply; more for one that thinks. [default 32]"
    )


def parse_judge(argv: Sequence[str]) -> JudgeCommand:
    """Read a command line.

    Raises:
        ConfigError: something is missing, unknown or contradicts something else.
        TextRequested: --help.
    """
    given = build_judge_parser().parse(argv)
    check_subject("judge", _USAGE, given)
    _check_sides(given)
    _check_judge(given)

    def number(name: str, default: int, low: int, high: int) -> int:
        return number_option(given, name, default, low, high, whole=True)

    return JudgeCommand(
        given=given,
        prompts=number("pairs", 50, 10, 100_000),
        max_tokens=number("max_tokens", 256, 1, 32768),
        seed=number("seed", 0, 0, 2**31 - 1),
        judge_model=given.get("judge_model"),
        judge_url=given.get("judge_url"),
        judge_name=given.get("judge_name"),
        judge_tokens=number("judge_tokens", 32, 1, 32768),
        journal=Path(given["journal"]).expanduser() if "journal" in given else None,
        force="force" in given,
        as_json="json" in given,
    )


def _check_sides(given: dict[str, Any]) -> None:
    if "run" in given:
        return
    if "adapter" not in given:
        raise ConfigError(
            "orpo-mlx judge --model: there is nothing to compare the model with.",
            "Give an adapter of it: --adapter FOLDER.",
        )
    if "journal" not in given:
        raise ConfigError(
            "orpo-mlx judge --model: without a run there is no folder that keeps the verdicts.",
            "Give one: --journal FOLDER.",
        )


def _check_judge(given: dict[str, Any]) -> None:
    if "judge_model" in given and "judge_url" in given:
        raise ConfigError("--judge-model and --judge-url: give only one of both.", "Leave one out.")
    if "judge_url" in given and "judge_name" not in given:
        raise ConfigError("--judge-url: which of its models?", "Give its name: --judge-name NAME.")
    if "judge_name" in given and "judge_url" not in given:
        raise ConfigError(
            "--judge-name: names a model of a server, and none is given.", "Give --judge-url URL."
        )
    if "judge_tokens" in given and "judge_model" not in given and "judge_url" not in given:
        raise ConfigError(
            "--judge-tokens: is for a model that judges, and none is given.",
            "Give --judge-model MODEL or --judge-url URL, or leave it out.",
        )
