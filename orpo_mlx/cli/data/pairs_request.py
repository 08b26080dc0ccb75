"""What `orpo-mlx data pairs` is asked to do: its options, checked, and the files it writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from orpo_mlx.cli.data.source import command_parser, layout_choice, read_source
from orpo_mlx.cli.parser import Parser, add_runs_dir_option, number_option
from orpo_mlx.data.layouts.columns import map_row, map_rows, with_others
from orpo_mlx.data.writing import check_out
from orpo_mlx.errors import ConfigError
from orpo_mlx.preferences.material import Material, read_material
from orpo_mlx.preferences.questions import KINDS, MAPPED, Kind, PromptAnswers
from orpo_mlx.preferences.ranking import RULES, Rule
from orpo_mlx.text.spelling import did_you_mean

_ANSWER_FIELDS = ("answer", "responses")

Now = Callable[[], datetime]


@dataclass(frozen=True)
class PairsRequest:
    """What a `data pairs` command line asks for, its numbers checked.

    Attributes:
        count: answers that are sampled for each prompt.
        batch: prompts that are answered side by side.
        judge: the run of the reward model that compares, None for a person.
        force: begin anew and replace what is there.
    """

    source: str
    out: Path
    kind: Kind
    count: int
    batch: int
    seed: int
    rule: Rule
    min_gap: float
    sampling: dict[str, Any]
    model: dict[str, Any]
    force: bool
    date: str
    judge: str | None = None

    def sidecar(self, what: str) -> Path:
        """Return the path of a journal beside OUT."""
        return self.out.with_name(f"{self.out.stem}.{what}.jsonl")

    def header(self, what: str, questions: Sequence[PromptAnswers], **more: Any) -> dict[str, Any]:
        """Return the first line of a journal: all that its results depend on."""
        content = repr([(q.prompt, q.answers, q.tools) for q in questions])
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        return {"work": what, "source": self.source, "content": digest, "seed": self.seed, **more}


def read_request_material(given: dict[str, Any]) -> Material:
    """Read SRC as the options say.

    Raises:
        OrpoError: it cannot be found, read or understood.
    """
    kind = _one_of(given, "from", KINDS)
    members, _ = read_source(given)
    rows = [row for member in members for row in member]
    if mapping := layout_choice(given).mapping:
        mapped = map_rows(rows, mapping, MAPPED)
        whole = with_others(rows, mapping)
        is_whole = "prompt" in mapping and not mapping.keys().isdisjoint(_ANSWER_FIELDS)
        rows = mapped if is_whole else [map_row(row, whole) for row in rows]
    return read_material(rows, cast(Kind | None, kind), given.get("score"), "plain" in given)


def _one_of(given: dict[str, Any], name: str, known: Sequence[str]) -> str | None:
    value = given.get(name)
    if value is not None and value not in known:
        raise ConfigError(
            f"--{name}: there is no {value}{did_you_mean(value, known)}",
            f"It is one of {', '.join(known)}.",
        )
    return value


def build_request(given: dict[str, Any], kind: Kind, out: Path, now: Now) -> PairsRequest:
    """Check the options that say how pairs of such a source are made.

    Raises:
        ConfigError: one is malformed, or the model is missing.
    """
    count = 1 if kind == "answers" else 2
    request = PairsRequest(
        source=given["source"],
        out=out,
        kind=kind,
        count=number_option(given, "candidates", count, count, 64, whole=True),
        batch=number_option(given, "batch_size", 8, 1, 512, whole=True),
        seed=number_option(given, "seed", 0, 0, 2**31 - 1, whole=True),
        rule=cast(Rule, _one_of(given, "rule", RULES) or "best-worst"),
        min_gap=number_option(given, "min_gap", 0, 0, 1e9),
        sampling={
            "temperature": number_option(given, "temperature", 1.0, 0, 10),
            "top_p": number_option(given, "top_p", 1.0, 0.01, 1),
            "max_tokens": number_option(given, "max_tokens", 512, 1, 32768, whole=True),
        },
        model={
            name: given[key]
            for name, key in (
                ("name", "model"),
                ("revision", "revision"),
                ("chat_template", "chat_template"),
            )
            if key in given
        },
        force="force" in given,
        date=now().isoformat(timespec="seconds"),
        judge=_judge_of(given, kind),
    )
    if kind in ("answers", "prompts") and "name" not in request.model:
        need = "worse answers" if kind == "answers" else "answers"
        raise ConfigError(
            f"--model: needed to write {need} to these prompts",
            "Give the model you are going to train: --model MODEL.",
        )
    if (
        request.sampling["temperature"] == 0
        and kind in ("answers", "prompts")
        and request.count > 1
    ):
        raise ConfigError(
            f"--temperature 0 with --candidates {request.count}: all answers would be the same",
            "Give a temperature above 0.",
        )
    return request


_JUDGE = "reward:"


def _judge_of(given: dict[str, Any], kind: Kind) -> str | None:
    """Return the run that `--judge reward:RUN` names.

    Raises:
        ConfigError: it names none, or there is nothing to judge.
    """
    value = given.get("judge")
    if value is None:
        return None
    run = str(value).removeprefix(_JUDGE)
    if run == value or not run:
        raise ConfigError(
            f"--judge: found {value!r}, needs reward:RUN, a run of --objective reward",
            "Name the run, as in --judge reward:my-run, or leave it out and compare yourself.",
        )
    if kind not in ("prompts", "candidates"):
        raise ConfigError(
            f"--judge: there is nothing to compare in {kind}; it is for prompts, which a model "
            "answers, and for candidates, which are several answers to each prompt",
            "Leave out --judge, or say what the rows are with --from.",
        )
    return run


def check_place(request: PairsRequest) -> None:
    """Refuse to replace what this very work did not write."""
    sidecars = [request.sidecar(what) for what in ("candidates", "verdicts")]
    is_own = request.kind != "ratings" and any(path.exists() for path in sidecars)
    check_out(request.out, request.force or is_own)
    if request.force:
        for path in sidecars:
            path.unlink(missing_ok=True)


def build_parser() -> Parser:
    """Return the parser of `orpo-mlx data pairs`."""
    parser = command_parser(
        "pairs",
        "Make preference pairs of what you have: prompts with a good answer (your model writes\n"
        "the worse ones), prompts alone (your model writes, you compare), answers with ratings or\n"
        "ranks, or several answers (you compare). An interrupted command goes on where it was.",
        "SRC OUT.jsonl [--model MODEL] [options]",
    )
    add_runs_dir_option(parser)
    parser.add_argument("out", nargs="?", metavar="OUT.jsonl", help="The file of pairs to write.")
    for flag, metavar, help in (
        ("from", "|".join(KINDS), "What the rows are. [default: told by the columns]"),
        ("model", "MODEL", "Folder or Hub id of the model that answers."),
        ("revision", "REVISION", "Of a Hub model."),
        ("chat-template", "chatml|FILE", "As for train."),
        ("candidates", "N", "Answers for each prompt. [default 1 for answers, 2 for prompts]"),
        ("temperature", "X", "Of the sampling; 0 = always the likeliest. [default 1]"),
        ("top-p", "X", "Sample from this share of the probability. [default 1]"),
        ("max-tokens", "N", "Longest answer. [default 512 tokens]"),
        ("batch-size", "N", "Prompts answered side by side. [default 8]"),
        ("seed", "N", "Of the sampling, and of what is shown left or right. [default 0]"),
        ("score", "NAME", "Column, or key beside each answer, that rates it."),
        ("judge", "reward:RUN", "Let a reward model compare, and not you."),
        ("rule", "|".join(RULES), "Which rated answers become pairs. [default best-worst]"),
        ("min-gap", "X", "Smallest difference of scores in a pair. [default 0]"),
    ):
        parser.add_argument(f"--{flag}", metavar=metavar, help=help)
    parser.add_argument(
        "--map",
        nargs="+",
        metavar="NAME=COLUMN",
        help=f"What the columns are; a name is one of {', '.join(MAPPED)}.",
    )
    parser.add_argument(
        "--plain", action="store_true", help="Prompts are texts to be continued, not chats."
    )
    parser.add_argument(
        "--force", action="store_true", help="Begin anew and replace OUT and its journals."
    )
    return parser
