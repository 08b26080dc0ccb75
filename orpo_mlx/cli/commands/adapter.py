"""`orpo-mlx adapter import`: a PEFT adapter becomes one in mlx-lm's format."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option, add_json_option
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.errors import ConfigError, OrpoError


def build_parser() -> Parser:
    """Return the parser of `orpo-mlx adapter`."""
    parser = Parser(
        "orpo-mlx adapter",
        "Turn a PEFT adapter into one in mlx-lm's format, and check what was written.",
        usage="orpo-mlx adapter import PEFT_FOLDER --out FOLDER [--model MODEL] [options]",
    )
    add_help_option(parser)
    parser.add_argument("action", nargs="?", metavar="import", help="What to do.")
    parser.add_argument("source", nargs="?", metavar="PEFT_FOLDER", help="The adapter.")
    parser.add_argument("--out", metavar="FOLDER", help="Where to write it.")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="The base model in MLX: names and shapes are then checked against it.",
    )
    parser.add_argument("--force", action="store_true", help="Replace an earlier import.")
    add_json_option(parser, "Print JSON lines, as export does.")
    add_debug_option(parser)
    return parser


def parse_adapter(argv: Sequence[str]) -> dict[str, str]:
    """Read a command line.

    Raises:
        ConfigError: something is missing or unknown.
        TextRequested: --help.
    """
    given = build_parser().parse(argv)
    usage = "orpo-mlx adapter import PEFT_FOLDER --out FOLDER"
    if given.get("action") != "import":
        found = f"{given['action']} is no action" if "action" in given else "what is to be done?"
        raise ConfigError(f"orpo-mlx adapter: {found}; there is: import.", usage)
    for name, what in (("source", "PEFT_FOLDER"), ("out", "--out FOLDER")):
        if name not in given:
            raise ConfigError(f"orpo-mlx adapter import: {what} is missing.", usage)
    return given


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx adapter`; return the exit code 0.

    Raises:
        OrpoError: it was refused or failed; with --json an event has said so already.
    """
    try:
        given = parse_adapter(argv)
        return _import(given)
    except OrpoError as error:
        if "--json" in argv:
            content = {"message": error.message, "what_to_do": error.what_to_do}
            print_text(json.dumps({"event": "failed", **content}) + "\n")
        raise


def _import(given: dict[str, str]) -> int:
    from orpo_mlx.cli.export_report import ExportReport
    from orpo_mlx.export.base import BaseModel
    from orpo_mlx.export.from_peft import import_adapter
    from orpo_mlx.export.written import Target, require_target

    begun = time.perf_counter()
    folder = Path(given["source"]).expanduser()
    base = BaseModel(given["model"]) if "model" in given else None
    sources = (folder, *([Path(base.name).expanduser()] if base else []))
    target = Target(Path(given["out"]).expanduser(), force="force" in given, sources=sources)
    require_target(target)
    say = ExportReport("json" in given)
    say.started("mlx", target.path)
    done = import_adapter(folder, target, base, say)
    say.finished("mlx", done, time.perf_counter() - begun)
    return 0
