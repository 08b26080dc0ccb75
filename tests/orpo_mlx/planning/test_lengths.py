"""Lengths of pairs: those of a training, kept by content, never stale or half."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.data import pipeline
from orpo_mlx.data.batching.shape import Lengths
from orpo_mlx.data.tokens import cache
from orpo_mlx.errors import DataError
from orpo_mlx.models.load import load_tokenizer
from orpo_mlx.planning import lengths
from orpo_mlx.planning.lengths import PairLengths, read_lengths

ROWS = [("one two", "three", "four five six"), ("a", "b " * 40, "c"), ("x y z", "q", "w")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "pairs.jsonl", ROWS)


def write(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    names = ("prompt", "chosen", "rejected")
    path.write_text("".join(json.dumps(dict(zip(names, r, strict=True))) + "\n" for r in rows))
    return path


@pytest.fixture
def ask(model_folder: Path, data: Path) -> Callable[..., PairLengths]:
    """Return `ask(**settings)`: the lengths of the pairs."""

    def ask(**settings: object) -> PairLengths:
        given = {"model": str(model_folder), "data": str(data), **settings}
        return read_lengths(TrainConfig.model_validate(given))

    return ask


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by a word each time rows are tokenized."""
    seen: list[str] = []
    real = pipeline.prepare_members

    def prepare(*given: object) -> object:
        seen.append("again")
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "prepare_members", prepare)
    return seen


def test_lengths_are_those_of_the_tokenized_pairs(
    ask: Callable[..., PairLengths], model_folder: Path, data: Path
):
    pairs = pipeline.prepare_file(data, load_tokenizer(model_folder), 4096).pairs
    by_hand = [Lengths(len(p.prompt), len(p.chosen), len(p.rejected)) for p in pairs]
    assert ask().train == ask().train == by_hand
    assert len(by_hand) == 3


def test_without_data_there_are_none(ask: Callable[..., PairLengths]):
    assert ask(data=None) == PairLengths()


def test_settings_that_change_no_text_do_not_tokenize_again(
    ask: Callable[..., PairLengths], tokenized: list[str]
):
    first = ask()
    others = (
        {"rank": 64}, {"micro_batch_size": 1}, {"max_seq_length": 9}, {"seed": 5}, {"epochs": 3},
        {"grad_checkpoint": "on"}, {"num_layers": 1}, {"valid_fraction": 0.2}, {"lam": 1.0},
    )  # fmt: skip
    assert [ask(**other) for other in others] == [first] * len(others)
    assert tokenized == ["again"]


def test_other_bytes_tokenizer_template_or_rules_do(
    ask: Callable[..., PairLengths], tokenized: list[str], data: Path, model_folder: Path
):
    ask()
    write(data, [*ROWS, ("one more", "row", "here")])
    assert len(ask().train) == 4
    ask(keep_duplicates=True)
    ask(escape_special=True)
    ask(thinking="on")
    template = data.with_name("own.jinja")
    text = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    for content in (text, text + "!"):
        template.write_text(content)
        ask(chat_template=str(template))
    file = model_folder / "tokenizer_config.json"
    file.write_text(file.read_text() + "\n")
    ask()
    assert len(tokenized) == 8


def test_other_code_does(
    ask: Callable[..., PairLengths], tokenized: list[str], monkeypatch: pytest.MonkeyPatch
):
    ask()
    monkeypatch.setattr(cache, "code_hash", lambda: "changed")
    ask()
    monkeypatch.setattr(lengths, "_code_hash", lambda: "changed")
    ask()
    assert len(tokenized) == 3


@pytest.mark.parametrize("damage", [lambda c: c[:-12], lambda c: c[:-1] + b"\7", lambda _: b""])
def test_a_damaged_entry_is_made_anew(
    ask: Callable[..., PairLengths], tokenized: list[str], damage: Callable[[bytes], bytes]
):
    first = ask()
    (entry,) = lengths.folder().iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert ask() == first == ask()
    assert len(tokenized) == 2


def test_what_is_kept_is_bounded_and_the_last_used_stays(
    ask: Callable[..., PairLengths], monkeypatch: pytest.MonkeyPatch
):
    ask(thinking="off")
    (entry,) = lengths.folder().iterdir()
    sizes = [entry.stat().st_size] * 2
    entry.unlink()
    monkeypatch.setattr(lengths, "MAX_BYTES", sum(sizes))
    for number, thinking in enumerate(("auto", "on")):
        ask(thinking=thinking)
        for entry in lengths.folder().iterdir():
            os.utime(entry, (number, number))
    ask(thinking="auto")  # used now: the other one is the oldest
    ask(thinking="off")
    assert len(list(lengths.folder().iterdir())) == 2
    counted: list[str] = []
    monkeypatch.setattr(lengths, "_tokenize", lambda *_: counted.append("again"))
    ask(thinking="auto")
    assert counted == []


def test_a_folder_that_cannot_be_written_is_said_and_does_not_matter(
    ask: Callable[..., PairLengths],
):
    lengths.folder().parent.mkdir(parents=True, exist_ok=True)
    lengths.folder().write_text("a file stands here")
    found = ask()
    assert len(found.train) == 3
    assert found.notes == ["the lengths could not be kept for the next question (File exists)"]


def test_the_split_and_the_validation_pairs_a_training_would_take_are_counted(
    ask: Callable[..., PairLengths], tmp_path: Path
):
    folder = tmp_path / "dataset"
    folder.mkdir()
    write(folder / "train.jsonl", ROWS)
    write(folder / "validation.jsonl", ROWS[:1])
    whole = ask(data=str(folder))
    assert (len(whole.train), len(whole.valid)) == (3, 1)
    assert len(ask(data=str(folder), data_split="validation").train) == 1
    assert len(ask(valid_data=str(folder / "validation.jsonl")).valid) == 1


def test_data_that_cannot_be_read_is_an_error(ask: Callable[..., PairLengths], tmp_path: Path):
    with pytest.raises(DataError):
        ask(data=str(write(tmp_path / "broken.jsonl", []).with_suffix(".gone")))
