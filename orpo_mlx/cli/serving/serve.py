"""`orpo-mlx serve`: base and adapters answer other programs, as OpenAI's API."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_json_option,
    add_runs_dir_option,
    number_option,
)
from orpo_mlx.cli.progress import ProgressLine, failures_as_json
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.text.formatting import format_duration

HOST, PORT = "127.0.0.1", 8080


def build_serve_parser() -> Parser:
    """Return the parser of `orpo-mlx serve`."""
    parser = Parser(
        "orpo-mlx serve",
        "Let a base model and adapters of it answer other programs over HTTP, as OpenAI's API.\n"
        "Each has a name of its own: a run its id, a folder and the base their names. Ctrl-C ends "
        "it.",
        usage="orpo-mlx serve RUN|ADAPTER... [--model MODEL] [--port N] [--host ADDRESS] [options]",
    )
    add_help_option(parser)
    parser.add_argument(
        "source",
        nargs="*",
        metavar="RUN|ADAPTER",
        help="Runs (id, beginning of its id, or path) and folders of adapters, of one base model.",
    )
    parser.add_argument(
        "--model", metavar="MODEL", help="The base, if it is not where the adapters say; or alone."
    )
    parser.add_argument("--port", metavar="N", help=f"0: any that is free. [default {PORT}]")
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        help=f"0.0.0.0 lets in the whole network, with no key asked. [default {HOST}]",
    )
    add_json_option(parser, "Print JSON lines.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx serve` until Ctrl-C, which is exit code 130."""
    with failures_as_json("--json" in argv):
        given = build_serve_parser().parse(argv)
        port = number_option(given, "port", PORT, 0, 65535, whole=True)
        return _serve(given, port)


def _serve(given: dict[str, Any], port: int) -> int:
    from orpo_mlx.serving.http_server import OpenAIServer, serve_models
    from orpo_mlx.serving.served_models import find_served_models

    progress = ProgressLine("json" in given)
    try:
        served = find_served_models(
            given.get("source", []), given.get("model"), given.get("runs_dir"), progress
        )
        server = OpenAIServer(given.get("host", HOST), port)
    finally:
        progress.close()
    try:
        serve_models(server, served, _teller("json" in given))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped serving") from None
    return 0


def _teller(as_json: bool) -> Any:
    lock = threading.Lock()  # connections have threads of their own

    def say(message: dict[str, Any]) -> None:
        lines = [json.dumps(message, ensure_ascii=False)] if as_json else message_lines(message)
        with lock:
            print_text("".join(f"{line}\n" for line in lines))

    return say


def message_lines(message: dict[str, Any]) -> list[str]:
    """Return what is printed of a message of the server."""
    if message["event"] == "ready":
        names = [f"{name} (the base)" * (name == message["base"]) or name
                 for name in message["models"]]  # fmt: skip
        return [
            *(f"note: {note}" for note in message["notes"]),
            f"address  {message['url']}",
            *(f"{'models' * (i == 0):<9}{name}" for i, name in enumerate(names)),
            f"ask      {message['curl']}",
            "Ctrl-C ends it.",
        ]
    clock = time.strftime("%H:%M:%S")
    if message["event"] == "request":
        seconds = format_duration(message["seconds"])
        return [f"{clock}  {message['status']}  {message['model'] or message['path']}  {seconds}"]
    return [f"{clock}  note: {message['text']}"]
