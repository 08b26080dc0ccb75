"""The self-test trains for real, and a child that fails is a fact."""

from __future__ import annotations

import json

import pytest

from orpo_mlx.cli.commands.doctor import iter_trainings, print_trainings
from orpo_mlx.verify import suite
from orpo_mlx.verify.check import Check
from orpo_mlx.verify.trainings import REPEATED


def test_trainings_in_a_process_of_their_own_agree(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Also in a folder that has modules of these names."""
    for name in ("json", "orpo_mlx", "mlx"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('code of the folder')")
    monkeypatch.chdir(tmp_path)
    facts = list(iter_trainings())
    assert [fact.name for fact in facts] == [
        "the same twice", "interrupted and resumed", "kept outputs"
    ]  # fmt: skip
    assert [fact.level for fact in facts] == ["ok"] * 3, facts


def test_a_difference_is_printed_with_what_differs(monkeypatch: pytest.MonkeyPatch, capsys):
    checks = [Check(REPEATED, False, 1.0, 0, "adapter files that differ")]
    monkeypatch.setattr(suite, "check_demo_trainings", lambda: checks)
    print_trainings()
    name, text, passed = json.loads(capsys.readouterr().out)
    assert (name, passed) == ("the same twice", False)
    assert text == "adapter files that differ"


def test_what_a_child_said_that_failed_is_shown():
    child = "import sys; sys.stdin.read(); print('[\"a\", \"b\", true]'); sys.exit('broken')"
    first, last = iter_trainings(child)
    assert (first.name, first.level) == ("a", "ok")
    assert (last.text, last.level) == ("exit code 1: broken", "error")
    assert last.what_to_do
