"""`orpo-mlx note`: a run's name, tags and note."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_run_argument,
    add_runs_dir_option,
    missing_run,
)
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.runs.label import RunLabel, read_label, write_label
from orpo_mlx.runs.listing import find_run
from orpo_mlx.text.formatting import visible


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx note`; without anything to say it shows what was said."""
    given = _parser().parse(argv)
    if "run" not in given:
        raise missing_run("note")
    run = find_run(given["run"], given.get("runs_dir"))
    label = read_label(run.path)
    changed = _changed(label, given)
    if changed != label:
        write_label(run.path, changed)
    return print_text("\n".join(label_lines(run.id, changed)) + "\n")


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx note",
        "Say something about a run: a note, a name, tags. Empty quotes take it back.",
        usage='orpo-mlx note RUN ["text"] [--name NAME] [--tag T] [options]',
    )
    add_help_option(parser)
    add_run_argument(parser)
    parser.add_argument(
        "note", nargs="?", metavar="TEXT", help="The note; it replaces the old one."
    )
    parser.add_argument("--name", metavar="NAME", help="A name to show before the id.")
    parser.add_argument("--tag", metavar="T", action="append", help="Add a tag; may be repeated.")
    parser.add_argument("--untag", metavar="T", action="append", help="Take a tag back.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def _changed(label: RunLabel, given: dict[str, Any]) -> RunLabel:
    gone = {tag.lstrip("#") for tag in given.get("untag", [])}
    added = [tag.lstrip("#") for tag in given.get("tag", [])]
    tags = [tag for tag in dict.fromkeys([*label.tags, *added]) if tag not in gone]
    name = given.get("name", label.name)
    return replace(label, name=name, tags=tuple(tags), note=given.get("note", label.note))


def label_lines(run: str, label: RunLabel) -> list[str]:
    """Return what was said about a run as lines."""
    lines = [f"{visible(run)}: {visible(label.short)}" if label.short else visible(run)]
    return lines + ([visible(label.note)] if label.note else [])
