"""`orpo-mlx` and `python -m orpo_mlx`: the command table; each command a thin call."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orpo_mlx import report
from orpo_mlx.command_line import (
    Parser,
    TextRequested,
    add_help_option,
    parse_fit,
    parse_train,
    run_command,
    version_text,
)
from orpo_mlx.errors import ConfigError, TrainingError
from orpo_mlx.run_history import RunHistory
from orpo_mlx.runs.control import RequestName, is_acknowledged, send_request
from orpo_mlx.runs.directory import RunDirectory, runs_folder
from orpo_mlx.runs.events import EventReader, Record, RunFailed
from orpo_mlx.runs.listing import find_run, list_runs
from orpo_mlx.suggestions import nearest_name

_POLL_SECONDS = 0.25


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _dispatch(words), debug="--debug" in words)


def _dispatch(words: list[str]) -> int:
    if not words and sys.stdin.isatty() and sys.stdout.isatty():
        return _tui([])
    first = words[0] if words else "--help"
    if first in ("--help", "-h", "help"):
        return report.print_text(help_text())
    if first == "--version":
        return report.print_text(version_text())
    if first in COMMANDS:
        return COMMANDS[first].run(words[1:])
    near = nearest_name(first, list(COMMANDS))
    hint = f"; did you mean {near}?" if near else ""
    raise ConfigError(
        f"{first}: there is no such command{hint}", "`orpo-mlx --help` lists the commands."
    )


@dataclass(frozen=True)
class Command:
    """One word after `orpo-mlx`."""

    usage: str
    help: str
    run: Callable[[list[str]], int]


def help_text() -> str:
    """Return what `orpo-mlx --help` prints."""
    usages = {f"{name} {command.usage}".strip(): command for name, command in COMMANDS.items()}
    width = max(map(len, usages))
    lines = [f"  {usage:<{width}}  {command.help}" for usage, command in usages.items()]
    return _HELP.format(commands="\n".join(lines))


_HELP = """\
usage: orpo-mlx COMMAND ...

Preference tuning (ORPO) with LoRA on mlx-lm models. RUN is the id of a run,
the beginning of an id, or the path of its folder.

commands:
{commands}

examples:
  orpo-mlx train --demo
      train a tiny model on tiny pairs in about a minute, to see how a run looks
  orpo-mlx train --model mlx-community/Qwen3-0.6B-4bit --data pairs.jsonl
      train on your own pairs, one a line:
      {{"prompt": "...", "chosen": "...", "rejected": "..."}}

`orpo-mlx COMMAND --help` explains a command, `orpo-mlx --version` shows the version.
"""


_RUNS_DIR_HELP = "Folder of all runs, if it is not $ORPO_MLX_HOME/runs or the user data folder."


def _parse(name: str, argv: list[str], run: bool = True, **flags: str) -> dict[str, Any]:
    """Read a small command's options: RUN if it has one, --runs-dir, and the named switches."""
    command = COMMANDS[name]
    parser = Parser(
        f"orpo-mlx {name}",
        f"{command.help[0].upper()}{command.help[1:]}.",
        usage=f"orpo-mlx {name} {command.usage} [options]",
    )
    add_help_option(parser)
    if run:
        parser.add_argument("run", nargs="?", metavar="RUN", help="Id, its beginning, or path.")
    parser.add_argument("--runs-dir", metavar="FOLDER", help=_RUNS_DIR_HELP)
    parser.add_argument("--debug", action="store_true", help="Show tracebacks of errors.")
    for flag, help in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=help)
    given = parser.parse(argv)
    if run and "run" not in given:
        raise ConfigError(
            f"orpo-mlx {name}: which run?",
            f"Give its id: orpo-mlx {name} RUN; see `orpo-mlx runs`.",
        )
    return given


def _find(given: dict[str, Any]) -> RunDirectory:
    return find_run(given["run"], given.get("runs_dir"))


def _train(argv: list[str]) -> int:
    # Read here first: help and mistakes are answered before mlx is loaded.
    parse_train(argv, prog="orpo-mlx train")
    return importlib.import_module("orpo_mlx.train").main(argv)


def _fit(argv: list[str]) -> int:
    # Read here first, as in `_train`.
    parse_fit(argv)
    return importlib.import_module("orpo_mlx.fit").main(argv)


def _data(argv: list[str]) -> int:
    return importlib.import_module("orpo_mlx.commands_data").main(argv)


