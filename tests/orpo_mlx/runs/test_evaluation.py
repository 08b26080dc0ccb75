"""A run's evaluation read back; what is damaged is told, never a crash."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from orpo_mlx.errors import RunError
from orpo_mlx.runs.evaluation import DriftAnswer, Measured, read_evaluation

_NUMBER = {"value": 0.5, "low": 0.25, "high": 1}


def content(**changes: Any) -> dict[str, Any]:
    answer = {"prompt": "Hi?", "kind": "talk", "kl_per_token": 0.5, "base": "a", "adapter": "b"}
    return {
        "metrics": {"preference_accuracy": {"base": _NUMBER, "adapter": _NUMBER}},
        "drift": {"kl_per_token": {"adapter": _NUMBER}, "answers": [answer]},
        "verdict": {"text": "no difference could be shown", "is_shown": False},
        "counts": {"pairs": 20, "available": 40},
        "notes": ["few"],
        **changes,
    }


def test_it_is_read(tmp_path):
    file = tmp_path / "evaluation.json"
    assert read_evaluation(file) is None
    file.write_text(json.dumps(content()))
    found = read_evaluation(file)
    assert found is not None
    number = Measured(0.5, 0.25, 1)
    assert found.verdict == "no difference could be shown"
    assert (found.is_shown, found.pairs, found.available) == (False, 20, 40)
    assert found.metrics == {"preference_accuracy": {"base": number, "adapter": number}}
    assert found.drift == number
    assert found.answers == [DriftAnswer("Hi?", "a", "b", 0.5)]
    file.write_text(json.dumps(content(drift=None)))
    found = read_evaluation(file)
    assert found is not None
    assert (found.drift, found.answers) == (None, [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "the whole is no object"),
        (json.dumps(content(verdict={"text": 3})), "verdict.text is no text"),
        (json.dumps(content(counts={"pairs": -1})), "counts.pairs is no count"),
        (json.dumps(content(metrics={"a": {"base": {"value": 1}}})), "a.base is not"),
        (json.dumps(content(metrics={"a": {"base": {**_NUMBER, "low": 1e99}}})), "a.base is not"),
        (json.dumps(content(drift=[])), "drift is no object"),
        (json.dumps(content(drift={"kl_per_token": {}})), "kl_per_token is no object"),
        (json.dumps(content(notes="x")), "notes is no list"),
        ("NaN", "the whole is no object"),
        (None, "not a regular file"),
    ],
)
def test_what_is_damaged_is_told_with_what_to_do(tmp_path, text, why):
    file = tmp_path / "evaluation.json"
    if text is None:
        os.mkfifo(file)
    else:
        file.write_text(text)
    with pytest.raises(RunError) as error:
        read_evaluation(file)
    assert why in error.value.message
    assert str(file) in error.value.message
    assert error.value.what_to_do == f"Make it again: orpo-mlx evaluate {tmp_path} --save"
