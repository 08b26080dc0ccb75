"""Which files are the training pairs, told from names as they stand on the Hub."""

from __future__ import annotations

import pytest

from orpo_mlx.data.sources.splits import choose_split, find_split, list_splits
from orpo_mlx.errors import DataError


@pytest.mark.parametrize(
    ("names", "subset", "split"),
    [
        (["train.jsonl", "valid.jsonl"], "", "train"),
        (["data/train-00000-of-00001-b42a775f407cee45.parquet"], "", "train"),
        (["data/train_prefs-00000-of-00001.parquet", "data/test_gen-0.parquet"], "", "train_prefs"),
        (["default/train/0000.parquet", "default/train/0001.parquet"], "", "train"),
        (["default/partial-train/0000.parquet"], "", "train"),
        (["helpful-base/train.jsonl.gz", "helpful-base/test.jsonl.gz"], "helpful-base", "train"),
        (["orca_rlhf.jsonl", "README.md", ".gitattributes"], "", "train"),
        (["reddit/cooking/train.json", "reddit/cooking/test.json"], "reddit/cooking", "train"),
        (["train_001.jsonl", "train_002.jsonl"], "", "train"),
        (["my_data_train.csv", "my_data_test.csv"], "", "train"),
        (["data/training/part-1.jsonl"], "", "training"),
        (["contest.jsonl"], "", "train"),
        (["data/dpo-00000-of-00001.parquet"], "", "dpo"),
    ],
)
def test_the_training_split_is_told_from_names(names: list[str], subset: str, split: str) -> None:
    chosen = choose_split(list_splits(names), "x")
    assert (chosen.subset, chosen.split) == (subset, split)


def test_the_exact_name_wins_over_one_that_prefers() -> None:
    names = [f"{name}.jsonl" for name in ("train", "train_prefs", "train_sft")]
    assert choose_split(list_splits(names), "x").files == ["train.jsonl"]


@pytest.mark.parametrize(
    ("names", "file"),
    [
        (["train.jsonl", "val.jsonl", "test.jsonl"], "val.jsonl"),
        (["train.jsonl", "dev.jsonl"], "dev.jsonl"),
        (["train_prefs.jsonl", "test_prefs.jsonl", "test_sft.jsonl"], "test_prefs.jsonl"),
    ],
)
def test_the_validation_split_is_told_from_names(names: list[str], file: str) -> None:
    assert choose_split(list_splits(names), "x", "valid").files == [file]


def test_a_test_split_is_not_taken_for_validation_by_itself() -> None:
    assert find_split(list_splits(["train.jsonl", "test.jsonl"]), "valid", "") is None


def test_the_same_rows_in_two_kinds_of_files_are_read_once() -> None:
    names = ["train.csv", "train.parquet", "dataset_infos.json"]
    assert choose_split(list_splits(names), "x").files == ["train.parquet"]


def test_all_parts_must_be_there() -> None:
    with pytest.raises(DataError, match="1 of the 2 parts of train are there"):
        choose_split(list_splits(["train-00001-of-00002.parquet"]), "x")


def test_a_card_with_folders_and_a_default_is_followed() -> None:
    names = [
        f"{name}/{split}.jsonl.gz"
        for name in ("harmless", "helpful")
        for split in ("train", "test")
    ]
    configs = [
        {"config_name": "all", "default": True, "data_files": [
            {"split": "train", "path": ["harmless/train*", "helpful/train*"]}]},
        {"config_name": "helpful", "data_dir": "helpful"},
    ]  # fmt: skip
    listing = list_splits(names, configs)
    assert choose_split(listing, "x").files == ["harmless/train.jsonl.gz", "helpful/train.jsonl.gz"]
    assert choose_split(listing, "x", subset="helpful").files == ["helpful/train.jsonl.gz"]


@pytest.mark.parametrize("configs", [["x"], [{}], [{"data_files": 7}], [{"data_files": [{}]}]])
def test_a_card_that_describes_nothing_is_passed_over(configs: list[object]) -> None:
    assert list_splits(["train.jsonl"], configs).files == {"": {"train": ["train.jsonl"]}}
