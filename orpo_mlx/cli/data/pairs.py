"""`orpo-mlx data pairs`: pairs from answers, prompts or ratings.

Answers become pairs by worse ones from the user's own model, prompts by a human who compares, rated
answers by a rule. What takes long is journalled beside OUT and taken up again by the same command.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from orpo_mlx.cli.data import judge_terminal
from orpo_mlx.cli.data.pairs_request import (
    Now,
    PairsRequest,
    build_parser,
    build_request,
    check_place,
    read_request_material,
)
from orpo_mlx.cli.data.source import account_text, out_path, reasons, require, rows_word
from orpo_mlx.cli.terminal import print_controls, print_error_text, print_text
from orpo_mlx.data.types import Account, Drop, PreferencePair
from orpo_mlx.data.writing import normal_row, write_rows
from orpo_mlx.errors import DataError
from orpo_mlx.preferences.judging import Judging
from orpo_mlx.preferences.material import Material
from orpo_mlx.preferences.questions import PromptAnswers
from orpo_mlx.preferences.ranking import RULE_WORDS, TOO_FEW_ANSWERS, make_pair, pairs_by_rule
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.listing import find_run
from orpo_mlx.storage.journal import Journal
from orpo_mlx.text.formatting import format_duration
from orpo_mlx.version import __version__

if TYPE_CHECKING:
    from orpo_mlx.preferences.candidates import Candidates

CUT = "answer ended by --max-tokens"
_REPORT_SECONDS = 5.0
_OTHER_RULE = "See the reasons above; another --rule, --min-gap or --temperature may help."
_ONE_EACH = (
    "No prompt has two rated answers. --from answers --model MODEL takes those that are not marked "
    "as bad, and the model writes the worse ones."
)


def main(argv: Sequence[str], now: Now = lambda: datetime.now(UTC)) -> int:
    """Run `orpo-mlx data pairs`; return the exit code: 0 done or ended by "quit", 130 interrupted.

    Args:
        argv: the words after the command.
        now: the date that pairs are marked with.

    Raises:
        OrpoError: the source, the model or the place to write cannot be used.
        TextRequested: --help.
    """
    given = build_parser().parse(argv)
    require(given, "source", "SRC", "pairs")
    out = out_path(require(given, "out", "OUT.jsonl", "pairs"))
    material = read_request_material(given)
    request = build_request(given, material.kind, out, now)
    check_place(request)
    if request.judge:
        request = replace(request, judge=_reward_run(request.judge, given))
    print_text(account_text(material.account) + f"found   {material.columns}\n")
    if not material.questions:
        raise DataError(
            f"0 of {material.account.read:,} rows usable: {reasons(material.account.dropped)}.",
            "Check the rows.",
        )
    return _MAKERS[material.kind](request, material)


# Ratings ------------------------------------------------------------------------------------------


def _from_ratings(request: PairsRequest, material: Material) -> int:
    return _pairs_by_rule(request, material.questions, {}, request.date)


def _pairs_by_rule(
    request: PairsRequest, questions: Sequence[PromptAnswers], about: dict[str, Any], date: str
) -> int:
    account = Account()
    pairs: list[PreferencePair] = []
    for question in questions:
        account.read += 1
        found = pairs_by_rule(question.scores, request.rule, request.min_gap)
        if isinstance(found, Drop):
            account.drop(found.reason, question.source)
            continue
        answers = question.answers
        scores = question.scores
        made = [
            (make_pair(question, answers[better], answers[worse]), scores[better] - scores[worse])
            for better, worse in found
        ]
        good = [replace(pair, margin=gap) for pair, gap in made if not isinstance(pair, Drop)]
        if not good:
            account.drop("identical text", question.source)
        account.kept += bool(good)
        pairs += good
    about = {**about, "rule": request.rule, "min_gap": request.min_gap}
    print_text(_prompt_account(account) + f"rule    {RULE_WORDS[request.rule]}\n")
    advice = _ONE_EACH if list(account.dropped) == [TOO_FEW_ANSWERS] else _OTHER_RULE
    return _finish(request, pairs, about, date, advice)


def _prompt_account(account: Account) -> str:
    return account_text(account).replace("rows    ", "prompts ", 1)


def _finish(
    request: PairsRequest,
    pairs: Sequence[PreferencePair],
    about: dict[str, Any],
    date: str,
    advice: str = _OTHER_RULE,
) -> int:
    if not pairs:
        raise DataError(f"{request.source}: no pair was made; nothing was written.", advice)
    provenance = {"made_by": f"orpo-mlx {__version__} data pairs", **about, "date": date}
    count = write_rows(request.out, (normal_row(pair, provenance) for pair in pairs))
    return print_text(f"wrote   {request.out}: {rows_word(count)}\n")


# Answers of a model -------------------------------------------------------------------------------


def _answers(request: PairsRequest, questions: Sequence[PromptAnswers]) -> Candidates:
    """Let the model answer; an interruption loses nothing."""
    # Loads mlx: not for --help, ratings and mistakes.
    from orpo_mlx.generation.batch import Writer
    from orpo_mlx.generation.sampling import Sampling
    from orpo_mlx.preferences.candidates import write_candidates

    progress = _Progress()

    def open_journal(about: dict[str, Any]) -> Journal:
        header = request.header("candidates", questions, **about, date=request.date)
        return Journal(request.sidecar("candidates"), header, free=("date",))

    try:
        return write_candidates(
            questions,
            Writer(**request.model),
            Sampling(**request.sampling, seed=request.seed),
            count=request.count,
            batch=request.batch,
            open_journal=open_journal,
            on_begin=progress.begin,
            on_done=progress.show,
        )
    except KeyboardInterrupt:
        print_error_text("what is answered is kept: the same command goes on")
        raise


class _Progress:
    """Says on stderr how far the answers are, not more often than every few seconds."""

    def __init__(self) -> None:
        self._first = 0
        self._start = self._last = time.monotonic()

    def begin(self, done: int, total: int) -> None:
        """Say where an earlier start of the work ended."""
        self._first = done
        self._start = self._last = time.monotonic()
        if done:
            print_text(f"going on after {done} of {total} prompts\n")

    def show(self, done: int, total: int) -> None:
        """Tell how many prompts are answered."""
        now = time.monotonic()
        if now - self._last < _REPORT_SECONDS and done < total:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = format_duration((total - done) / rate) if rate else "?"
        after = f", about {left} left" if done < total else ""
        print_error_text(f"answered {done} of {total} prompts{after}")


def _from_answers(request: PairsRequest, material: Material) -> int:
    found = _answers(request, material.questions)
    account = Account()
    pairs: list[PreferencePair] = []
    for question, answers in zip(material.questions, found.answers, strict=True):
        account.read += 1
        made = list(_worse_pairs(question, answers))
        good = [pair for pair in made if not isinstance(pair, Drop)]
        account.kept += bool(good)
        if not good:
            account.drop(cast(Drop, made[0]).reason, question.source)
        for note in {note for pair in good for note in pair.notes}:
            account.note(note, question.source)
        pairs += good
    print_text(_prompt_account(account))
    return _finish(request, pairs, {"rejected": "generated", **found.about}, found.date)


def _worse_pairs(
    question: PromptAnswers, answers: Sequence[dict[str, Any]]
) -> Iterator[PreferencePair | Drop]:
    """Yield a pair for each different answer of the model, or why it makes none."""
    seen: set[str] = set()
    for one in answers:
        text = _tidy(question, one["text"])
        if text in seen:
            continue
        seen.add(text)
        notes = (CUT,) if one["is_cut"] else ()
        yield make_pair(question, question.answers[0], text, notes)


def _tidy(question: PromptAnswers, text: str) -> str:
    """Strip an answer of a chat; of text that goes on, only its end."""
    return text.rstrip() if isinstance(question.prompt, str) else text.strip()


# A reward model judges ----------------------------------------------------------------------------


def _reward_run(text: str, given: dict[str, Any]) -> str:
    """Find the reward model before anything long begins; return its run's folder."""
    from orpo_mlx.preferences.rating import reward_place

    run = find_run(text, given.get("runs_dir"))
    reward_place(run)
    return str(run.path)


