"""`orpo-mlx data check`: look at a dataset as a training would take it, before one is started.

Of the model only the tokenizer is loaded, unless `--score` asks what the model makes of the pairs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.cli.data import checkup_html
from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_json_option,
    number_option,
)
from orpo_mlx.cli.progress import ProgressLine, failures_as_json
from orpo_mlx.cli.settings_options import add_settings, settings_from
from orpo_mlx.cli.terminal import (
    make_console,
    print_error_text,
    print_text,
)
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.file import expanded
from orpo_mlx.data.checkup.checkup import Checkup, CheckupPlan, count_rows, examine
from orpo_mlx.data.checkup.findings import Finding
from orpo_mlx.data.checkup.rules import on_plan, on_score
from orpo_mlx.data.pipeline import Part, encoder_for, rules_of, with_layouts
from orpo_mlx.data.prepare import notes_on_valid
from orpo_mlx.data.sources.source import describe_choice, find_sources, read_members
from orpo_mlx.data.tokens.template_check import template_notes
from orpo_mlx.data.types import TokenPair
from orpo_mlx.data.unpaired import require_kind
from orpo_mlx.errors import ConfigError, DataError
from orpo_mlx.text.formatting import counted

EXIT_CODES = {"good": 0, "warnings": 0, "unusable": 2}
SCORED_PAIRS = 32


@dataclass(frozen=True)
class CheckCommand:
    """What a `data check` command line asks for.

    Attributes:
        config: the settings of the training that is meant.
        report: file for the HTML report.
        strict: whether warnings make the exit code 1.
        score: pairs to score with the base model; 0 = none.
        show: pairs to show token by token.
    """

    config: TrainConfig
    as_json: bool = False
    report: Path | None = None
    strict: bool = False
    score: int = 0
    show: int = 1


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx data check`; return 0, 1 for warnings under --strict, 2 for unusable data.

    Raises:
        OrpoError: data, model or settings cannot be read at all.
        TextRequested: --help.
    """
    with failures_as_json("--json" in argv):
        command = parse_check(argv)
        if command.report is not None:
            checkup_html.require_place(command.report)
        checkup = check(command)
    content = {"data": command.config.data, "model": command.config.model, **checkup.as_dict()}
    if command.report is not None:
        checkup_html.write_report(command.report, content)
    print_checkup(content, command.as_json, command.show)
    if command.report is not None and not command.as_json:
        print_text(f"report   {command.report}\n")
    level = checkup.verdict.level
    return 1 if command.strict and level == "warnings" else EXIT_CODES[level]


def build_check_parser(prog: str = "orpo-mlx data check") -> Parser:
    """Return the parser of `data check`: what it does, and the settings that concern data."""
    parser = Parser(
        prog,
        "Show what a training would learn from a dataset and what will hurt: where every row\n"
        "goes, prompts and answers token by token, lengths, duplicates, and more. Settings have\n"
        "the meaning they have for train. Exit code 0: usable, 1: warnings with --strict,\n"
        "2: not usable.",
        usage=f"{prog} DATA [--model MODEL] [options]",
    )
    group = parser.add_argument_group("What to do")
    group.add_argument("source", nargs="?", metavar="DATA", help="As --data of train takes it.")
    add_help_option(group)
    add_json_option(group, "Print one JSON object; stderr tells how far it is.")
    group.add_argument(
        "--report", metavar="FILE", help="Write a page that a browser shows, with all findings."
    )
    group.add_argument("--strict", action="store_true", help="Exit with 1 if there are warnings.")
    group.add_argument(
        "--score",
        action="store_true",
        help="Load the model and see how many pairs it already orders rightly.",
    )
    group.add_argument(
        "--score-pairs",
        metavar="N",
        help=f"Pairs that are scored, drawn by seed. [default {SCORED_PAIRS}]",
    )
    group.add_argument(
        "--show", metavar="N", help="Show N pairs token by token, at most 20. [default 1]"
    )
    group.add_argument("--config", metavar="FILE", help="Read settings from a TOML file.")
    group.add_argument("--demo", action="store_true", help="Check the built-in pairs.")
    add_debug_option(group)
    add_settings(parser, ("model", "data"))
    return parser


def parse_check(argv: Sequence[str]) -> CheckCommand:
    """Read a `data check` command line.

    Raises:
        ConfigError: listing every problem.
        TextRequested: --help.
    """
    given = build_check_parser().parse(argv)
    names = (
        "source", "json", "report", "strict", "score", "score_pairs", "show", "config", "demo",
        "debug",
    )  # fmt: skip
    said = {name: given.pop(name, None) for name in names}
    if said["source"]:
        given.setdefault("data", said["source"])
    config = settings_from(given, said["config"], bool(said["demo"]))
    if not config.data:
        raise ConfigError(
            "orpo-mlx data check: DATA is missing",
            "Give a file, a folder or a Hub id: orpo-mlx data check pairs.jsonl --model MODEL",
        )
    wants_score = said["score"] or said["score_pairs"] is not None
    if wants_score and not config.model:
        raise ConfigError("--score: needs --model MODEL", "Leave out --score, or add the model.")
    return CheckCommand(
        config=config,
        as_json=bool(said["json"]),
        report=Path(expanded(said["report"])) if said["report"] else None,
        strict=bool(said["strict"]),
        score=_count(said, "score_pairs", SCORED_PAIRS) if wants_score else 0,
        show=_count(said, "show", 1),
    )


