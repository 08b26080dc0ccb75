"""`orpo-mlx export`: what is exported, to where, and in which order things happen.

Light: mistakes, --help and --list are answered before mlx is loaded.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option, add_json_option
from orpo_mlx.cli.progress import failures_as_json
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.errors import ConfigError, NoPlaceError
from orpo_mlx.export.formats.table import FORMATS, OPTIONS, Format, Option, find_format
from orpo_mlx.text.commands import not_here
from orpo_mlx.text.spelling import did_you_mean

if TYPE_CHECKING:
    from orpo_mlx.export.source import AdapterSource
    from orpo_mlx.export.written import Target

_LIST = "`orpo-mlx export --list` explains the formats."


@dataclass(frozen=True)
class ExportCommand:
    """A command line that was understood.

    Attributes:
        source: a run or an adapter folder, as written.
        format: one of the table.
        out: as written, None for the default.
        options: those of the format, by name.
    """

    source: str
    format: Format
    out: str | None
    options: dict[str, Any]
    checkpoint: str | None = None
    model: str | None = None
    runs_dir: str | None = None
    force: bool = False
    as_json: bool = False


def build_parser() -> Parser:
    """Return the parser of `orpo-mlx export`."""
    parser = Parser(
        "orpo-mlx export",
        "Write the adapter of a run, or an adapter folder, in the format of another program, and\n"
        "check what was written.",
        usage="orpo-mlx export RUN|ADAPTER --to FORMAT [--out PATH] [options]",
    )
    add_help_option(parser)
    names = ", ".join(one.name for one in FORMATS)
    parser.add_argument(
        "source",
        nargs="?",
        metavar="RUN|ADAPTER",
        help="A run (id, beginning of its id, or path), or an adapter folder of mlx-lm's format.",
    )
    parser.add_argument("--to", metavar="FORMAT", help=f"One of: {names}.")
    parser.add_argument(
        "--out", metavar="PATH", help="Folder or file to write. [default: here, named by the run]"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="STEP",
        help="Of a run: a step, best, or final, the result of the run. [default final]",
    )
    parser.add_argument(
        "--model", metavar="MODEL", help="The base model, if it is not where the adapter says."
    )
    parser.add_argument("--force", action="store_true", help="Replace an earlier export.")
    parser.add_argument("--list", action="store_true", help="Explain who needs which format.")
    add_json_option(parser, "Print JSON lines.")
    parser.add_argument(
        "--runs-dir", metavar="FOLDER", help="Folder of all runs, if it is not the usual one."
    )
    add_debug_option(parser)
    for option in OPTIONS:
        _add_option(parser, option)
    return parser


def _add_option(parser: Parser, option: Option) -> None:
    takers = ", ".join(one.name for one in FORMATS if option.name in one.options)
    help = f"{option.help} [{takers}]"
    if option.metavar:
        parser.add_argument(option.flag, metavar=option.metavar, help=help)
    else:
        parser.add_argument(option.flag, action="store_true", help=help)


def parse_export(argv: Sequence[str]) -> ExportCommand | None:
    """Read a command line; None asks for the list of formats.

    Raises:
        ConfigError: naming what is missing, unknown or not taken by the format.
        TextRequested: --help.
    """
    given = build_parser().parse(argv)
    if given.get("list"):
        return None
    if "to" not in given:
        raise ConfigError("orpo-mlx export: to which format? Write --to FORMAT.", _LIST)
    format = find_format(given["to"])
    if format is None:
        names = [one.name for one in FORMATS]
        raise ConfigError(
            f"--to {given['to']}: there is no such format; formats: {', '.join(names)}"
            f"{did_you_mean(given['to'], names)}",
            _LIST,
        )
    if "source" not in given:
        raise ConfigError(
            "orpo-mlx export: which run or adapter?",
            f"orpo-mlx export RUN --to {format.name}; `orpo-mlx runs` lists the runs.",
        )
    return ExportCommand(
        source=given["source"],
        format=format,
        out=given.get("out"),
        options=_own_options(given, format),
        checkpoint=given.get("checkpoint"),
        model=given.get("model"),
        runs_dir=given.get("runs_dir"),
        force="force" in given,
        as_json="json" in given,
    )


def _own_options(given: dict[str, Any], format: Format) -> dict[str, Any]:
    found = {}
    for option in OPTIONS:
        if option.name not in given:
            continue
        if option.name not in format.options:
            takers = [one.name for one in FORMATS if option.name in one.options]
            raise ConfigError(
                f"{option.flag}: --to {format.name} does not take it.",
                f"Leave it out; it belongs to --to {', '.join(takers)}.",
            )
        value = given[option.name]
        if option.values and value not in option.values:
            raise ConfigError(
                f"{option.flag} {value}: needs one of {', '.join(option.values)}"
                f"{did_you_mean(value, list(option.values))}",
                f"Write {option.flag} {option.values[0]}.",
            )
        found[option.name] = value
    return found


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx export`; return the exit code 0.

    Raises:
        OrpoError: it was refused or failed; with --json an event has said so already.
    """
    with failures_as_json("--json" in argv):
        command = parse_export(argv)
        return print_formats("--json" in argv) if command is None else _export(command)