def _tui(argv: list[str]) -> int:
    # By name: the core knows the app only as a program to start.
    return importlib.import_module("tui.__main__").open_app(argv)


def _simulate(argv: list[str]) -> int:
    return importlib.import_module("orpo_mlx.simulation").main(argv)


def _replay(argv: list[str]) -> int:
    return importlib.import_module("orpo_mlx.replay").main(argv)


def _plot(argv: list[str]) -> int:
    return importlib.import_module("orpo_mlx.plot").main(argv)


def _doctor(argv: list[str]) -> int:
    return importlib.import_module("orpo_mlx.doctor").main(argv)


def _resume(argv: list[str]) -> int:
    if argv and not argv[0].startswith("-"):
        return _train(["--resume", *argv])
    if argv in (["--help"], ["-h"]):
        raise TextRequested(
            "usage: orpo-mlx resume RUN [options of train]\n\n"
            "Go on with a run from its newest checkpoint. `orpo-mlx train --help` lists the "
            "options.\n"
        )
    raise ConfigError(
        "orpo-mlx resume: which run?", "Give its id: orpo-mlx resume RUN; see `orpo-mlx runs`."
    )


def _runs(argv: list[str]) -> int:
    given = _parse("runs", argv, run=False, json="Print a JSON list.")
    folder = given.get("runs_dir")
    return report.print_runs(list_runs(folder), runs_folder(folder), "json" in given)


def _watch(argv: list[str]) -> int:
    given = _parse(
        "watch",
        argv,
        plain="Print plain lines without colours or a bar.",
        json="Print events as JSON lines.",
    )
    run = _find(given)
    show, close = _viewer(given)
    try:
        last = _follow(run, show)
    except KeyboardInterrupt:
        report.print_error_text(f"stopped watching; run {run.id} goes on")
        return 130
    finally:
        close()
    status = run.read_status()
    if status == "crashed":
        raise TrainingError(
            f"run {run.id}: its process ended without a word",
            f"See {run.log_file if run.log_file.exists() else run.path}; "
            f"go on with `orpo-mlx resume {run.id}`.",
        )
    return 1 if isinstance(last and last.event, RunFailed) else 0


Show = Callable[[list[Record]], None]


def _viewer(given: dict[str, Any]) -> tuple[Show, Callable[[], None]]:
    if "json" in given:
        return report.show_raw, lambda: None
    if "plain" in given:
        history = RunHistory()
        return lambda records: report.show_plain(records, history), lambda: None
    reporter = report.RichReport()

    def show(records: list[Record]) -> None:
        for record in records:
            if record.event is not None:
                reporter.handle(record.event)

    return show, reporter.close


def _follow(run: RunDirectory, show: Show) -> Record | None:
    """Show a run's events until its trainer has ended and all are shown; return the last one."""
    reader = EventReader(run.events_file)
    last = None
    while True:
        alive = run.is_locked()  # before reading: what it wrote last is then surely read
        records = reader.poll()
        show(records)
        last = records[-1] if records else last
        if not records and not alive:
            return last
        if not records:
            time.sleep(_POLL_SECONDS)


def _stop(argv: list[str]) -> int:
    given = _parse(
        "stop",
        argv,
        now="End without saving: what came after the last checkpoint is lost.",
        wait="Return when the run has ended.",
    )
    run = _find(given)
    send_request(run, "abort" if "now" in given else "stop")
    if "wait" not in given:
        return report.print_text(f"Asked {run.id} to stop; `orpo-mlx watch {run.id}` shows it.\n")
    while run.is_locked():
        time.sleep(_POLL_SECONDS)
    return report.print_text(f"{run.id}: {run.read_status()}\n")