def _rated(
    request: PairsRequest, questions: Sequence[PromptAnswers], about: dict[str, Any], date: str
) -> int:
    """Let the reward model rate every answer; the rule makes pairs of the ratings."""
    from orpo_mlx.preferences.rating import Rater, reward_place

    run = RunDirectory(Path(str(request.judge)))
    rater = Rater(run, reward_place(run))
    rewards = rater.rate(questions)
    rated = []
    for question, found in zip(questions, rewards, strict=True):
        both = [(text, r) for text, r in zip(question.answers, found, strict=True)
                if not isinstance(r, Drop)]  # fmt: skip
        texts, scores = zip(*both, strict=True) if both else ((), ())
        rated.append(replace(question, answers=texts, scores=scores))
    judged = {"judged": "by a reward model", "reward_run": run.id, **about}
    return _pairs_by_rule(request, rated, judged, date)


# A human judge ------------------------------------------------------------------------------------


def _from_prompts(request: PairsRequest, material: Material) -> int:
    if not request.judge:
        _require_someone()
    found = _answers(request, material.questions)
    questions, account = [], Account()
    for question, answers in zip(material.questions, found.answers, strict=True):
        account.read += 1
        texts = dict.fromkeys(_tidy(question, one["text"]) for one in answers)
        different = tuple(text for text in texts if text.strip())
        if len(different) < 2:
            account.drop("fewer than two different answers", question.source)
            continue
        account.kept += 1
        questions.append(
            PromptAnswers(question.prompt, different, (), question.source, question.tools)
        )
    print_text(_prompt_account(account))
    compare = _rated if request.judge else _judge
    return compare(request, questions, found.about, found.date)


def _from_candidates(request: PairsRequest, material: Material) -> int:
    if request.judge:
        return _rated(request, material.questions, {}, request.date)
    _require_someone()
    return _judge(request, material.questions, {"seed": request.seed}, request.date)


def _require_someone() -> None:
    judge_terminal.require_keys(0)


def _judge(
    request: PairsRequest, questions: Sequence[PromptAnswers], about: dict[str, Any], date: str
) -> int:
    """Let a human compare; what was judged is written however it ends."""
    header = request.header("verdicts", questions, date=date)
    code = 0
    with Journal(request.sidecar("verdicts"), header, free=("date",)) as journal:
        judging = Judging(questions, request.seed, journal.entries)
        try:
            if not judging.is_done:
                judge_terminal.judge(judging, journal.append, print_controls, 0)
        except KeyboardInterrupt:
            code = 130
        date = journal.header["date"]
    counts = judging.counts()
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    given = len(judging.verdicts)
    print_text(f"judged  {given} of {judging.total} comparisons{f': {said}' if said else ''}\n")
    if not judging.is_done:
        print_text("        the same command goes on\n")
    if not judging.pairs():
        return code or print_text("        no pair yet; nothing was written\n")
    _finish(request, judging.pairs(), {"judged": "by a human, blind", **about}, date)
    return code


_MAKERS: dict[str, Callable[[PairsRequest, Material], int]] = {
    "answers": _from_answers,
    "prompts": _from_prompts,
    "ratings": _from_ratings,
    "candidates": _from_candidates,
}
