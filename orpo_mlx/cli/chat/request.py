"""What a command line of `orpo-mlx chat` asks for; runs and models are not looked at yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orpo_mlx.chat.session import MOST_SEED, MOST_TEMPERATURE, MOST_TOKENS, Drawing
from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_json_option,
    add_run_argument,
    add_runs_dir_option,
    missing_run,
    number_option,
)
from orpo_mlx.errors import ConfigError

USAGE = "orpo-mlx chat RUN | --model MODEL [--adapter FOLDER] [options]"
SAVED = "saved"
"""What stands for the prompts kept while chatting."""


@dataclass(frozen=True)
class ChatRequest:
    """What a command line asks for.

    Attributes:
        given: options by name, as text; what names run or model is for `open_playground`.
        ask: file of prompts to be asked, None to chat.
        all_checkpoints: whether each checkpoint is asked, not only the one that answers.
    """

    given: dict[str, Any]
    drawing: Drawing
    system: str
    ask: str | None
    all_checkpoints: bool
    as_json: bool


def build_chat_parser() -> Parser:
    """Return the parser of `orpo-mlx chat`."""
    parser = Parser(
        "orpo-mlx chat",
        "Talk with base and adapter, side by side or alone. /help lists the commands; what you\n"
        "say of answers becomes data for the next training. A pipe is read a turn a line.",
        usage=USAGE,
    )
    add_help_option(parser)
    add_run_argument(parser)
    parser.add_argument(
        "--checkpoint", metavar="NAME", help="Whose adapter answers: a step, or final. [newest]"
    )
    parser.add_argument("--model", metavar="MODEL", help="A folder or a Hub id, in place of RUN.")
    parser.add_argument("--adapter", metavar="FOLDER", help="Of --model, in mlx-lm's format.")
    usual = Drawing()
    parser.add_argument(
        "--temperature", metavar="X", help=f"0 = the likeliest token. [{usual.temperature:g}]"
    )
    parser.add_argument("--seed", metavar="N", help="Of the draws. [0]")
    parser.add_argument(
        "--max-tokens", metavar="N", help=f"Longest answer. [{usual.max_tokens} tokens]"
    )
    parser.add_argument("--system", metavar="TEXT", help="System prompt.")
    parser.add_argument(
        "--ask", metavar="PROMPTS", help="Ask each prompt of a file greedily and print the answers "
        f"side by side; '{SAVED}': the prompts kept with /keep.",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoints", action="store_true", help="With --ask: of each checkpoint, by step."
    )
    add_json_option(parser, "With --ask: print a JSON object.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def parse_chat(argv: Sequence[str]) -> ChatRequest:
    """Read a command line.

    Raises:
        ConfigError: something is missing, unknown or contradicts something else.
        TextRequested: --help.
    """
    given = build_chat_parser().parse(argv)
    _check_model(given)
    _check_asking(given)
    usual = Drawing()
    drawing = Drawing(
        number_option(given, "temperature", usual.temperature, 0, MOST_TEMPERATURE),
        number_option(given, "seed", usual.seed, 0, MOST_SEED, whole=True),
        number_option(given, "max_tokens", usual.max_tokens, 1, MOST_TOKENS, whole=True),
    )
    return ChatRequest(
        given, drawing, given.get("system", ""), given.get("ask"), "checkpoints" in given,
        "json" in given,
    )  # fmt: skip


def _check_model(given: dict[str, Any]) -> None:
    if "run" not in given and "model" not in given:
        raise missing_run("chat")
    if "run" in given and "model" in given:
        raise ConfigError("RUN and --model: give only one of both.", f"Write {USAGE}.")
    if "adapter" in given and "model" not in given:
        raise ConfigError("--adapter: of which model?", "Give --model MODEL, or a run alone.")
    if "checkpoint" in given and "run" not in given:
        raise ConfigError("--checkpoint: only a run has some.", "Give RUN in place of --model.")


def _check_asking(given: dict[str, Any]) -> None:
    asking = "ask" in given
    if not asking and (alone := next((n for n in ("checkpoints", "json") if n in given), None)):
        raise ConfigError(f"--{alone}: goes with --ask.", "Add --ask PROMPTS, or leave it out.")
    if asking and (other := next((n for n in ("temperature", "seed") if n in given), None)):
        raise ConfigError(
            f"--{other}: --ask takes the likeliest token always.", f"Leave out --{other}."
        )
    if "checkpoint" in given and "checkpoints" in given:
        raise ConfigError("--checkpoint and --checkpoints: give one of both.", "Leave one out.")
    if "checkpoints" in given and "run" not in given:
        raise ConfigError("--checkpoints: only a run has some.", "Give RUN in place of --model.")
