"""`orpo-mlx score`: a reward model rates the answers of a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orpo_mlx.cli.data.source import (
    SOURCE_HELP,
    account_text,
    add_layout_options,
    layout_choice,
    out_path,
    read_pairs,
    read_source,
    reasons,
)
from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_json_option,
    add_run_argument,
    add_runs_dir_option,
    missing_run,
)
from orpo_mlx.cli.progress import ProgressLine, failures_as_json
from orpo_mlx.cli.terminal import print_text, terminal_width
from orpo_mlx.data.types import Account, Drop, PreferencePair
from orpo_mlx.data.writing import check_out, write_rows
from orpo_mlx.errors import ConfigError, DataError
from orpo_mlx.preferences.material import read_material
from orpo_mlx.preferences.questions import PromptAnswers
from orpo_mlx.runs.listing import find_run
from orpo_mlx.text.formatting import counted, visible

if TYPE_CHECKING:
    from orpo_mlx.runs.directory import RunDirectory

_SHOWN = 10


@dataclass(frozen=True)
class Rated:
    """What was rated.

    Attributes:
        questions: prompts with their answers; of a pair the chosen one first.
        rewards: of each answer of each prompt; None where it could not be rated.
        is_pairs: whether the rows are pairs.
        account: of the rows.
    """

    questions: Sequence[PromptAnswers]
    rewards: Sequence[Sequence[float | None]]
    is_pairs: bool
    account: Account

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each prompt: a pair with its scores, or responses and theirs."""
        return [
            self._row(question, list(rewards))
            for question, rewards in zip(self.questions, self.rewards, strict=True)
        ]

    def _row(self, question: PromptAnswers, rewards: list[float | None]) -> dict[str, Any]:
        about = {"tools": question.tools} if question.tools else {}
        about |= {"provenance": {"source": question.source}}
        if self.is_pairs:
            chosen, rejected = question.answers
            scores = {"score_chosen": rewards[0], "score_rejected": rewards[1]}
            return {"prompt": question.prompt, "chosen": chosen, "rejected": rejected} | (
                scores | about
            )
        answers = {"responses": list(question.answers), "scores": rewards}
        return {"prompt": question.prompt, **answers, **about}

    def summary(self) -> dict[str, Any]:
        """Return counts, the mean and the range, and of pairs how many are right."""
        known = [one for row in self.rewards for one in row if one is not None]
        found: dict[str, Any] = {
            "answers": len(known),
            "not_rated": sum(one is None for row in self.rewards for one in row),
        }
        if known:
            found |= {"mean": sum(known) / len(known), "low": min(known), "high": max(known)}
        whole = [row for row in self.rewards if None not in row]
        if self.is_pairs and whole:
            right = sum(chosen > rejected for chosen, rejected in whole)  # type: ignore[operator]
            found |= {"pairs": len(whole), "preference_accuracy": right / len(whole)}
        return found


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx score`; return the exit code 0."""
    with failures_as_json("--json" in argv):
        return _score(build_parser().parse(argv))


def build_parser() -> Parser:
    """Return the parser of `orpo-mlx score`."""
    parser = Parser(
        "orpo-mlx score",
        "Let a reward model (a run of --objective reward) rate answers: both of each pair, or all\n"
        "answers to each prompt. A reward means something beside others of the same prompt.",
        usage="orpo-mlx score RUN SRC [--out FILE.jsonl] [options]",
    )
    add_help_option(parser)
    add_run_argument(parser)
    parser.add_argument("source", nargs="?", metavar="SRC", help=SOURCE_HELP)
    parser.add_argument(
        "--out",
        metavar="FILE.jsonl",
        help="Write the rows with their scores: pairs that train reads, or answers for data pairs.",
    )
    parser.add_argument("--force", action="store_true", help="Replace FILE.jsonl.")
    add_layout_options(parser)
    add_json_option(parser, "Print a JSON object with all rewards.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def _score(given: dict[str, Any]) -> int:
    if "run" not in given:
        raise missing_run("score")
    if "source" not in given:
        raise ConfigError(
            "orpo-mlx score: what to rate is missing", "Give a file: orpo-mlx score RUN FILE."
        )
    out = out_path(given["out"]) if "out" in given else None
    if out is not None:
        check_out(out, "force" in given)
    run = find_run(given["run"], given.get("runs_dir"))
    from orpo_mlx.preferences.rating import reward_place

    place = reward_place(run)
    questions, is_pairs, account = _questions(given)
    progress = ProgressLine("json" in given, says_phases=True)
    try:
        rewards = _rewards(run, place, questions, progress)
    finally:
        progress.close()
    rated = Rated(questions, rewards, is_pairs, account)
    if out is not None:
        write_rows(out, rated.rows())
    if "json" in given:
        content = {"run": run.id, **rated.summary(), "rows": rated.rows()}
        return print_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    wrote = [f"wrote   {out}"] if out is not None else []
    return print_text("\n".join([*_lines(rated), *wrote]) + "\n")


def _rewards(
    run: RunDirectory, place: Any, questions: Sequence[PromptAnswers], progress: ProgressLine
) -> list[list[float | None]]:
    from orpo_mlx.preferences.rating import Rater

    rater = Rater(run, place, progress)
    found = rater.rate(questions, lambda done, total: progress(done, total, "rating", "rows"))
    return [[None if isinstance(one, Drop) else one for one in row] for row in found]


def _questions(given: dict[str, Any]) -> tuple[list[PromptAnswers], bool, Account]:
    """Return prompts with their answers, and whether they are pairs.

    Raises:
        OrpoError: the source cannot be read, or holds no answers.
    """
    members, _ = read_source(given)
    rows = [row for member in members for row in member]
    columns = {name for row in rows for name in row.values}
    choice = layout_choice(given)
    if choice.mapping or choice.layout or any(name.startswith("rejected") for name in columns):
        found = read_pairs(given, choice)
        pairs = [pair for pair in found.pairs if isinstance(pair, PreferencePair)]
        if len(pairs) < len(found.pairs):
            raise DataError(
                f"{given['source']}: holds token ids; texts or messages are needed here.",
                "orpo-mlx evaluate RUN --data FILE rates pairs of token ids.",
            )
        asked = [
            PromptAnswers(p.prompt, (_text(p.chosen), _text(p.rejected)), (), p.source, p.tools)
            for p in pairs
        ]
        return asked, True, found.account
    material = read_material(rows)
    if material.kind == "prompts":
        raise DataError(
            f"{given['source']}: holds prompts without answers; there is nothing to rate.",
            "Let a model answer and this one compare: orpo-mlx data pairs SRC OUT.jsonl "
            "--model MODEL --judge reward:RUN.",
        )
    if not material.questions:
        dropped = reasons(material.account.dropped)
        raise DataError(
            f"0 of {material.account.read:,} rows usable: {dropped}.", "Check the rows."
        )
    return material.questions, False, material.account


def _text(side: Any) -> str:
    """Return an answer of a pair, text or the last of some turns."""
    return side if isinstance(side, str) else side[-1]["content"]


def _lines(rated: Rated) -> list[str]:
    summary, width = rated.summary(), terminal_width()
    lines = [account_text(rated.account).rstrip("\n")]
    for question, rewards in list(zip(rated.questions, rated.rewards, strict=True))[:_SHOWN]:
        lines.append(visible(question.source))
        for text, reward in zip(question.answers, rewards, strict=True):
            number = "not rated" if reward is None else f"{reward:+.4f}"
            room = max(20, width - 14)
            lines.append(f"  {number:>9}  {visible(' '.join(text.split()))[:room]}")
    if len(rated.questions) > _SHOWN:
        lines.append(f"and {counted(len(rated.questions) - _SHOWN, 'prompt')} more")
    lines.append("")
    if "mean" in summary:
        lines.append(
            f"rated   {counted(summary['answers'], 'answer')}: mean {summary['mean']:+.4f}, "
            f"{summary['low']:+.4f} to {summary['high']:+.4f}"
        )
    if summary["not_rated"]:
        lines.append(f"        {counted(summary['not_rated'], 'answer')} not rated: too long")
    if "pairs" in summary:
        share = summary["preference_accuracy"]
        lines.append(f"right   chosen rated higher in {share:.1%} of {summary['pairs']:,} pairs")
    return lines
