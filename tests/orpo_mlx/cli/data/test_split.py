"""`orpo-mlx data split`: files that share no prompt, the same each time, and all accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.__main__ import main


@pytest.fixture
def source(pairs_file: Callable[..., Path]) -> Path:
    """60 prompts: each once as it is, each second one again in other letters."""
    rows = []
    for i in range(60):
        prompt = f"Tell me about the number {i}, please"
        rows.append({"prompt": prompt, "chosen": f"It is {i}.", "rejected": "No."})
        if i % 2:
            rows.append({"prompt": prompt.upper() + "!", "chosen": f"{i}", "rejected": "Why?"})
    return pairs_file(rows)


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def split(source: Path, out: Path, *words: str) -> dict[str, list[dict[str, Any]]]:
    assert main(["data", "split", str(source), "--out", str(out), *words]) == 0
    return {path.stem: rows_in(path) for path in sorted(out.iterdir())}


def test_no_prompt_is_on_two_sides_and_no_row_is_lost(source: Path, tmp_path: Path) -> None:
    sides = split(source, tmp_path / "out", "--valid", "0.1", "--test", "0.2")
    assert {name: len(rows) for name, rows in sides.items()} == {
        "train": 63,
        "valid": 9,
        "test": 18,
    }
    prompts = {
        name: {row["prompt"].lower().rstrip("!") for row in rows} for name, rows in sides.items()
    }
    assert prompts["train"].isdisjoint(prompts["valid"] | prompts["test"])
    assert prompts["valid"].isdisjoint(prompts["test"])
    lines = sorted(row["provenance"]["source"] for rows in sides.values() for row in rows)
    assert lines == sorted(f"pairs.jsonl:{i}" for i in range(1, 91))


def test_the_same_seed_divides_the_same_way(source: Path, tmp_path: Path) -> None:
    first = split(source, tmp_path / "a", "--seed", "3")
    assert first == split(source, tmp_path / "b", "--seed", "3")
    assert first != split(source, tmp_path / "c", "--seed", "4")


def test_training_takes_the_folder(source: Path, tmp_path: Path, model_folder: Path) -> None:
    out = tmp_path / "out"
    split(source, out, "--valid", "0.1")
    words = ["--data", str(out / "train.jsonl"), "--valid-data", str(out / "valid.jsonl")]
    assert main(["train", "--model", str(model_folder), *words, "--dry-run"]) == 0


def test_what_was_done_is_told(source: Path, tmp_path: Path, capsys: Any) -> None:
    split(source, tmp_path / "out", "--valid", "0.1")
    shown = capsys.readouterr().out
    assert "90 read, 90 kept, 0 dropped" in shown
    assert "9 pairs (10.0%)" in shown
    assert "30 pairs stay with another one of the same or nearly the same prompt" in shown


def test_what_exists_is_replaced_only_by_force(source: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    split(source, out)
    (out / "valid.jsonl").write_text("precious\n")
    words = ["data", "split", str(source), "--out", str(out)]
    assert main(words) == 2
    assert "exists" in capsys.readouterr().err
    assert (out / "valid.jsonl").read_text() == "precious\n"
    assert main([*words, "--force"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--out DIR is missing"),
        (["--out", "o", "--valid", "0"], "nothing would be divided"),
        (["--out", "o", "--valid", "0.6", "--test", "0.6"], "nothing would be left"),
        (["--out", "o", "--valid", "2"], "--valid: found '2'"),
        (["--out", "o", "--valid", "nan"], "--valid: found 'nan'"),
        (["--out", "o", "--seed", "x"], "--seed: found 'x'"),
        (["--out", "o", "--similarity", "0.1"], "--similarity"),
        (["--out", "pairs.jsonl"], "is not a folder"),
    ],
)
def test_mistakes_are_answered(
    words: list[str], says: str, source: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "split", str(source), *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_too_few_prompts_are_told(
    pairs_file: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    rows = [{"prompt": "the same", "chosen": str(i), "rejected": "x"} for i in range(9)]
    words = ["data", "split", str(pairs_file(rows)), "--out", str(tmp_path / "o")]
    assert main(words) == 2
    assert "1 different prompts cannot be divided" in capsys.readouterr().err
