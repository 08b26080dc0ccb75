"""`python -m orpo_mlx.cli.commands.playground`: the words of the process that answers the app."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from orpo_mlx.cli.exit_codes import run_command
from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option, add_runs_dir_option
from orpo_mlx.errors import OrpoError
from orpo_mlx.serving.place import open_playground
from orpo_mlx.serving.playground import failed, handle, is_cancelled, read_requests, ready
from orpo_mlx.text.redaction import redacted


def main(argv: list[str] | None = None) -> int:
    """Serve until `quit` or the end of the input; 0, or 2 if there is nothing to load."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _serve(words, sys.stdin, sys.stdout), debug="--debug" in words)


def _serve(words: list[str], source: TextIO, sink: TextIO) -> int:
    given = _parser().parse(words)

    def say(message: dict[str, Any]) -> None:
        sink.write(redacted(json.dumps(message, allow_nan=False)) + "\n")
        sink.flush()

    try:
        place = open_playground(given)
    except OrpoError as error:
        say(failed(None, error))
        return 2
    say(ready(place))
    requests = read_requests(source)
    while (request := requests.get()) is not None:
        handle(place, request, say, lambda: not is_cancelled(requests))
    return 0


def _parser() -> Parser:
    parser = Parser(
        "python -m orpo_mlx.cli.commands.playground",
        "Answer and score as JSON lines, for the terminal app.",
        usage="python -m orpo_mlx.cli.commands.playground --run RUN | --model MODEL [options]",
    )
    add_help_option(parser)
    parser.add_argument("--run", metavar="RUN", help="Id of a run, its beginning, or its folder.")
    add_runs_dir_option(parser)
    parser.add_argument("--checkpoint", metavar="NAME", help="'final' or a step. [default: newest]")
    parser.add_argument("--model", metavar="MODEL", help="A folder or a Hub id.")
    parser.add_argument("--adapter", metavar="FOLDER", help="An adapter in mlx-lm's format.")
    add_debug_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
