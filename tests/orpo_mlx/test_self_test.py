"""The self-test trains for real, and notices a training that differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from orpo_mlx import self_test


def test_three_trainings_agree():
    checks = list(self_test.iter_checks(steps=6))
    assert [check.name for check in checks] == [
        "a training",
        "the same twice",
        "interrupted and resumed",
    ]
    assert [check.level for check in checks] == ["ok"] * 3, checks


def test_a_difference_fails(monkeypatch: pytest.MonkeyPatch):
    hashes = iter(["one", "two"])
    monkeypatch.setattr(self_test, "_train", lambda *_: (next(hashes), None))
    monkeypatch.setattr(self_test, "_train_interrupted", lambda *_: (None, "it was killed"))
    first, second, third = self_test.iter_checks()
    assert first.level == "ok"
    assert (second.level, second.text) == ("error", "the adapters differ")
    assert (third.level, third.text) == ("error", "it was killed")
    assert third.what_to_do


def test_what_a_failed_training_said_is_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        self_test, "_command", lambda run, _: ["sh", "-c", "echo broken >&2; exit 3"]
    )
    (only,) = self_test.iter_checks()
    assert only.text == "exit code 3: broken"
    assert only.level == "error"


def test_the_command_is_one_that_train_understands(tmp_path: Path):
    from orpo_mlx.command_line import parse_train

    words = self_test._command(tmp_path / "run", 20)[3:]
    assert parse_train(words).config.steps == 20
