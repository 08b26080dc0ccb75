"""What is told of a dataset before it is downloaded, from cards as people and tools write them."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import constants

from orpo_mlx.data.catalogue.card import ask_card, read_card
from orpo_mlx.errors import DataError

TEXT = [{"name": name, "dtype": "string"} for name in ("prompt", "chosen", "rejected")]
TURNS = [{"name": "content", "dtype": "string"}, {"name": "role", "dtype": "string"}]
FILES = {"data/train-00000-of-00001.parquet": 3_000, "data/test-00000-of-00001.parquet": 50}


def info(features: list[dict[str, Any]], rows: int = 12, **more: Any) -> dict[str, Any]:
    splits = [{"name": "train", "num_examples": rows}, {"name": "test", "num_examples": 2}]
    return {"features": features, "splits": splits, **more}


def test_columns_layout_rows_and_bytes_of_the_training_split_are_told() -> None:
    card = read_card({"license": "mit", "dataset_info": info(TEXT)}, FILES)
    assert (card.columns, card.layout) == (("prompt", "chosen", "rejected"), "plain text")
    assert (card.rows, card.download_bytes, card.licence) == (12, 3_000, "mit")
    assert card.unclear == ""


@pytest.mark.parametrize(
    ("split", "files", "rows", "size"),
    [("test", FILES, 2, 50), ("", {}, 12, 0), ("other", {}, 0, 0)],
)
def test_rows_and_bytes_are_those_of_the_split_that_is_read(
    split: str, files: dict[str, int], rows: int, size: int
) -> None:
    card = read_card({"dataset_info": info(TEXT)}, files, split=split)
    assert (card.rows, card.download_bytes, card.is_gated) == (rows, size, False)


@pytest.mark.parametrize(
    ("features", "layout"),
    [
        ([{"name": n, "list": TURNS} for n in ("chosen", "rejected")], "implicit chat"),
        ([{"name": n, "list": {"struct": TURNS}} for n in ("chosen", "rejected")], "implicit chat"),
        ([TEXT[0], *({"name": n, "list": TURNS} for n in ("chosen", "rejected"))], "explicit chat"),
        ([{"name": "question", "dtype": "string"}, *TEXT[1:]], "single turn"),
        (
            [{"name": f"{n}_ids", "sequence": "int64"} for n in ("prompt", "chosen", "rejected")],
            "tokenized",
        ),
        # Whether two texts are transcripts, no card tells.
        (TEXT[1:], ""),
        ([{"name": "text", "dtype": "string"}], ""),
    ],
)
def test_the_layout_follows_from_the_types(features: list[dict[str, Any]], layout: str) -> None:
    assert read_card({"dataset_info": info(features)}, FILES).layout == layout


def test_splits_named_by_no_text_are_passed_over() -> None:
    splits = [{"name": ["train"], "num_examples": 1}, {"name": "train", "num_examples": 2}]
    assert read_card({"dataset_info": {"splits": splits}}, FILES).rows == 2


def test_the_subset_that_is_read_counts() -> None:
    infos = [info(TEXT[1:], 5, config_name="a"), info(TEXT, 7, config_name="b")]
    files = {"a/train.parquet": 10, "b/train.parquet": 20}
    asked = read_card({"dataset_info": infos}, files, "b")
    assert (asked.rows, asked.download_bytes, asked.layout) == (7, 20, "plain text")
    assert "there are several subsets: a, b" in read_card({"dataset_info": infos}, files).unclear


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"dataset_info": "none", "configs": 3, "license": {"name": "x"}},
        {"dataset_info": [None, {"features": [{"name": 3}, "x"], "splits": {"train": 1}}]},
        {"dataset_info": {"features": [{"name": "chosen", "list": None}], "splits": [{}]}},
    ],
)
def test_whatever_stands_in_a_card_is_no_error(card: dict[str, Any]) -> None:
    assert read_card(card, FILES).rows == 0


def test_the_hub_is_asked_for_no_file(hub_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    dataset_info = info(TEXT)
    hub_server.add_dataset("org/some", {"train.jsonl": b"{}\n" * 9}, dataset_info=dataset_info)
    card = ask_card("org/some")
    assert (card.layout, card.rows, card.download_bytes) == ("plain text", 12, 27)
    assert not any("resolve" in path for _, path in hub_server.requests)
    assert "blobs=true" in hub_server.asked[-1]  # without that a Hub tells no sizes
    with pytest.raises(DataError, match="the Hub knows no such dataset"):
        ask_card("org/none")
    hub_server.fault = "rate_limited"
    with pytest.raises(DataError, match="too many requests"):
        ask_card("org/some")
