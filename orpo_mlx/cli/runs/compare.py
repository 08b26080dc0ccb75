"""`orpo-mlx compare`: settings that differ and results of several runs, the best first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_json_option,
    add_runs_dir_option,
)
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.group.comparison import (
    ComparedRow,
    by_result,
    difference_in_kind,
    differing,
    read_row,
    require_metric,
    result_text,
    results_differ_in_kind,
    setting_text,
    usual_metric,
)
from orpo_mlx.runs.label import read_label
from orpo_mlx.runs.listing import find_run, iter_runs
from orpo_mlx.text.formatting import visible

_LONGEST = 28
"""Signs of a setting in the table; its end says more than its beginning: it is mostly a path."""


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx compare`."""
    given = _parser().parse(argv)
    found = _asked(given)
    if len(found) < 2 and len(given.get("runs") or ()) < 2:
        raise ConfigError(
            "orpo-mlx compare: needs two runs or more", "Write: orpo-mlx compare RUN RUN"
        )
    runs = sorted(found, key=lambda run: run.id)
    rows = [read_row(run) for run in runs]
    name = require_metric(rows, given["sort"]) if "sort" in given else usual_metric(rows)
    rows = by_result(rows, name)
    if "json" in given:
        return print_text(json.dumps([_json_row(row, name, rows) for row in rows], indent=2) + "\n")
    return print_text("\n".join(compare_lines(rows, name)) + "\n")


def _asked(given: dict[str, Any]) -> set[RunDirectory]:
    """Return the runs that are named, and those that have the tag."""
    place, tag = given.get("runs_dir"), given.get("tag")
    found = {find_run(name, place) for name in given.get("runs") or ()}
    if tag is None:
        return found
    tagged = {run for run in iter_runs(place) if tag in read_label(run.path).tags}
    if not tagged:
        raise ConfigError(f"--tag {tag}: no run has it", "`orpo-mlx runs` shows all tags.")
    return found | tagged


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx compare",
        "Compare runs: settings that differ, and one metric with its 95 % interval.",
        usage="orpo-mlx compare RUN RUN... | --tag T [--sort METRIC] [options]",
    )
    add_help_option(parser)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="Ids, their beginnings, or paths.")
    parser.add_argument("--tag", metavar="T", help="All runs with it; a sweep's is its name.")
    parser.add_argument("--sort", metavar="METRIC", help="Show and sort by it, the best first.")
    add_json_option(parser, "Print a JSON list.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def compare_lines(rows: Sequence[ComparedRow], name: str) -> list[str]:
    """Return a table of runs that are sorted by a metric, then what each one's evaluation says."""
    names = differing(rows)
    table = [("RUN", "STATUS", "STEP", *(n.upper() for n in names), name.upper())]
    for row in rows:
        settings = [_cut(setting_text(row.settings.get(setting))) for setting in names]
        step = f"{row.step}/{row.total_steps}"
        table.append((visible(row.id), row.status, step, *settings, result_text(row, name)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    if not names:
        lines.append("all settings are the same")
    lines += [
        visible(f"{row.id}: {row.evaluation.verdict}") for row in rows if row.evaluation is not None
    ]
    lines += [visible(f"{row.id}: damaged: {row.trouble}") for row in rows if row.trouble]
    if results_differ_in_kind(rows, name):
        lines.append(f"note: {difference_in_kind(name)}; --sort takes another metric")
    return lines


def _cut(text: str) -> str:
    short = Path(text).name if text.startswith("/") else text
    return short if len(short) <= _LONGEST else "…" + short[1 - _LONGEST :]


def _json_row(row: ComparedRow, name: str, rows: Sequence[ComparedRow]) -> dict[str, Any]:
    result = row.result(name)
    return {
        "id": row.id,
        "path": str(row.path),
        "status": row.status,
        "step": row.step,
        "total_steps": row.total_steps,
        "settings": {setting: row.settings.get(setting) for setting in differing(rows)},
        "metric": {"name": name, **(vars(result) if result else {})},
        "best": {"step": row.best.step, "metrics": row.best.metrics} if row.best else None,
        "verdict": row.evaluation.verdict if row.evaluation else None,
        "damage": row.trouble,
    }