def _export(command: ExportCommand) -> int:
    from orpo_mlx.cli.export_report import ExportReport
    from orpo_mlx.export.source import open_source
    from orpo_mlx.export.written import require_target

    begun = time.perf_counter()
    source = open_source(command.source, command.checkpoint, command.model, command.runs_dir)
    _require_head(command, source)
    target = _target(command, source)
    require_target(target)
    say = ExportReport(command.as_json)
    say.started(command.format.name, target.path)
    module = importlib.import_module(f"orpo_mlx.export.formats.{command.format.module}")
    done = module.export(source, target, say)
    more = [*_template_notes(command, source), *not_here(done.command, *done.serve)]
    done = replace(done, notes=[*done.notes, *more])
    say.finished(command.format.name, done, time.perf_counter() - begun)
    return 0


def _require_head(command: ExportCommand, source: AdapterSource) -> None:
    """Refuse formats that would leave a reward model's head behind.

    Raises:
        ConfigError: before anything is written.
    """
    name = command.options.get("content", "mlx") if command.format.name == "hub" else ""
    written = find_format(name) or command.format
    if not source.rates or written.carries_head:
        return
    from orpo_mlx.adapters.reward_head import HEAD_FILE

    carrying = ", ".join(one.name for one in FORMATS if one.carries_head)
    raise ConfigError(
        f"--to {command.format.name}: {source.name} is a reward model, and {written.name} has no "
        f"place for its head ({source.folder / HEAD_FILE}); nothing was written.",
        f"Formats that carry it: {carrying} (--to hub --content {carrying}). Here "
        "`orpo-mlx score RUN FILE` uses it as it is.",
    )


def _template_notes(command: ExportCommand, source: AdapterSource) -> list[str]:
    """Say where the template that was trained with is not part of what was written."""
    content = command.options.get("content", command.format.name)
    if source.template_file is None or content in ("fused", "ollama"):
        return []
    return [
        f"It was trained with --chat-template {source.template_file}, which is not part of this "
        "export: give it to what serves the model, or export with --to fused, which holds it."
    ]


def _target(command: ExportCommand, source: AdapterSource) -> Target:
    from orpo_mlx.export.written import Target

    suffix = command.format.suffix
    usual = f"{source.name}-{command.format.name}{suffix}"
    path = Path(command.out).expanduser() if command.out else _usual_place(command, usual)
    if suffix and path.suffix != suffix:
        path = path / usual
    sources = source.places(command.options.get("base_gguf"), command.options.get("original"))
    return Target(path, bool(suffix), command.force, command.options, sources)


def _usual_place(command: ExportCommand, usual: str) -> Path:
    """Return where an export goes that is given no --out: here, or where its program looks."""
    if command.format.name != "lmstudio":
        return Path(usual)
    from orpo_mlx.export.formats.lmstudio import default_target

    place = default_target(usual.removesuffix("-lmstudio"))
    if place is None:
        raise NoPlaceError(
            "--to lmstudio: LM Studio's folder was not found in your home folder.",
            "Start LM Studio once, or say where its models are: --out FOLDER/orpo-mlx/NAME.",
        )
    return place


# The list


def print_formats(as_json: bool = False) -> int:
    """Print who needs which format, as text or as a JSON list; return the exit code 0."""
    if as_json:
        rows = [
            {"format": f.name, "what": f.what, "who_reads_it": f.who_reads_it, "loss": f.loss}
            for f in FORMATS
        ]
        return print_text(json.dumps(rows, indent=2) + "\n")
    lines = []
    for one in FORMATS:
        lines += [
            f"{one.name}",
            f"    what    {one.what}",
            f"    for     {one.who_reads_it}",
            f"    loss    {one.loss}",
        ]
    return print_text("\n".join([*lines, "", "orpo-mlx export RUN --to FORMAT", ""]))