def _count(said: dict[str, Any], name: str, default: int) -> int:
    return number_option(said, name, default, 1, 1_000_000, whole=True, bounds="from 1 on")


def check(command: CheckCommand) -> Checkup:
    """Look at the dataset and, if asked, score some of its pairs."""
    config = command.config
    tokenizer, vocab_size = _tokenizer(config) if config.model else (None, None)
    rules = rules_of(config, vocab_size)
    line = ProgressLine(command.as_json)
    sources = find_sources(config, on_progress=line)
    line.close()
    shares: list[str] = []
    parts = with_layouts(read_members(sources.data.members, config.seed, shares), rules)
    valid: list[Part] = []
    if sources.valid is not None:
        valid = with_layouts(read_members(sources.valid.members, config.seed), rules)
    notes = [*sources.notes, *shares, *describe_choice(sources.data)]
    if tokenizer is not None:
        for _, layout in (*parts, *valid):
            notes += template_notes(layout, tokenizer, str(config.model))
    plan = CheckupPlan(
        valid_fraction=config.valid_fraction,
        seed=config.seed,
        smallest=config.micro_batch_size,
        notes=list(dict.fromkeys(notes)),
        sample=command.score,
    )
    encoder = None if tokenizer is None else encoder_for(config, tokenizer)
    total = count_rows(parts)
    try:
        checkup = examine(
            parts, encoder, rules, plan, valid, lambda n: line(n, total, "checking rows", "rows")
        )
    finally:
        line.close()
    if sources.valid is not None and checkup.valid is not None:
        named = {"data": sources.data, "valid_data": sources.valid}
        hashes = {name: source.content_hash() for name, source in named.items()}
        checkup.add(on_plan(note) for note in notes_on_valid(hashes, checkup.valid))
    checkup.add(_on_objective(config, checkup))
    if command.score and checkup.sample:
        checkup.add([_score(config, checkup.sample, line)])
    return checkup


def _on_objective(config: TrainConfig, checkup: Checkup) -> Iterator[Finding]:
    """Say which objective the rows are for, if it is not the one of the settings."""
    try:
        require_kind({layout.is_labelled for layout in checkup.layouts}, config)
    except DataError as error:
        if checkup.labels:
            text = "rows are answers with a label each, not pairs: --objective kto learns from them"
            yield Finding("info", "labelled", text)
        else:
            yield Finding("error", "not-labelled", error.message, error.what_to_do)


def _score(config: TrainConfig, pairs: list[TokenPair], line: ProgressLine) -> Finding:
    """Load the model and return what it makes of the pairs."""
    from orpo_mlx.evaluation.base_accuracy import count_right

    print_error_text(f"loading the model to score {counted(len(pairs), 'pair')}")
    try:
        right = count_right(config, pairs, lambda n: line(n, len(pairs), "scoring pairs", "rows"))
        return on_score(right, len(pairs))
    finally:
        line.close()


def _tokenizer(config: TrainConfig) -> tuple[Any, int | None]:
    """Load the tokenizer of the model and read the size of its vocabulary; no weights."""
    from orpo_mlx.models import download, load

    path = Path(str(config.model)).expanduser()
    folder = (
        path if path.exists() else download.download_settings(str(config.model), config.revision)
    )
    tokenizer = load.load_tokenizer(folder, config.chat_template)
    return tokenizer, load.ModelFolder(folder, str(config.model)).vocab_size


def print_checkup(content: dict[str, Any], as_json: bool = False, show: int = 1) -> int:
    """Print what `data check` found, as text or as one JSON object; return the exit code 0.

    Args:
        content: of the checkup; see `data_check`.
        as_json: whether programs read it.
        show: pairs shown token by token.
    """
    if as_json:
        return print_text(json.dumps(content, ensure_ascii=False) + "\n")
    from orpo_mlx.cli.data.checkup_text import checkup_lines

    if not sys.stdout.isatty():
        lines = ("".join(text for text, _ in line) for line in checkup_lines(content, show))
        return print_text("".join(line.rstrip() + "\n" for line in lines))
    from rich.text import Text

    console = make_console()
    for line in checkup_lines(content, show, min(console.width, 120)):
        console.print(Text.assemble(*line), soft_wrap=True)
    return 0
