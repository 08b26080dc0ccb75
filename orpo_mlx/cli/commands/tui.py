"""`orpo-mlx`, `orpo-mlx tui`: arguments first, then the app; the core's only way to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option, add_runs_dir_option
from orpo_mlx.cli.terminal import print_error_text
from orpo_mlx.errors import ConfigError
from orpo_mlx.text.spelling import near_hint


def open_app(words: Sequence[str]) -> int:
    """Read the arguments and run the app; errors are the caller's to show."""
    given = _parser().parse(words)
    charset = _one_of("--charset", given.get("charset", ""), ("auto", "braille", "blocks", "ascii"))
    theme = _theme(given.get("theme", ""))
    # Textual draws on stderr: redirected, the window would stay empty.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise ConfigError(
            "the app needs a terminal; input, output or errors are a file or a pipe",
            "`orpo-mlx --help` lists what can be done without it, such as `orpo-mlx watch RUN`.",
        )
    # Blinking and fading are for those who asked for nothing else.
    if "NO_COLOR" in os.environ or "calm" in given:
        os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    # Textual believes these before the terminal: a resized window would never be noticed.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    from tui.app import OrpoApp
    from tui.shell.terminal import ask_background

    app = OrpoApp(
        Path(given["runs_dir"]).expanduser() if given.get("runs_dir") else None,
        theme="" if theme == "auto" else theme,
        charset="" if charset == "auto" else charset,
        background=ask_background(),
        is_calm="calm" in given,
    )
    app.run(mouse="no_mouse" not in given)
    if app.return_code:
        print_error_text("the app ended by an error of its own; trainings go on")
    return app.return_code or 0


def _theme(name: str) -> str:
    if not name:
        return ""
    from tui.shell.settings import CHOICES  # their list takes a while to load

    return _one_of("--theme", name, CHOICES["theme"])


def _one_of(flag: str, text: str, allowed: Sequence[str]) -> str:
    if not text or text in allowed:
        return text
    hint = near_hint(text, list(allowed))
    raise ConfigError(f"{flag}: {text!r} is not known{hint}", f"Write one of {', '.join(allowed)}.")


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx tui",
        "Open the app: choose model and data, train, watch, compare, export.",
        usage="orpo-mlx tui [options]",
    )
    add_help_option(parser)
    add_runs_dir_option(parser)
    parser.add_argument(
        "--theme",
        metavar="NAME",
        help="auto, orpo-dark, orpo-light or another one the settings offer.",
    )
    parser.add_argument(
        "--charset", metavar="NAME", help="Of charts: auto, braille, blocks or ascii."
    )
    parser.add_argument("--no-mouse", action="store_true", help="Leave the mouse to the terminal.")
    parser.add_argument("--calm", action="store_true", help="No animations.")
    add_debug_option(parser)
    return parser
