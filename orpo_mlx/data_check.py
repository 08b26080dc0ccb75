"""`orpo-mlx data check`: look at a dataset as a training would take it, before one is started.

Of the model only the tokenizer is loaded, unless `--score` asks what the model makes of the pairs.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx import doctor_report, report
from orpo_mlx.chat_template import template_notes
from orpo_mlx.command_line import Parser, add_help_option, add_settings, settings_from
from orpo_mlx.config import TrainConfig
from orpo_mlx.data import remarks
from orpo_mlx.data.doctor import Checkup, Plan, count_rows, examine
from orpo_mlx.data.fates import Part, encoder_for, rules_of, with_layouts
from orpo_mlx.data.findings import Finding
from orpo_mlx.data.pairs import TokenPair
from orpo_mlx.data.sources import describe_choice, find_sources, read_members
from orpo_mlx.errors import ConfigError, ModelError
from orpo_mlx.formatting import counted
from orpo_mlx.settings_file import expanded
from orpo_mlx.training_data import notes_on_valid

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
    command = parse_check(argv)
    if command.report is not None:
        doctor_report.require_place(command.report)
    checkup = check(command)
    content = {"data": command.config.data, "model": command.config.model, **checkup.as_dict()}
    if command.report is not None:
        doctor_report.write_report(command.report, content)
    report.print_checkup(content, command.as_json, command.show)
    if command.report is not None and not command.as_json:
        report.print_text(f"report   {command.report}\n")
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
    group.add_argument(
        "--json", action="store_true", help="Print one JSON object; stderr tells how far it is."
    )
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
    group.add_argument("--debug", action="store_true", help="Show tracebacks of errors.")
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
        score=_number("--score-pairs", said["score_pairs"], SCORED_PAIRS) if wants_score else 0,
        show=_number("--show", said["show"], 1),
    )


def _number(flag: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000:
        return int(text)
    raise ConfigError(f"{flag}: {text} is not a whole number from 1 on", f"Write {flag} {default}.")


def check(command: CheckCommand) -> Checkup:
    """Look at the dataset and, if asked, score some of its pairs."""
    config = command.config
    tokenizer, vocab_size = _tokenizer(config) if config.model else (None, None)
    rules = rules_of(config, vocab_size)
    line = report.StatusLine(for_program=command.as_json)
    sources = find_sources(config, on_progress=report.DownloadProgress(line))
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
    plan = Plan(
        valid_fraction=config.valid_fraction,
        seed=config.seed,
        smallest=config.micro_batch_size,
        notes=list(dict.fromkeys(notes)),
        sample=command.score,
    )
    encoder = None if tokenizer is None else encoder_for(config, tokenizer)
    progress = report.RowProgress(count_rows(parts), line=line)
    try:
        checkup = examine(parts, encoder, rules, plan, valid, progress.update)
    finally:
        progress.close()
    if sources.valid is not None and checkup.valid is not None:
        named = {"data": sources.data, "valid_data": sources.valid}
        hashes = {name: source.content_hash() for name, source in named.items()}
        checkup.add(remarks.on_plan(note) for note in notes_on_valid(hashes, checkup.valid))
    if command.score and checkup.sample:
        checkup.add([_score(config, checkup.sample)])
    return checkup


def _score(config: TrainConfig, pairs: list[TokenPair]) -> Finding:
    """Load the model and return what it makes of the pairs."""
    count_right = importlib.import_module("orpo_mlx.base_score").count_right
    report.print_error_text(f"loading the model to score {counted(len(pairs), 'pair')}")
    progress = report.RowProgress(len(pairs), "scoring pairs")
    try:
        return remarks.on_score(count_right(config, pairs, progress.update), len(pairs))
    finally:
        progress.close()


def _tokenizer(config: TrainConfig) -> tuple[Any, int | None]:
    """Load the tokenizer of the model and read the size of its vocabulary; no weights."""
    models = importlib.import_module("orpo_mlx.models")
    hub = importlib.import_module("orpo_mlx.hub")
    gate = importlib.import_module("orpo_mlx.import_gate")
    path = Path(str(config.model)).expanduser()
    folder = path if path.exists() else hub.download_settings(str(config.model), config.revision)
    tokenizer = models.load_tokenizer(folder, config.chat_template)
    vocab_size = gate.read_json_object(folder / "config.json", ModelError).get("vocab_size")
    return tokenizer, vocab_size
