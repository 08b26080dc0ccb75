"""Preference datasets by name: the built-in list, and a stand-in of the Hub."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from support.hub import point_client

from orpo_mlx.cli.commands.train import build_train_parser
from orpo_mlx.cli.data.search import main
from orpo_mlx.data.catalogue.curated import CURATED, find_curated
from orpo_mlx.data.catalogue.search import search_datasets


@pytest.fixture
def server(hub_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    point_client(hub_server, tmp_path / "cache", monkeypatch)
    tags = ["license:mit", "size_categories:1K<n<10K", "dpo"]
    for name, about in {
        "org/some-dpo": {"downloads": 7, "likes": 3, "tags": tags, "gated": "auto"},
        "org/images": {"downloads": 9, "likes": 1, "tags": ["license:mit"]},
        "argilla/dpo-mix-7k": {"downloads": 1234, "likes": 5, "tags": ["license:mit", "dpo"]},
    }.items():
        hub_server.add_dataset(name, {}).about = about
    return hub_server


def test_the_hub_adds_numbers_and_more_datasets_to_the_list(server: Any) -> None:
    found = {entry.id: entry for entry in search_datasets("").datasets}
    known = found["argilla/dpo-mix-7k"]
    assert (known.curated, known.downloads, known.licence) == (True, 1234, "mit")
    other = found["org/some-dpo"]
    assert (other.curated, other.likes, other.licence) == (False, 3, "mit")
    assert (other.size, other.gated) == ("1K<n<10K", True)
    assert "org/images" not in found
    assert list(found)[: len(CURATED)] == [entry.id for entry in CURATED]


def test_the_words_are_what_the_hub_is_asked_for(server: Any) -> None:
    search_datasets("math")
    assert "search=math" in server.asked[-1]
    search_datasets("")
    assert "filter=dpo" in server.asked[-1]


def test_json_has_the_keys_that_others_rely_on(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mix", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    keys = {"id", "downloads", "likes", "size", "licence", "teaches", "curated"}
    assert all(keys <= set(entry) for entry in entries)
    assert "argilla/dpo-mix-7k" in [entry["id"] for entry in entries]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("", "HF_HUB_OFFLINE is set"),
        ("rate_limited", "too many requests (429)"),
        ("broken", "a fault of its own (500)"),
        ("bad_token", "refused the access token (401)"),
    ],
)
def test_without_the_hub_the_list_is_searched_and_that_is_said(
    server: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    said: str,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not fault)
    server.fault = fault
    start = time.monotonic()
    assert main(["multi-turn"]) == 0
    assert time.monotonic() - start < 10
    out = capsys.readouterr().out
    assert "The Hub was not searched: " in out
    assert said in out
    assert "argilla/distilabel-capybara-dpo-7k-binarized" in out
    assert main(["multi-turn", "--json"]) == 0
    said_aside = capsys.readouterr()
    assert json.loads(said_aside.out)
    assert said in said_aside.err


def test_nothing_found_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no such thing"]) == 0
    assert "Nothing found for 'no such thing'" in capsys.readouterr().out


def test_the_list_is_found_by_name_and_by_what_it_teaches() -> None:
    assert [entry.id for entry in find_curated("truthfully")] == ["jondurbin/truthy-dpo-v0.1"]
    assert find_curated("") == list(CURATED)


@pytest.mark.parametrize("entry", CURATED, ids=lambda entry: entry.id)
def test_suggested_settings_are_options_of_train(entry: Any) -> None:
    options = build_train_parser().options()
    words = entry.settings.split()
    assert words[::2]
    assert set(words[::2]) <= set(options)
