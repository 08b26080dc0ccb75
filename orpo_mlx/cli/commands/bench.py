"""`orpo-mlx bench`: what this trainer is worth on this machine, in one report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option, add_json_option
from orpo_mlx.cli.progress import ProgressLine, failures_as_json
from orpo_mlx.cli.terminal import print_text, terminal_width, write_error
from orpo_mlx.errors import ConfigError, reason_of
from orpo_mlx.runs.control import ended_by_signals
from orpo_mlx.storage.atomic import write_atomically
from orpo_mlx.text.formatting import format_duration, visible
from orpo_mlx.text.spelling import near_hint

PAGE, NUMBERS = "bench.md", "bench.json"


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx bench`; 1 if something is wrong that it found or could not do."""
    with failures_as_json("--json" in argv):
        given = build_bench_parser().parse(argv)
        as_json = bool(given.get("json"))
        from orpo_mlx.bench.suite import failures, run_bench

        request = _request(given)
        folder = _make_folder(given.get("out"))
        shown = _Progress(as_json)
        if not as_json:
            write_error(f"writing to {visible(str(folder))}\n")
        with ended_by_signals():
            result = run_bench(request, _as_typed(given), shown, lambda found: _keep(folder, found))
        shown.close()
    from orpo_mlx.bench.report.page import as_markdown

    print_text(json.dumps(result, indent=1) + "\n" if as_json else as_markdown(result))
    if not as_json:
        print_text(
            f"\n{visible(str(folder))} has this page as {PAGE}, and {NUMBERS}. No Mac has been "
            "measured by us:\nplease send both in, as an issue.\n"
        )
    return 1 if failures(result) else 0


def build_bench_parser() -> Parser:
    """Return the parser of `bench`."""
    parser = Parser(
        "orpo-mlx bench",
        "Measure and check this trainer on this machine, in at most 15 minutes: is it right, does\n"
        "a killed run go on exactly, what do a step and MLX's own operations take. A small model\n"
        "is fetched on a Mac (340 MB), else made at random. The report holds no name and no path;\n"
        "please send it in. Exit code 1: something is not right.",
        usage="orpo-mlx bench [--short] [--only PART] [--out FOLDER] [--model MODEL] [--offline]",
    )
    add_help_option(parser)
    parser.add_argument(
        "--short",
        action="store_true",
        help="Do a little of everything, in about a minute: it shows that all runs, not how fast.",
    )
    parser.add_argument(
        "--only",
        metavar="PART",
        help="Do one part, or several with commas: machine, models, products, attention, "
        "recurrent, resume, self-test, verify, steps.",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="Write here. [default: a new folder in the present one]"
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="A folder or a Hub id to measure; its other precision is made at random.",
    )
    parser.add_argument(
        "--offline", action="store_true", help="Fetch nothing; models are made at random."
    )
    add_json_option(parser, "Print the numbers as JSON, progress as JSON lines on stderr.")
    add_debug_option(parser)
    return parser


def _request(given: dict[str, Any]) -> Any:
    from orpo_mlx.bench.parts import NAMES
    from orpo_mlx.bench.workplace import BenchRequest

    only = tuple(filter(None, str(given.get("only", "")).split(",")))
    for name in only:
        if name not in NAMES:
            raise ConfigError(
                f"--only {name}: there is no such part{near_hint(name, list(NAMES))}",
                f"The parts are {', '.join(NAMES)}.",
            )
    model = given.get("model")
    return BenchRequest(bool(given.get("short")), only, _checked(model), bool(given.get("offline")))


def _checked(model: str | None) -> str | None:
    """Return a folder by its whole path, because workers stand elsewhere; a Hub id as it is.

    Raises:
        ModelError: there is no such folder, or it holds no model that can be used.
    """
    from orpo_mlx.models.load import is_path_like, resolve_model

    if model is None or not (Path(model).expanduser().exists() or is_path_like(model)):
        return model
    return str(resolve_model(model).path)


def _as_typed(given: dict[str, Any]) -> str:
    """Return the command for a reader elsewhere: without places."""
    words = ["orpo-mlx", "bench"]
    for name, value in given.items():
        if name in ("out", "json", "debug"):
            continue
        words.append(f"--{name}")
        if value is not True:
            is_folder = name == "model" and Path(value).expanduser().exists()
            words.append("FOLDER" if is_folder else value)
    return shlex.join(words)


def _make_folder(out: str | None) -> Path:
    """Make the folder of the report before the work.

    Raises:
        ConfigError: it cannot be made, or holds a report.
    """
    folder = Path(out or f"orpo-mlx-bench-{datetime.now():%Y%m%d-%H%M%S}").expanduser()
    if any((folder / name).exists() for name in (PAGE, NUMBERS)):
        raise ConfigError(
            f"--out {out}: there is a report already", "Name another folder, or move it away."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: the folder cannot be made ({reason_of(error)})",
            "Name one that can: --out FOLDER.",
        ) from None
    return folder.absolute()


def _keep(folder: Path, result: dict[str, Any]) -> None:
    from orpo_mlx.bench.report.page import as_markdown

    write_atomically(folder / PAGE, as_markdown(result).encode())
    write_atomically(folder / NUMBERS, (json.dumps(result, indent=1) + "\n").encode())


class _Progress:
    """What is being done, with its seconds, and a line for each part that ended; on stderr."""

    def __init__(self, as_json: bool) -> None:
        self.as_json, self._line = as_json, ProgressLine(as_json)

    def doing(self, part: str, label: str, seconds: float) -> None:
        """Show what is being done."""
        shown = label
        if not self.as_json:  # of one line, which is written anew
            room = terminal_width() - len(f"{part}: , {seconds:.0f} s ... ")
            shown = f"{part}: {label[:room]}, {seconds:.0f} s"
        self._line(0, 0, shown, "phase")

    def ended(self, part: dict[str, Any]) -> None:
        """Show how a part ended."""
        self._line.close()
        if self.as_json:
            own = {key: part[key] for key in ("name", "status", "reason", "seconds")}
            write_error(json.dumps({"event": "part", **own}) + "\n")
            return
        wrong = sum(row.get("passed") is False for row in part["rows"])
        state = f"{wrong} not right" if wrong else part["status"]
        reason = f"  {visible(part['reason'])}" if part["reason"] else ""
        took = format_duration(part["seconds"])
        write_error(f"{part['name']:<10} {took:>12}  {state}{reason}\n")

    def close(self) -> None:
        """Remove what is shown."""
        self._line.close()
