"""Answers of child processes: kept, one at a time, ended when nobody waits any more."""

from __future__ import annotations

import asyncio
import os

import pytest

from tui.processes.answers import Answers
from tui.processes.children import ChildFailed


@pytest.fixture
def program(tmp_path):
    """Return `make(body)`: a program with its arguments as `words`, and a file `log`."""

    def make(body: str) -> list[str]:
        head = "import json, sys, time\nfrom pathlib import Path\nwords = sys.argv[1:]\n"
        log = f"log = Path({str(tmp_path / 'log')!r})\n"
        (tmp_path / "program.py").write_text(head + log + body)
        return [str(tmp_path / "program.py")]

    return make


async def test_an_answer_of_many_lines_is_read_and_kept(program, tmp_path):
    body = "log.open('a').write('x')\nprint(json.dumps({'words': words}, indent=2))\n"
    answers = Answers(program(body), delay_seconds=0)
    assert answers.known(["a"]) is None
    assert await answers.ask(["a"]) == {"words": ["a"]}
    assert await answers.ask(["a"]) == answers.known(["a"])
    assert (tmp_path / "log").read_text() == "x"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "print(json.dumps({'event': 'failed', 'kind': '', 'message': 'it broke.', "
            "'what_to_do': 'Do this.'}))\nsys.exit('noise')",
            "it broke.\nDo this.",
        ),
        ("sys.exit('a crash')", "a crash"),
        ("sys.exit(3)", "The command ended with code 3."),
        ("print('[1]')", "The command gave no object."),
    ],
)
async def test_without_an_answer_there_is_a_reason(program, body, reason):
    answers = Answers(program(body), delay_seconds=0)
    with pytest.raises(ChildFailed) as failed:
        await answers.ask([])
    assert str(failed.value) == reason
    assert answers.known([]) is None


async def test_a_bad_exit_code_with_an_answer_is_an_answer(program):
    answers = Answers(program("print(json.dumps({'fits': False}))\nsys.exit(2)"), delay_seconds=0)
    assert await answers.ask([]) == {"fits": False}


async def test_a_question_nobody_waits_for_ends_its_process(program, tmp_path):
    begin = "import os\nlog.with_name('aside').write_text(str(os.getpid()))\n"
    begin += "log.with_name('aside').rename(log)\n"
    body = "if words == ['slow']: time.sleep(600)\nprint('{}')\n"
    answers = Answers(program(begin + body), delay_seconds=0)
    slow = asyncio.create_task(answers.ask(["slow"]))
    while not (tmp_path / "log").exists():
        await asyncio.sleep(0.01)
    number = int((tmp_path / "log").read_text())
    slow.cancel()
    # The next one has its turn only when the first process is gone.
    assert await answers.ask(["quick"]) == {}
    assert slow.cancelled()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    assert answers.known(["slow"]) is None


async def test_of_a_burst_only_the_last_question_is_asked(program, tmp_path):
    body = "log.open('a').write(words[0])\nprint('{}')\n"
    answers = Answers(program(body), delay_seconds=0.05)
    for word in "ab":
        task = asyncio.create_task(answers.ask([word]))
        await asyncio.sleep(0)
        task.cancel()
    await answers.ask(["c"])
    assert (tmp_path / "log").read_text() == "c"


async def test_progress_is_told_and_no_complaint(program):
    event = {"event": "progress", "done": 1, "total": 2, "label": "checking rows", "unit": "rows"}
    body = f"print(json.dumps({event}), file=sys.stderr)\nprint('a warning', file=sys.stderr)\n"
    answers, told = Answers(program(body), delay_seconds=0), []
    with pytest.raises(ChildFailed) as failed:
        await answers.ask([], told.append)
    assert told == [event]
    assert str(failed.value) == "a warning"
