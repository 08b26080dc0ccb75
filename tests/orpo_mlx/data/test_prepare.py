"""From a named source to token pairs, and from the cache the second time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.prepare import PreparedData, find_training_data, prepare_data
from orpo_mlx.data.tokens import cache
from orpo_mlx.errors import DataError
from orpo_mlx.models.load import load_tokenizer, resolve_model

ROWS = 1200


@pytest.fixture
def tokenizer(model_folder: Path) -> Any:
    return load_tokenizer(resolve_model(str(model_folder)), None)


@pytest.fixture
def prepared(model_folder: Path, tokenizer: Any) -> Callable[..., PreparedData]:
    """Return `prepare(**settings) -> PreparedData`, as a training does it."""

    def prepare(on_progress: Any = None, **settings: Any) -> PreparedData:
        config = TrainConfig(model=str(model_folder), **settings)
        found = find_training_data(config)
        return prepare_data(config, found, tokenizer, model_folder, 1000, on_progress=on_progress)

    return prepare


def write(path: Path, count: int, start: int = 0) -> Path:
    rows = (
        {"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No."}
        for i in range(start, start + count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> Any:
        pytest.fail("the rows were read again")

    monkeypatch.setattr("orpo_mlx.data.prepare.read_members", read)


def test_the_second_start_takes_the_same_pairs_from_the_cache(
    prepared: Callable[..., PreparedData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(write(tmp_path / "a.jsonl", ROWS))
    first = prepared(data=data)
    assert len(list(cache.folder().iterdir())) == 1
    forbid_reading(monkeypatch)
    second = prepared(data=data)
    assert second == first
    assert len(second.train) + len(second.valid) == ROWS


@pytest.mark.parametrize(
    ("settings", "kept", "prompt"),
    [
        ({}, 1, "1+1?"),
        ({"keep_ties": True}, 2, "1+1?"),
        ({"keep_inverted": True}, 2, "1+1?"),
        ({"keep_duplicates": True}, 2, "1+1?"),
        ({"layout": "single-turn"}, 1, "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"),
    ],
    ids=str,
)
def test_a_training_takes_rows_as_the_settings_say(
    prepared: Callable[..., PreparedData],
    tokenizer: Any,
    tmp_path: Path,
    settings: dict[str, Any],
    kept: int,
    prompt: str,
) -> None:
    rows = [
        {
            "prompt": f"{i}+1?",
            "chosen": "2",
            "rejected": "3",
            "chosen_score": a,
            "rejected_score": b,
        }
        for i, a, b in ((1, 2, 1), (2, 1, 1), (3, 0, 1), (1, 2, 1))
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    data = prepared(
        data=str(tmp_path / "a.jsonl"), valid_fraction=0, micro_batch_size=1, **settings
    )
    assert len(data.train) == kept
    assert tokenizer.decode(data.train[0].prompt) == prompt


@pytest.mark.parametrize(
    "settings",
    [{"max_seq_length": 64}, {"keep_duplicates": True}, {"escape_special": True}],
    ids=str,
)
def test_other_settings_are_tokenized_anew(
    prepared: Callable[..., PreparedData], tmp_path: Path, settings: dict[str, Any]
) -> None:
    data = str(write(tmp_path / "a.jsonl", ROWS))
    prepared(data=data)
    prepared(data=data, **settings)
    assert len(list(cache.folder().iterdir())) == 2


def test_settings_that_leave_the_tokens_alone_share_an_entry(
    prepared: Callable[..., PreparedData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(write(tmp_path / "a.jsonl", ROWS))
    prepared(data=data)
    forbid_reading(monkeypatch)
    prepared(data=data, seed=3, rank=4, valid_fraction=0.5)


def test_a_changed_file_is_read_anew(prepared: Callable[..., PreparedData], tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", ROWS)
    first = prepared(data=str(data))
    data.write_text(data.read_text().replace("It is 7.", "It is 8."))
    second = prepared(data=str(data))
    assert second.hashes != first.hashes
    assert second.train != first.train


def test_another_template_is_tokenized_anew(
    prepared: Callable[..., PreparedData], tmp_path: Path, tokenizer: Any
) -> None:
    data = str(write(tmp_path / "a.jsonl", ROWS))
    prepared(data=data)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant", "model")
    prepared(data=data)
    assert len(list(cache.folder().iterdir())) == 2


def test_a_damaged_entry_is_made_anew(
    prepared: Callable[..., PreparedData], tmp_path: Path
) -> None:
    data = str(write(tmp_path / "a.jsonl", ROWS))
    first = prepared(data=data)
    (entry,) = cache.folder().iterdir()
    content = bytearray(entry.read_bytes())
    content[-100] ^= 1
    entry.write_bytes(content)
    assert prepared(data=data) == first


def test_shares_of_another_seed_are_other_rows(
    prepared: Callable[..., PreparedData], tmp_path: Path
) -> None:
    many, few = write(tmp_path / "a.jsonl", 3000), write(tmp_path / "b.jsonl", 500, 5000)
    settings: dict[str, Any] = {"data": f"{many}:2,{few}:1", "valid_fraction": 0.0}
    first, again, other = (prepared(**settings, seed=seed) for seed in (1, 1, 2))
    assert len(first.train) == 1500
    assert f"{many}: 1,000 of its 3,000 rows are drawn" in first.notes
    assert first == again
    assert first.train != other.train


def test_a_folder_is_split_as_its_files_are(
    prepared: Callable[..., PreparedData], tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", 20)
    write(folder / "valid.jsonl", 5, 100)
    found = prepared(data=str(folder))
    assert (len(found.train), len(found.valid)) == (20, 5)
    assert found.facts[0] == f"{folder}: train"
    assert set(found.hashes) == {"data", "valid_data"}


def test_progress_is_told_in_rows_when_there_are_many(
    prepared: Callable[..., PreparedData], tmp_path: Path
) -> None:
    told: list[tuple[int, int, str, str]] = []
    prepared(data=str(write(tmp_path / "a.jsonl", 2050)), on_progress=lambda *x: told.append(x))
    assert told[-1] == (2050, 2050, "tokenizing", "rows")
    assert [one[0] for one in told] == sorted(one[0] for one in told)
    told.clear()
    prepared(data=str(write(tmp_path / "b.jsonl", 50)), on_progress=lambda *x: told.append(x))
    assert told == []


def test_a_layout_that_is_not_known_is_said_before_the_model(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": 1}\n')
    with pytest.raises(DataError, match="no known layout"):
        find_training_data(TrainConfig(data=str(path)))
