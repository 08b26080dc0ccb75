"""Facts are read back as they were kept; what is no fact is counted and harms nothing else."""

from __future__ import annotations

import os

import pytest

from orpo_mlx.errors import DataError
from orpo_mlx.judging.ledger import Ask, GivenAnswer, Ledger


def test_facts_are_there_again_and_the_newest_counts(tmp_path):
    ask = Ask("person", 1, True)
    with Ledger(tmp_path, {"seed": 1}) as ledger:
        ledger.keep_answer("base", 0, GivenAnswer("a\nb", 2, True))
        ledger.keep_verdict(ask, "first")
        ledger.keep_verdict(ask, "tie", "hm")
    with Ledger(tmp_path, {"seed": 1}) as ledger:
        assert ledger.answers == {("base", 0): GivenAnswer("a\nb", 2, True)}
        assert ledger.verdicts == {ask: "tie"}
        assert (ledger.is_new, ledger.others, ledger.damaged) == (False, 0, 0)


@pytest.mark.parametrize("key", ["model", "seed", "prompts", "max_tokens", "adapter"])
def test_another_identity_is_another_file(tmp_path, key):
    identity = dict.fromkeys(["model", "seed", "prompts", "max_tokens", "adapter"], 1)
    with Ledger(tmp_path, identity) as one, Ledger(tmp_path, {**identity, key: 2}) as other:
        assert one.path != other.path
        assert (other.is_new, other.others) == (True, 1)


@pytest.mark.parametrize(
    "line",
    [
        '{"fact": "verdict", "judge": "person", "place": true, "after_first": true, "says": "tie"}',
        '{"fact": "verdict", "judge": "person", "place": 0, "after_first": true, "says": "both"}',
        '{"fact": "verdict", "judge": ["x"], "place": 0, "after_first": true, "says": "tie"}',
        '{"fact": "verdict", "judge": "x", "place": 0, "after_first": 1, "says": "tie"}',
        '{"fact": "verdict", "judge": "x", "place": 0, "after_first": true, "says": []}',
        '{"fact": "answer", "side": "base", "place": 0, "text": 5, "tokens": 1, "is_cut": false}',
        '{"fact": "answer", "side": "base", "place": 0, "text": "", "tokens": -1, "is_cut": false}',
        "[" * 100_000,
        "null",
        "{",
    ],
)
def test_a_line_that_is_no_fact_is_passed_over(tmp_path, line):
    with Ledger(tmp_path, {}) as ledger:
        ledger.keep_answer("base", 1, GivenAnswer("x", 1, False))
    with ledger.path.open("a") as stream:
        stream.write(line + "\n")
    with Ledger(tmp_path, {}) as ledger:
        assert (list(ledger.answers), ledger.verdicts, ledger.damaged) == ([("base", 1)], {}, 1)


def test_a_pipe_a_link_and_a_taken_journal_are_refused(tmp_path):
    taken = pytest.raises(DataError, match="another process works on it")
    with Ledger(tmp_path, {}) as ledger, taken:
        Ledger(tmp_path, {})
    other = tmp_path / "precious"
    other.write_text("no line feed")
    ledger.path.unlink()
    ledger.path.symlink_to(other)
    with pytest.raises(DataError, match="cannot be written"):
        Ledger(tmp_path, {})
    assert other.read_text() == "no line feed"
    ledger.path.unlink()
    os.mkfifo(ledger.path)
    with pytest.raises(DataError, match="not a regular file"):
        Ledger(tmp_path, {})


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="the journal cannot be kept there"):
        Ledger(tmp_path / "file" / "judge", {})