def _verify(argv: list[str]) -> int:
    # Read here first, as in `_train`.
    given = _verify_parser().parse(argv)
    shown, pairs = given.pop("json", False), _whole_number("--pairs", given.pop("pairs", "6"))
    given.pop("debug", None)
    words = ["--demo"] if given.pop("demo", False) else []
    if mapping := given.pop("map", None):
        words.append(f"--map={','.join(mapping)}")
    words += [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    config = parse_train(words, prog="orpo-mlx verify").config
    run_checks = importlib.import_module("orpo_mlx.verify").run_checks
    return report.print_checks(run_checks(config, pairs), shown)


def _verify_parser() -> Parser:
    parser = Parser(
        "orpo-mlx verify",
        "Check on your model and a few of your rows that loss and gradients are right, however\n"
        "they are computed, and that a training can be repeated and resumed. Nothing is kept.",
        usage="orpo-mlx verify --model MODEL --data FILE [options]",
    )
    add_help_option(parser)
    parser.add_argument("--model", metavar="MODEL", help="A folder or a Hub id.")
    parser.add_argument("--revision", metavar="REVISION", help="Of a Hub model.")
    parser.add_argument("--chat-template", metavar="chatml|FILE", help="As for train.")
    parser.add_argument("--data", metavar="FILE", help="Preference pairs, as for train.")
    parser.add_argument("--layout", metavar="NAME", help="Layout of the rows, as for train.")
    parser.add_argument(
        "--map", nargs="+", metavar="NAME=COLUMN", help="What the columns are, as for train."
    )
    parser.add_argument("--demo", action="store_true", help="Take the built-in model and pairs.")
    parser.add_argument("--config", metavar="FILE", help="Settings of adapter and objective.")
    parser.add_argument("--pairs", metavar="N", help="Look at N pairs, the shortest. [default 6]")
    parser.add_argument("--json", action="store_true", help="Print a JSON list.")
    parser.add_argument("--debug", action="store_true", help="Show tracebacks of errors.")
    return parser


def _export(argv: list[str]) -> int:
    return importlib.import_module("orpo_mlx.export.command").main(argv)


def _adapter(argv: list[str]) -> int:
    return importlib.import_module("orpo_mlx.export.adapter_import").main(argv)


def _whole_number(flag: str, text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise ConfigError(f"{flag}: {text} is not a whole number from 1 on", f"Write {flag} 6.")


def _asking(name: str, request: RequestName, done: str) -> Callable[[list[str]], int]:
    """Return a command that sends one request and waits a moment for the answer."""

    def ask(argv: list[str]) -> int:
        run = _find(_parse(name, argv))
        path = send_request(run, request)
        deadline = time.monotonic() + 2.0
        while not is_acknowledged(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        when = "" if is_acknowledged(path) else ", after the present step"
        return report.print_text(f"{run.id}: {done}{when}\n")

    return ask


COMMANDS: dict[str, Command] = {
    "tui": Command("[options]", "open the app, as `orpo-mlx` alone does", _tui),
    "train": Command(
        "[options]", "train an adapter; `orpo-mlx train --help` lists the settings", _train
    ),
    "verify": Command(
        "--model M --data D [--json]", "check loss, gradients and resuming on your data", _verify
    ),
    "fit": Command(
        "--model M [--memory 16GB] [--probe]",
        "estimate the memory of a training, and what fits; --probe measures its time",
        _fit,
    ),
    "data": Command(
        "check|search|convert|split|pairs ...", "look at, find, convert and make data", _data
    ),
    "export": Command(
        "RUN --to FORMAT [--out PATH]", "write an adapter for other programs; see --list", _export
    ),
    "adapter": Command(
        "import PEFT_FOLDER --out FOLDER", "turn a PEFT adapter into one for mlx-lm", _adapter
    ),
    "doctor": Command(
        "[--self-test] [--json]", "look at this machine, and train the demo as a test", _doctor
    ),
    "runs": Command("[--json]", "list all runs", _runs),
    "resume": Command("RUN", "go on with a run from its newest checkpoint", _resume),
    "watch": Command("RUN [--plain|--json]", "follow a run; Ctrl-C leaves it alone", _watch),
    "stop": Command("RUN [--now] [--wait]", "finish the step, save and end a run", _stop),
    "pause": Command("RUN", "let a run wait, memory kept", _asking("pause", "pause", "pauses")),
    "unpause": Command("RUN", "let a paused run go on", _asking("unpause", "resume", "goes on")),
    "checkpoint": Command(
        "RUN", "save a checkpoint now", _asking("checkpoint", "checkpoint", "saves a checkpoint")
    ),
    "sample": Command(
        "RUN", "answer the held-out prompts now", _asking("sample", "sample", "answers the samples")
    ),
    "plot": Command("RUN... --out FILE", "draw runs as SVG, HTML or PNG", _plot),
    "replay": Command("RUN [--speed X]", "play a run again, to watch it", _replay),
    "simulate": Command("[options]", "play a training without a model, to try the app", _simulate),
}

if __name__ == "__main__":
    sys.exit(main())
